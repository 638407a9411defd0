package agent

import (
	"context"
	"errors"
	"net/http"
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
	if req.Tokens == 0 {
		return resp, node.Barrier(ctx) // else a leader that was deposed would seem to permit
	}
	lend := topology.Lend{Host: req.Host, Boot: req.Boot, Tokens: req.Tokens, Time: topology.LoanTime, Returned: l.look(node.State())}
	res, err := node.Apply(ctx, topology.Command{Lend: &lend})
	switch {
	case err != nil:
		return resp, err
	case res.Err != nil && res.Err.Kind == topology.RejectLimit:
		return api.LoanResponse{Why: res.Err.Error()}, nil
	case res.Err != nil:
		return resp, api.Errorf(rejectionCode(res.Err), "%s", res.Err.Error())
	}
	return api.LoanResponse{ID: res.Loan, Tokens: lend.Tokens, TimeMS: lend.Time.Milliseconds()}, nil
}

// postLoan lends tokens to a host, and takes its word of those that it had. Another
// host's word would free what was spent: only voters that have seen its certificate
// may hand a request on.
func (s *server) postLoan(r *http.Request, body []byte) (any, error) {
	var req api.LoanRequest
	if err := decode(body, &req); err != nil {
		return nil, err
	}
	c, err := s.callerOf(r)
	if err != nil {
		return nil, err
	}
	if !c.isHost(req.Host) && !s.vouched(r, c, req.Host) {
		return nil, api.Errorf(api.CodeDenied, "borrow for host %s: only its own agent may", shorten(req.Host))
	}
	if len(req.Settled) > api.MaxSettled {
		return nil, api.Errorf(api.CodeInvalid, "borrow: %d loans are settled at once, the limit is %d", len(req.Settled), api.MaxSettled)
	}
	return s.lender.serve(r.Context(), req)
}

// borrow asks whoever leads for tokens, by way of another voter if it cannot be
// reached from here, and tells it what became of earlier loans. An answer, with
// tokens or without, is the leader's permit (rail 6). The loan counts from before
// it was asked for. Loan.Tokens is 0 if none was lent.
func (m *member) borrow(ctx context.Context, tokens int, settled []api.SettledLoan) (loan reflexes.Loan, why string, err error) {
	boot, now := m.cfg.bootClock()() // before anything is sent
	req := api.LoanRequest{Host: m.cfg.Name, Boot: boot, Tokens: tokens, Settled: settled}
	ctx, cancel := context.WithTimeout(ctx, borrowPatience)
	defer cancel()
	resp, err := m.askLoan(ctx, req)
	if err != nil {
		return reflexes.Loan{}, "", err
	}
	until := now + time.Duration(resp.TimeMS)*time.Millisecond
	return reflexes.Loan{ID: resp.ID, Tokens: resp.Tokens, Until: until}, resp.Why, nil
}

func (m *member) askLoan(ctx context.Context, req api.LoanRequest) (resp api.LoanResponse, err error) {
	if m.leader.leading() {
		return m.lender.serve(ctx, req)
	}
	err = errors.New("borrow: no voter is reachable")
	for _, addr := range m.sliceAddrs() {
		each, cancel := context.WithTimeout(ctx, borrowPatience/3)
		err = m.links.client(addr).Post(each, "/v1/loan", nil, req, &resp)
		cancel()
		if err == nil || ctx.Err() != nil {
			break
		}
	}
	return resp, err
}
