package agent

import (
	"strings"
	"testing"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
)

// One token is lent, and no second one; what was not spent is free as soon as its
// holder says so, what was spent is not.
func TestBorrow(t *testing.T) {
	h := startHost(t, "h1", nil)
	h.init(t)
	m := h.agent.server.Load().member
	_, before := m.cfg.bootClock()()
	loan, _, err := m.borrow(t.Context(), 1, nil)
	if err != nil || loan.Tokens != 1 || loan.ID == 0 || loan.Until < before+topology.LoanTime {
		t.Fatalf("borrowed %+v, %v", loan, err)
	}
	if again, why, err := m.borrow(t.Context(), 1, nil); err != nil || again.Tokens != 0 || !strings.Contains(why, "1 of 1") {
		t.Errorf("borrowed again: %+v, %q, %v", again, why, err)
	}
	second, why, err := m.borrow(t.Context(), 1, []api.SettledLoan{{ID: loan.ID, Spent: 0}})
	if err != nil || second.Tokens != 1 || second.ID == loan.ID {
		t.Fatalf("with the first unspent: %+v, %q, %v", second, why, err)
	}
	if third, why, err := m.borrow(t.Context(), 1, []api.SettledLoan{{ID: second.ID, Spent: 1}}); err != nil || third.Tokens != 0 || why == "" {
		t.Errorf("with the second spent: %+v, %q, %v", third, why, err)
	}
	if permit, _, err := m.borrow(t.Context(), 0, nil); err != nil || permit.Tokens != 0 {
		t.Errorf("a permit alone: %+v, %v", permit, err)
	}
	if got := m.raft.node().State().Loans(); len(got) != 1 || got[0].ID != second.ID || got[0].Settled == 0 {
		t.Errorf("the log says %+v", got)
	}
}
