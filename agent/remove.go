package agent

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/consensus"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/gossip"
)

// What removing a host proves.
const (
	provedCopies   = "copies"   // none of its copies runs there any more
	provedFiles    = "files"    // what they kept there is removed
	provedPeer     = "peer"     // it has no part in the quorum
	provedIdentity = "identity" // its certificate is refused
)

// postRemove takes a host one step further out of the mesh, and says what the
// next waits for; whoever wants the host gone asks again until it is. Each step
// is a decision in the log or looks at what the host itself reports, so a new
// leader goes on where the last one was.
func (s *server) postRemove(r *http.Request, body []byte) (any, error) {
	var req api.RemoveRequest
	if len(body) > 0 {
		if err := decode(body, &req); err != nil {
			return nil, err
		}
	}
	name := r.PathValue("host")
	state, err := s.settled(r.Context())
	if err != nil {
		return nil, err
	}
	h, ok := state.Host(name)
	if !ok {
		return removedBefore(state, name)
	}
	if len(state.Hosts()) == 1 {
		return nil, api.Errorf(api.CodeRejected, "remove host %s: it is the last host of mesh %s; run ganglion leave there to end the mesh", name, s.meshName())
	}
	out := api.Removal{Host: name, ID: h.ID, Proved: []string{}, Unproved: []string{}}
	rm := topology.RemoveHost{Name: name, ID: h.ID}
	if s.answers(h, time.Now()) {
		rm.Drained = true
		out.Waiting, err = s.emptied(r, state, h, req.Force, &out)
	} else if out.Unproved = []string{provedCopies, provedFiles}; !req.Force {
		return nil, api.Errorf(api.CodeRejected, "remove host %s: it does not answer, so nobody can see whether its copies have ended and its files are gone; start it and try again, or remove it without that proof (--force)", name)
	}
	if err == nil && out.Waiting == "" {
		out.Waiting, err = s.outOfQuorum(r.Context(), name)
	}
	if err != nil || out.Waiting != "" {
		return out, err
	}
	rm.Unproved = out.Unproved
	return s.strike(r, rm, out)
}

// answers tells whether a host can be asked to clear out: gossip calls it alive
// or it reports. One that has just gone silent is not given up at once.
func (s *server) answers(h topology.Host, now time.Time) bool {
	m, known := byName(s.pool.Members())[h.Name]
	if known && m.Status != gossip.StatusFailed && m.Status != gossip.StatusLeft {
		return true
	}
	r, age, ok := s.obs.last(h.Name, now)
	return ok && r.HostID == h.ID && age < missedReport
}

// emptied sees to it that a host is drained and has cleared out, and says what
// that waits for.
func (s *server) emptied(r *http.Request, state *topology.State, h topology.Host, force bool, out *api.Removal) (string, error) {
	if !h.Removing {
		if _, err := s.drain(r, topology.SetDrain{Host: h.Name, Drain: topology.DrainDraining, Removing: true}); err != nil {
			return "", err
		}
		return "it is being emptied", nil
	}
	if h.Drain != topology.DrainDrained {
		return fmt.Sprintf("%d copies are still placed on it, or run there", len(state.PlacementsOn(h.Name))), nil
	}
	rep, age, ok := s.obs.last(h.Name, time.Now())
	switch {
	case !ok || rep.HostID != h.ID || age >= missedReport || rep.SliceIndex < state.Slice(h.Name).Index:
		return "it has not reported yet what is left on it", nil
	case len(rep.Copies) > 0:
		return fmt.Sprintf("%d copies still run there", len(rep.Copies)), nil
	case rep.Cleared:
		out.Proved = append(out.Proved, provedCopies, provedFiles)
	case rep.Left != "" && force:
		out.Proved, out.Unproved = append(out.Proved, provedCopies), append(out.Unproved, provedFiles)
	case rep.Left != "":
		return "it cannot remove what copies left there: " + rep.Left, nil
	default:
		return "it is removing what copies left there", nil
	}
	return "", nil
}

// outOfQuorum sees to it that a host's Raft server counts nowhere, and says what
// that waits for. The leader cannot take out itself: it hands over first.
func (s *server) outOfQuorum(ctx context.Context, name string) (string, error) {
	if name == s.cfg.Name {
		node := s.raft.node()
		if node == nil {
			return "", &consensus.NotLeaderError{}
		}
		// Noted first: where it has the only vote, another host must get one.
		s.leader.voters.retire(name, time.Now())
		if err := node.Transfer(ctx); err != nil && !errors.As(err, new(*consensus.NotLeaderError)) {
			return fmt.Sprintf("it leads, and no other host can take over yet: %v", err), nil
		}
		return "it led; another leads now", nil
	}
	for _, p := range s.quorum() {
		if p.Name == name {
			s.leader.voters.retire(name, time.Now())
			return "it is still in the quorum", nil
		}
	}
	return "", nil
}

// strike takes the host off the roster, which revokes its identity. The leader's
// loop tells it.
func (s *server) strike(r *http.Request, rm topology.RemoveHost, out api.Removal) (any, error) {
	res, err := s.commit(r, topology.Command{RemoveHost: &rm})
	if err != nil {
		return nil, err
	}
	s.obs.forget(rm.Name)
	out.Done, out.Revision = true, res.Revision
	out.Proved = append(out.Proved, provedPeer, provedIdentity)
	return out, nil
}

// removedBefore answers for a host that is off the roster already, so that to ask
// twice is harmless.
func removedBefore(state *topology.State, name string) (any, error) {
	r, ok := state.RevokedName(name)
	if !ok || r.Left {
		return nil, api.Errorf(api.CodeNotFound, "remove host %s: there is no such host in mesh %s (ganglion hosts)", name, state.MeshName())
	}
	out := api.Removal{Host: name, ID: r.ID, Done: true, Revision: r.Index}
	out.Proved, out.Unproved = proofs(r)
	return out, nil
}

// proofs is what was proved when a host was removed, and what nobody could look at.
func proofs(r topology.Revocation) (proved, unproved []string) {
	proved, unproved = []string{}, []string{}
	for _, p := range []string{provedCopies, provedFiles, provedPeer, provedIdentity} {
		if slices.Contains(r.Unproved, p) {
			unproved = append(unproved, p)
		} else {
			proved = append(proved, p)
		}
	}
	return proved, unproved
}
