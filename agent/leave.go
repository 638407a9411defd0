package agent

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/gossip"
	"github.com/ganglion-mesh/ganglion/pause"
)

// leaveDeadline bounds the emptying of a host that leaves.
const leaveDeadline = 10 * time.Minute

// postLeave empties this host, takes it out of the quorum and off the roster,
// and ends its membership. The agent forgets the identity when the answer is
// out.
func (s *server) postLeave(r *http.Request, _ []byte) (any, error) {
	if c, err := s.callerOf(r); err != nil || !c.local {
		return nil, api.Errorf(api.CodeDenied, "leave: only through the host's own socket; use ganglion drain from afar")
	}
	ctx, cancel := context.WithTimeout(r.Context(), leaveDeadline)
	defer cancel()
	last, err := s.isLastHost(ctx)
	if err == nil && !last {
		err = s.withdraw(ctx)
	}
	if err != nil && api.CodeOf(err) != api.CodeRemoved { // else it is off the roster already
		return nil, err
	}
	if n := len(s.copies.Reports()); last && n > 0 {
		return nil, api.Errorf(api.CodeRejected, "leave: this is the last host of mesh %s and %d copies run on it; delete the apps first (ganglion status)", s.meshName(), n)
	}
	if err := s.pool.Leave(ctx); err != nil {
		s.log.Warn("leave gossip", "error", err)
	}
	s.left.Do(func() { close(s.leaving) })
	return api.Version{Host: s.cfg.Name}, nil
}

func (s *server) isLastHost(ctx context.Context) (bool, error) {
	var hosts []api.Host
	err := s.links.client(s.addr).Get(ctx, "/v1/hosts", nil, &hosts)
	return len(hosts) == 1, err
}

// withdraw drains this host, then asks the leader to retire it.
func (s *server) withdraw(ctx context.Context) error {
	me := s.links.client(s.addr)
	base := "/v1/hosts/" + s.cfg.Name
	if err := me.Post(ctx, base+"/drain", nil, nil, nil); err != nil {
		return err
	}
	for s.busy() {
		if !pause.For(ctx, 100*time.Millisecond) {
			return fmt.Errorf("leave: host %s is not empty after %s: some copies have no other host (ganglion status); it is still draining", s.cfg.Name, leaveDeadline)
		}
	}
	answered := time.Now()
	for {
		err := s.askRetire(ctx)
		switch {
		case err == nil:
			return nil
		case api.CodeOf(err) == api.CodeRejected:
			answered = time.Now() // not yet
		case api.CodeOf(err) != api.CodeNoLeader:
			return err
		case time.Since(answered) > leaderPatience:
			return s.noLeader()
		}
		if !pause.For(ctx, 200*time.Millisecond) {
			return err
		}
	}
}

// askRetire asks the leader to take this host off the roster. It asks by itself:
// what another host hands on is not this host's word. Asking twice is harmless.
func (s *server) askRetire(ctx context.Context) error {
	addrs := s.leaderAddrs()
	if s.leader.leading() {
		addrs = []string{s.addr}
	}
	for _, addr := range addrs {
		actx, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := s.links.client(addr).Post(actx, "/v1/hosts/"+s.cfg.Name+"/retire", nil, nil, nil)
		cancel()
		switch code := api.CodeOf(err); {
		case err == nil, code == api.CodeRejected, code == api.CodeRemoved, code == api.CodeDenied:
			return err
		}
		s.compass.wrong(addr)
	}
	return api.Errorf(api.CodeNoLeader, "retire host %s: no leader answers", s.cfg.Name)
}

// busy tells whether copies are placed here or still run here.
func (s *server) busy() bool {
	sl := s.slices.slice()
	return sl.Drain == topology.DrainNone || len(sl.Assignments) > 0 || len(s.copies.Reports()) > 0
}

// postRetire takes a drained host off the roster, at its own wish, once it is
// out of the quorum. The leader cannot retire itself: it hands over first.
func (s *server) postRetire(r *http.Request, _ []byte) (any, error) {
	name := r.PathValue("host")
	c, err := s.callerOf(r)
	if err != nil {
		return nil, err
	}
	if !c.isHost(name) {
		return nil, api.Errorf(api.CodeDenied, "retire host %s: only its own agent may", name)
	}
	state, err := s.settled(r.Context())
	if err != nil {
		return nil, err
	}
	h, ok := state.Host(name)
	if !ok {
		return nil, nil
	}
	if h.Drain != topology.DrainDrained {
		return nil, api.Errorf(api.CodeRejected, "retire host %s: it is not drained", name)
	}
	if waiting, err := s.outOfQuorum(r.Context(), name); err != nil || waiting != "" {
		if err == nil {
			err = api.Errorf(api.CodeRejected, "retire host %s: %s", name, waiting)
		}
		return nil, err
	}
	if _, err := s.commit(r, topology.Command{RemoveHost: &topology.RemoveHost{Name: name, ID: h.ID, Left: true}}); err != nil {
		return nil, err
	}
	s.obs.forget(name) // the leader's loop tells it
	return nil, nil
}

// rejoinHint is what a host without company is told in its log.
func rejoinHint(p *gossip.Pool) string {
	if joined, err := p.JoinState(); !joined && err != nil {
		return err.Error()
	}
	return ""
}
