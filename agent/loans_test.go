package agent

import (
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/reflexes"
)

// One token is lent, and no second one; what was not spent is free as soon as its
// holder says so, what was spent is not.
func TestBorrow(t *testing.T) {
	h := startHost(t, "h1", nil)
	h.init(t)
	m := h.agent.server.Load().member
	asked := 0
	borrow := func(tokens int, settled ...api.SettledLoan) (loan reflexes.Loan, why string, err error) {
		_, now := m.cfg.bootClock()()
		asked++
		loan, resp, err := m.borrow(t.Context(), loanAsk{tokens: tokens, key: strconv.Itoa(asked), asked: now, settled: settled})
		if resp.Hosts != 1 && err == nil {
			t.Errorf("a mesh of %d hosts", resp.Hosts)
		}
		return loan, resp.Why, err
	}
	_, before := m.cfg.bootClock()()
	await(t, 10*time.Second, "the leader to decide", func() error {
		if m.leader.last.Load() == nil {
			return errors.New("it has not")
		}
		return nil
	})
	loan, _, err := borrow(1) // with key 1
	if err != nil || loan.Tokens != 1 || loan.ID == 0 || loan.Until < before+topology.LoanTime {
		t.Fatalf("borrowed %+v, %v", loan, err)
	}
	if again, why, err := borrow(1); err != nil || again.Tokens != 0 || !strings.Contains(why, "1 of 1") {
		t.Errorf("borrowed again: %+v, %q, %v", again, why, err)
	}
	asked = 0 // whoever has not had the answer asks with the same key, and has it
	if same, why, err := borrow(1); err != nil || same.ID != loan.ID || same.Tokens != 1 {
		t.Errorf("asked again with the same key: %+v, %q, %v", same, why, err)
	}
	asked = 2
	second, why, err := borrow(1, api.SettledLoan{ID: loan.ID, Spent: 0})
	if err != nil || second.Tokens != 1 || second.ID == loan.ID {
		t.Fatalf("with the first unspent: %+v, %q, %v", second, why, err)
	}
	if third, why, err := borrow(1, api.SettledLoan{ID: second.ID, Spent: 1}); err != nil || third.Tokens != 0 || why == "" {
		t.Errorf("with the second spent: %+v, %q, %v", third, why, err)
	}
	if permit, _, err := borrow(0); err != nil || permit.Tokens != 0 {
		t.Errorf("a permit alone: %+v, %v", permit, err)
	}
	if got := m.raft.node().State().Loans(); len(got) != 1 || got[0].ID != second.ID || got[0].Settled == 0 {
		t.Errorf("the log says %+v", got)
	}
}
