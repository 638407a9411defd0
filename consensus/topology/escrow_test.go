package topology

import (
	"bytes"
	"reflect"
	"testing"

	"pgregory.net/rapid"
)

func (w *world) borrow(host string, tokens int, returned ...uint64) Result {
	return w.apply(Command{Lend: &Lend{Host: host, Boot: "b", Tokens: tokens, Time: LoanTime, Returned: returned}})
}

func TestLoans(t *testing.T) {
	w := newWorld(t)
	w.enrol("h1", "h2")
	revision := w.state.Revision()
	if r := w.borrow("h1", 1); r.Err != nil || r.Changed || w.state.Revision() != revision {
		t.Fatalf("a first token: %+v", r)
	}
	id := w.state.Loans()[0].ID
	for _, c := range []Lend{{Host: "h2", Boot: "b", Tokens: 1, Time: LoanTime}, {Host: "h2", Boot: "b", Tokens: 1, Time: LoanTime, Returned: []uint64{id + 1}}} {
		if r := w.apply(Command{Lend: &c}); r.Err == nil || r.Err.Kind != RejectLimit {
			t.Errorf("a second of one token was lent: %+v", r)
		}
	}
	settle := func(id uint64, host string, spent int) {
		t.Helper()
		if r := w.apply(Command{SettleLoan: &SettleLoan{ID: id, Host: host, Spent: spent}}); r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	settle(id, "h2", 0) // not its own
	settle(id, "h1", 1)
	settle(id, "h1", 0) // its first word counts
	if l := w.state.Loans(); len(l) != 1 || l[0].Tokens != 1 || l[0].Settled <= id {
		t.Fatalf("spent and settled: %+v", l)
	}
	var b bytes.Buffer
	if err := w.state.Write(&b); err != nil {
		t.Fatal(err)
	}
	if s, err := Read(&b); err != nil || !reflect.DeepEqual(s.Loans(), w.state.Loans()) {
		t.Fatalf("read back: %+v, %v", s.Loans(), err)
	}
	if r := w.borrow("h2", 1, id); r.Err != nil {
		t.Fatalf("the token is free again: %v", r.Err)
	}
	settle(w.state.Loans()[0].ID, "h2", 0)
	if l := w.state.Loans(); len(l) != 0 {
		t.Errorf("nothing was spent, and %+v is held", l)
	}
	for _, c := range []Lend{
		{Host: "h9", Boot: "b", Tokens: 1, Time: LoanTime}, {Host: "h1", Tokens: 1, Time: LoanTime}, {Host: "h1", Boot: "b", Time: LoanTime},
		{Host: "h1", Boot: "b", Tokens: 1}, {Host: "h1", Boot: "b", Tokens: 1, Time: maxLoanTime + 1},
	} {
		if r := w.apply(Command{Lend: &c}); r.Err == nil {
			t.Errorf("lent: %+v", c)
		}
	}
}

// Whatever is lent, settled and returned, no more than the budget is ever out.
func TestLoansStayWithinBudget(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		w := newWorld(t)
		for i := range rapid.SampledFrom([]int{1, 19, 40, 60}).Draw(r, "hosts") {
			w.enrol("h" + string(rune('a'+i/26)) + string(rune('a'+i%26)))
		}
		total := Budget(len(w.state.Hosts()))
		for range rapid.IntRange(1, 40).Draw(r, "steps") {
			var id uint64
			if l := w.state.Loans(); len(l) > 0 {
				id = l[rapid.IntRange(0, len(l)-1).Draw(r, "loan")].ID
			}
			switch rapid.IntRange(0, 3).Draw(r, "what") {
			case 0:
				w.apply(Command{SettleLoan: &SettleLoan{ID: id, Host: "haa", Spent: rapid.IntRange(0, 3).Draw(r, "spent")}})
			case 1:
				w.borrow("haa", rapid.IntRange(0, 3).Draw(r, "tokens"), id)
			default:
				w.borrow("haa", rapid.IntRange(0, 3).Draw(r, "tokens"))
			}
			if out := lent(w.state.Loans()); out > total {
				r.Fatalf("%d of %d are out: %+v", out, total, w.state.Loans())
			}
		}
	})
}
