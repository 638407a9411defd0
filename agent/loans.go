package agent

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/agent/leases"
	"github.com/ganglion-mesh/ganglion/consensus"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/reflexes"
)

// borrowPatience bounds one request for tokens: later they are of little use.
const borrowPatience = 10 * time.Second

// lender is a leader's side of the budget (S7): it commits loans and what their
// holders say of them, and knows since when it has known of each. It is safe for
// concurrent use.
type lender struct {
	raft  *raftSlot
	clock func() (boot string, up time.Duration)
	held  func() string // why nothing is lent, or ""

	mu   sync.Mutex
	book leases.LoanBook
}

// takeOffice makes every loan count as made now. A new leader calls it after its
// barrier.
func (l *lender) takeOffice() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.book.TakeOffice()
}

// look returns the loans of a state whose tokens are free again.
func (l *lender) look(state *topology.State) []uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, now := l.clock() // after the state was read
	return l.book.Look(state.Loans(), now)
}

// serve settles loans of a host and lends it tokens, if there are any.
func (l *lender) serve(ctx context.Context, req api.LoanRequest) (resp api.LoanResponse, err error) {
	node := l.raft.node()
	if node == nil {
		return resp, &consensus.NotLeaderError{}
	}
	for _, s := range req.Settled {
		if _, err := node.Apply(ctx, topology.Command{SettleLoan: &topology.SettleLoan{ID: s.ID, Host: req.Host, Spent: s.Spent}}); err != nil {
			return resp, err
		}
	}
	state := node.State()
	returned := l.look(state)
	resp = api.LoanResponse{Hosts: len(state.Hosts()), Why: l.refuses(state, req, returned)}
	if req.Tokens == 0 || resp.Why != "" {
		return resp, node.Barrier(ctx) // else a leader that was deposed would seem to permit
	}
	cmd := topology.Command{Lend: &topology.Lend{Host: req.Host, Boot: req.Boot, Tokens: req.Tokens, Time: topology.LoanTime, Returned: returned}}
	if req.Key != "" {
		cmd.RequestID = "loan/" + req.Host + "/" + req.Key
	}
	res, err := node.Apply(ctx, cmd)
	switch {
	case err != nil:
		return resp, err
	case res.Err != nil && res.Err.Kind == topology.RejectLimit:
		resp.Why = res.Err.Error()
	case res.Err != nil:
		return resp, api.Errorf(rejectionCode(res.Err), "%s", res.Err.Error())
	default:
		resp.ID, resp.Tokens, resp.TimeMS = res.Loan, req.Tokens, topology.LoanTime.Milliseconds()
	}
	return resp, nil
}

// refuses says why nothing is lent, without the log, as far as that can be known: a
// mesh in which every host asks is not to be busy with refusing. Who may only be
// asking again for what it was lent is left to the log.
func (l *lender) refuses(state *topology.State, req api.LoanRequest, returned []uint64) string {
	if req.Tokens == 0 {
		return ""
	}
	if why := l.held(); why != "" {
		return why
	}
	if why := stagedOut(state, req); why != "" {
		return why
	}
	again := slices.ContainsFunc(state.Loans(), func(o topology.Loan) bool { return o.Host == req.Host && o.Boot == req.Boot && o.Settled == 0 })
	if free := state.Free(returned); free < req.Tokens && !again {
		return fmt.Sprintf("of the mesh's budget of %d in %s all is lent, or was spent", topology.Budget(len(state.Hosts())), topology.BudgetWindow)
	}
	return ""
}

// stagedOut says why none of the rules for which a host asks is in force there, or
// "".
func stagedOut(state *topology.State, req api.LoanRequest) (why string) {
	for _, ref := range req.For {
		if why = state.Refuses(ref, req.Host); why == "" {
			return ""
		}
	}
	return why
}

// postLoan lends tokens to a host, and takes its word of those that it had. Another
// host's word would free what was spent: only voters that have seen its certificate
// may hand a request on.
func (s *server) postLoan(r *http.Request, body []byte) (any, error) {
	var req api.LoanRequest
	if err := decode(body, &req); err != nil {
		return nil, err
	}
	if _, err := s.onlyFor(r, req.Host, "borrow"); err != nil {
		return nil, err
	}
	if len(req.Key) > api.MaxLoanKey {
		return nil, api.Errorf(api.CodeInvalid, "borrow: a key has at most %d bytes", api.MaxLoanKey)
	}
	if len(req.For) > api.MaxLoanRules {
		return nil, api.Errorf(api.CodeInvalid, "borrow: for %d reflexes at once, the limit is %d", len(req.For), api.MaxLoanRules)
	}
	if len(req.Settled) > api.MaxSettled {
		return nil, api.Errorf(api.CodeInvalid, "borrow: %d loans are settled at once, the limit is %d", len(req.Settled), api.MaxSettled)
	}
	return s.lender.serve(r.Context(), req)
}

// loanAsk is one request for tokens. Under one key, which may be asked with again
// until it is answered, at most one loan is made, and it counts from asked.
type loanAsk struct {
	tokens  int
	key     string
	asked   reflexes.Boot
	rules   []topology.RuleRef // that want to act
	settled []api.SettledLoan
}

// borrow asks whoever leads for tokens, by way of another voter if it cannot be
// reached from here, and tells it what became of earlier loans. An answer, with
// tokens or without, is the leader's permit (rail 6). Loan.Tokens is 0 if none was
// lent.
func (m *member) borrow(ctx context.Context, a loanAsk) (loan reflexes.Loan, resp api.LoanResponse, err error) {
	boot, _ := m.cfg.bootClock()()
	req := api.LoanRequest{Host: m.cfg.Name, Boot: boot, Tokens: a.tokens, Key: a.key, For: a.rules, Settled: a.settled}
	ctx, cancel := context.WithTimeout(ctx, borrowPatience)
	defer cancel()
	if resp, err = m.askLoan(ctx, req); err != nil || resp.Tokens == 0 {
		return reflexes.Loan{}, resp, err
	}
	until := a.asked + time.Duration(resp.TimeMS)*time.Millisecond
	return reflexes.Loan{ID: resp.ID, Tokens: resp.Tokens, Until: until}, resp, nil
}

func (m *member) askLoan(ctx context.Context, req api.LoanRequest) (resp api.LoanResponse, err error) {
	if m.leader.leading() {
		return m.lender.serve(ctx, req)
	}
	err = m.inTurn(ctx, borrowPatience/3, func(ctx context.Context, addr string) (bool, error) {
		err := m.links.client(addr).Post(ctx, "/v1/loan", nil, req, &resp)
		return err == nil, err
	})
	if err != nil {
		err = fmt.Errorf("borrow: %w", err)
	}
	return resp, err
}
