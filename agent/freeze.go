package agent

import (
	"context"
	"net/http"
	"path/filepath"
	"slices"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/agent/brake"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/events"
	"github.com/ganglion-mesh/ganglion/intent"
	"github.com/ganglion-mesh/ganglion/reflexes"
	"github.com/ganglion-mesh/ganglion/reflexes/senses"
	"github.com/ganglion-mesh/ganglion/trust"
	"github.com/ganglion-mesh/ganglion/workload"
)

// openBrake loads what is frozen, before anything acts.
func (m *member) openBrake() (err error) {
	watch := m.watchAsk
	if m.cfg.Seams.NoWatch {
		watch = nil
	}
	m.brake, err = brake.New(brake.Config{
		Identity: m.id, File: m.store.path(askFreeze), Watch: watch, Logger: m.log,
		Load: func() (records [][]byte, err error) { return records, m.store.load(fileFreeze, &records) },
		Save: func(records [][]byte) error { return m.store.save(fileFreeze, records) },
		Revoked: func(key []byte) bool {
			return m.slices != nil && m.revoked(keyID(key))
		},
		Spread: m.pool.Share, Told: m.tellFreeze,
	})
	if err == nil {
		m.pool.OnNote(m.brake.Hear)
	}
	return err
}

// watchAsk tells when the file that asks for a freeze may be there.
func (m *member) watchAsk(ctx context.Context, there func()) error {
	path, err := filepath.Abs(m.store.path(askFreeze))
	if err != nil {
		return err
	}
	files, err := senses.NewFiles(senses.FilesConfig{Target: askFreeze, Paths: []string{path}, Now: func() reflexes.Boot { return m.bootTime() }})
	if err != nil {
		return err
	}
	return files.Run(ctx, func([]reflexes.Fact) { there() })
}

// tellFreeze tells what has become of the brake on this host.
func (m *member) tellFreeze(before, after *brake.View) {
	subject := events.FreezeSubject(m.cfg.Name)
	switch {
	case after.Frozen():
		m.log.Warn("frozen: no automatic action", "epoch", after.Epoch, "hard", after.Hard(), "apps", after.Apps(), "by", after.By)
		m.emit(events.New(subject, events.FreezeFrozen{Epoch: after.Epoch, Hard: after.Hard(), Apps: after.Apps(), By: after.By}))
	case before.Frozen():
		m.log.Info("thawed", "epoch", after.Thawed, "by", after.By)
		m.emit(events.New(subject, events.FreezeThawed{Epoch: after.Thawed, By: after.By}))
	}
	if m.copies != nil {
		m.copies.Look()
	}
	if m.nerves != nil { // a thaw ends what was only kept because of the freeze
		m.nerves.lookAddresses()
	}
}

// braked is what a freeze holds of an app's copies on this host.
func (m *member) braked(app string) workload.Brake {
	frozen, hard := m.brake.View().Holds(app)
	return workload.Brake{Frozen: frozen, Hard: hard}
}

// frozenView is a View as users see it; nil if nothing is frozen.
func frozenView(v *brake.View) *api.Frozen {
	if !v.Frozen() {
		return nil
	}
	return &api.Frozen{Epoch: v.Epoch, Hard: v.Hard(), Apps: append([]string{}, v.Apps()...)}
}

// freezeOf is a View as decisions see it.
func freezeOf(v *brake.View) topology.Freeze {
	return topology.Freeze{All: v.Whole(), Apps: v.Apps()}
}

// postFreeze freezes the mesh from this host, with no leader.
func (s *server) postFreeze(_ *http.Request, body []byte) (any, error) {
	var req api.FreezeRequest
	if err := decode(body, &req); err != nil {
		return nil, err
	}
	node := s.raft.node()
	for _, app := range req.Apps {
		if err := intent.CheckName(app); err != nil {
			return nil, api.Errorf(api.CodeInvalid, "freeze app %q: %v", shorten(app), err)
		}
		if node == nil || !s.freshVoter(node.Status()) {
			continue // who does not know all apps takes the user's word
		}
		if _, ok := node.State().App(app); !ok {
			return nil, api.Errorf(api.CodeNotFound, "freeze app %s: there is no such app; nothing was frozen", app)
		}
	}
	slices.Sort(req.Apps)
	if _, err := s.brake.Freeze(slices.Compact(req.Apps), req.Hard); err != nil {
		return nil, err
	}
	return s.getLocalFreeze(nil, nil)
}

// getLocalFreeze answers what this host knows of the brake.
func (s *server) getLocalFreeze(*http.Request, []byte) (any, error) {
	v := s.brake.View()
	return api.FreezeState{Host: s.cfg.Name, Frozen: frozenView(v), By: v.By, Thawed: v.Thawed, Records: s.brake.Records()}, nil
}

// postThaw ends all freezes that this leader, or the host that was asked first,
// knows of. The log is what makes it so.
func (s *server) postThaw(r *http.Request, body []byte) (any, error) {
	var req api.ThawRequest
	if err := decode(body, &req); err != nil {
		return nil, err
	}
	state, err := s.settled(r.Context())
	if err != nil {
		return nil, err
	}
	if err := s.brake.Merge(req.Records); err != nil {
		s.log.Warn("thaw: a freeze that the asking host knows is not believed", "error", err)
	}
	if !s.brake.View().Frozen() {
		return s.getLocalFreeze(nil, nil)
	}
	by := s.cfg.Name
	if c, err := s.callerOf(r); err == nil && (c.isAgent() || c.via == callerLocal) {
		by = c.peer.Host
	}
	thaw := topology.Thaw{Epoch: max(s.brake.Epoch(), state.Thawed().Epoch) + 1, By: by}
	if _, err := s.commit(r, topology.Command{Thaw: &thaw}); err != nil {
		return nil, err
	}
	if state, err = s.settled(r.Context()); err != nil {
		return nil, err
	}
	if err := s.leader.sealThaw(state); err != nil {
		return nil, err
	}
	return s.getLocalFreeze(nil, nil)
}

// sealThaw makes the last thaw that was committed known, if it is not: whoever
// leads does, so that none is lost with the leader that has committed it.
func (l *leaderLoop) sealThaw(state *topology.State) error {
	t, tr := state.Thawed(), state.Trust()
	if t.Epoch <= l.brake.View().Thawed {
		return nil
	}
	record, err := brake.SealThaw(trust.Authority{CertPEM: tr.CACert, KeyPEM: tr.CAKey}, t.Epoch, t.By)
	if err != nil {
		return err
	}
	return l.brake.Merge([][]byte{record})
}

// freezeNews is what is to be told to who knows what has that digest.
func (m *member) freezeNews(digest string) [][]byte {
	if digest == m.brake.Digest() {
		return nil
	}
	return m.brake.Records()
}

// hearFreeze takes in what another host of the mesh knows.
func (m *member) hearFreeze(records [][]byte) {
	if err := m.brake.Merge(records); err != nil {
		m.log.Debug("freeze not taken", "error", err)
	}
}
