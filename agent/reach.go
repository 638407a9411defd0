package agent

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/agent/reflexer"
	"github.com/ganglion-mesh/ganglion/consensus"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/events"
	"github.com/ganglion-mesh/ganglion/pause"
	"github.com/ganglion-mesh/ganglion/reflexes"
	"github.com/ganglion-mesh/ganglion/workload"
)

// reachPatience bounds the request for an act of a reflex: what has not begun by
// then is given up.
const reachPatience = 10 * time.Second

// withholds says why this leader has nothing done by reflexes that reaches beyond a
// host's own copies, or "".
func (l *leaderLoop) withholds() string {
	d := l.last.Load()
	switch {
	case l.brake.View().Whole():
		return "the mesh is frozen"
	case d == nil:
		return "the leader has only just taken office"
	case d.GateShut:
		return "too many hosts look unhealthy to the leader, or did a moment ago"
	}
	return ""
}

// borrow asks a leader for tokens of the budget, and notes what it says of the mesh.
func (n *nerves) borrow(ctx context.Context, b reflexer.Borrowing) reflexer.Answer {
	settled := make([]api.SettledLoan, len(b.Settled))
	for i, l := range b.Settled {
		settled[i] = api.SettledLoan{ID: l.ID, Spent: l.Spent}
	}
	if _, now := n.cfg.bootClock()(); n.loanKey == "" || now-n.loanAsked > topology.LoanTime/2 {
		n.loanKey, n.loanAsked = newID(), now
	}
	rules := make([]topology.RuleRef, 0, len(b.For))
	for _, v := range b.For[:min(len(b.For), api.MaxLoanRules)] {
		rules = append(rules, topology.RuleRef(v))
	}
	loan, resp, err := n.member.borrow(ctx, loanAsk{tokens: b.Tokens, key: n.loanKey, asked: n.loanAsked, rules: rules, settled: settled})
	if err != nil {
		return reflexer.Answer{Err: err}
	}
	n.loanKey = ""
	n.crowd.heard(resp.Hosts, time.Now())
	return reflexer.Answer{Loan: loan, Why: resp.Why}
}

// needless tells whether what an act is for is so already.
func (n *nerves) needless(f reflexes.Firing) bool {
	sl := n.slices.slice()
	switch f.Rung.Do.Op {
	case "drain_self":
		return sl.Drain != topology.DrainNone
	case "evict":
		return !slices.ContainsFunc(sl.Assignments, func(a topology.Assignment) bool {
			p := a.Placement
			return !p.Stopped && p.Leaving == "" && means(f.On, workload.CopyID{App: p.App, N: p.N})
		})
	}
	return false
}

// means tells whether t is a copy, or the app that it is one of.
func means(t reflexes.Target, id workload.CopyID) bool {
	return t.Scope == reflexes.ScopeCopy && t.Name == id.String() || t.Scope == reflexes.ScopeApp && t.Name == id.App
}

// reach has whoever leads do what reaches beyond this host's own copies. It is done
// when it is committed: the mesh sees to it by its ordinary ways.
func (n *nerves) reach(ctx context.Context, o reflexer.Order) error {
	req := api.ActRequest{Host: n.cfg.Name, Loan: o.Loan, Op: o.Do.Op, Rule: o.Rule, Stage: o.Stage, Why: fmt.Sprintf("reflex %s (act %d)", o.Rule, o.ID), Chain: plainChain(o.Chain)}
	if o.Do.Op == "evict" {
		if req.App = appOf(o.On); req.App == "" {
			return fmt.Errorf("evict %s: it is no copy and no app", o.On)
		}
		if id, err := workload.ParseCopyID(o.On.Name); err == nil {
			req.N = &id.N
		}
	}
	if err := n.unfrozen(req.App, false); err != nil {
		return err
	}
	return n.ask(ctx, o, req)
}

// ask has a leader do, or note, what a reflex wants. What that refuses, or nobody
// answers to, was not done by the reflex.
func (n *nerves) ask(ctx context.Context, o reflexer.Order, req api.ActRequest) error {
	ctx, cancel := context.WithTimeout(ctx, reachPatience)
	defer cancel()
	if err := n.askAct(ctx, req, fmt.Sprintf("act/%s/%s/%d", n.cfg.Name, n.boot, o.ID)); err != nil {
		return notDoneError{err}
	}
	return nil
}

// askAct tries voters until one has had it done, or has refused. Under one key it is
// done once.
func (m *member) askAct(ctx context.Context, req api.ActRequest, key string) error {
	var err error
	for ctx.Err() == nil {
		if m.leader.leading() {
			err = m.serveAct(ctx, req, key)
			var moved *consensus.NotLeaderError
			if !errors.As(err, &moved) {
				return err
			}
		}
		settled := false
		err = m.inTurn(ctx, reachPatience/3, func(ctx context.Context, addr string) (bool, error) {
			err := m.links.client(addr).PostOnce(ctx, "/v1/act", key, req, nil)
			code := api.CodeOf(err)
			settled = err == nil || code == api.CodeRejected || code == api.CodeNotFound || code == api.CodeInvalid || code == api.CodeDenied
			return settled, err
		})
		if settled {
			return err
		}
		pause.For(ctx, time.Second)
	}
	if err == nil {
		err = ctx.Err()
	}
	return fmt.Errorf("%s: %w", req.Op, err)
}

// postAct does what a reflex of a host asks for: only that host itself may ask.
func (s *server) postAct(r *http.Request, body []byte) (any, error) {
	var req api.ActRequest
	if err := decode(body, &req); err != nil {
		return nil, err
	}
	if _, err := s.onlyFor(r, req.Host, "act"); err != nil {
		return nil, err
	}
	return api.ApplyResponse{}, s.serveAct(r.Context(), req, r.Header.Get(api.HeaderRequest))
}

// serveAct is a leader's part in an act of a reflex. The log takes each token once.
func (m *member) serveAct(ctx context.Context, req api.ActRequest, key string) error {
	if m.leader.last.Load() == nil {
		return &consensus.NotLeaderError{} // not yet: it has decided nothing
	}
	if why := m.leader.withholds(); why != "" {
		return api.Errorf(api.CodeRejected, "%s for host %s: %s", req.Op, shorten(req.Host), why)
	}
	if frozen, _ := m.brake.View().Holds(req.App); frozen {
		return api.Errorf(api.CodeRejected, "%s for host %s: app %s is frozen", req.Op, shorten(req.Host), shorten(req.App))
	}
	state, err := m.settled(ctx)
	if err != nil {
		return err
	}
	if req.Loan == 0 { // the log would take it for what a person asks for
		return api.Errorf(api.CodeInvalid, "%s for host %s: no token of the budget pays for it", shorten(req.Op), shorten(req.Host))
	}
	if err := events.CheckChain(req.Chain); err != nil {
		return api.Errorf(api.CodeInvalid, "%s for host %s: %v", shorten(req.Op), shorten(req.Host), err)
	}
	ref := topology.RuleRef{Rule: req.Rule, Stage: req.Stage}
	if why := state.Refuses(ref, req.Host); why != "" {
		return api.Errorf(api.CodeRejected, "%s for host %s: %s", shorten(req.Op), shorten(req.Host), why)
	}
	var cmd topology.Command
	switch req.Op {
	case "drain_self":
		cmd.SetDrain = &topology.SetDrain{Host: req.Host, Drain: topology.DrainDraining, Loan: req.Loan, For: ref, Chain: req.Chain}
	case "evict":
		cmd.Evict = &topology.Evict{App: req.App, N: req.N, Host: req.Host, Why: "evicted by " + req.Why, Loan: req.Loan, For: ref, Chain: req.Chain}
		if err := m.elsewhere(state, cmd.Evict); err != nil {
			return err
		}
	case api.ActNote:
		cmd.NoteAct = &topology.NoteAct{Host: req.Host, What: req.Why, Loan: req.Loan, For: ref}
	default:
		return api.Errorf(api.CodeInvalid, "act for host %s: no leader does %q", shorten(req.Host), shorten(req.Op))
	}
	return m.commitAct(ctx, cmd, req, key)
}

func (m *member) commitAct(ctx context.Context, cmd topology.Command, req api.ActRequest, key string) error {
	node := m.raft.node()
	if node == nil {
		return &consensus.NotLeaderError{}
	}
	cmd.RequestID, cmd.By = key, strings.ToValidUTF8(shorten(req.Why), "")
	res, err := node.Apply(ctx, cmd)
	switch {
	case err != nil:
		return err
	case res.Err != nil:
		return api.Errorf(rejectionCode(res.Err), "%s", res.Err.Error())
	}
	return nil
}

// elsewhere refuses to evict what no other host takes now: else it would go whenever
// one does, long after there was a reason.
func (m *member) elsewhere(state *topology.State, e *topology.Evict) error {
	obs := m.observations(state)
	for _, key := range state.Evictable(e.App, e.N, e.Host) {
		if why := topology.Elsewhere(state, obs, key); why != "" {
			return api.Errorf(api.CodeRejected, "evict %s from host %s: no other host takes it: %s", key, e.Host, why)
		}
	}
	return nil
}
