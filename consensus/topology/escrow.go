package topology

import (
	"slices"
	"time"
)

// The budget of automatic actions that reach beyond a host's own copies (S7): in
// any window of BudgetWindow the whole mesh starts at most Budget of them. A host
// borrows a token before it acts, so that one that is cut off can spend no more
// than it holds; what it has not spent when its loan is over it never will. A
// token is free again a whole window after the last moment at which it can have
// been spent. Partitions waste budget, they never exceed it.
const (
	BudgetWindow = 10 * time.Minute
	// LoanTime is how long a loan can be spent, on its holder's boot clock from
	// before it asked.
	LoanTime = 2 * time.Minute
	// maxLoanTime bounds what a log entry may say.
	maxLoanTime = time.Hour
)

// Budget is how many hosts of so many may be acted on within a window.
func Budget(hosts int) int { return max(1, hosts/20) }

// Loan is tokens that a host may spend, or has spent.
type Loan struct {
	ID     uint64        `json:"id"` // the index at which it was lent
	Host   string        `json:"host"`
	Boot   string        `json:"boot"` // of the host's kernel: another boot has another clock, and lost it
	Tokens int           `json:"tokens"`
	Time   time.Duration `json:"time"` // see LoanTime
	// Used is how many of its tokens commands have named that they pay for.
	Used int `json:"used,omitempty"`
	// Settled is the index at which its holder's word was committed that it spent
	// Tokens of it and will spend no more, or at which the last was used; 0: nobody has said so.
	Settled uint64 `json:"settled,omitempty"`
}

// Lend lends tokens to a host. It is rejected if the budget does not have them.
// Returned are loans whose tokens are free again: the leader's to say, who knows how
// long ago each was.
type Lend struct {
	Host     string        `json:"host"`
	Boot     string        `json:"boot"`
	Tokens   int           `json:"tokens"`
	Time     time.Duration `json:"time"`
	Returned []uint64      `json:"returned,omitempty"`
}

// SettleLoan is the word of a loan's holder that it has spent so many of its tokens
// and will spend no more. The others are free at once.
type SettleLoan struct {
	ID    uint64 `json:"id"`
	Host  string `json:"host"`
	Spent int    `json:"spent"`
}

// Loans returns what is lent, and what was spent and is not free again, in the
// order of its ids. It moves no revision and no slice.
func (s *State) Loans() []Loan { return s.loans }

// lent is how many tokens are not free.
func lent(loans []Loan) (n int) {
	for _, l := range loans {
		n += l.Tokens
	}
	return n
}

func (t *txn) lend(c Lend) *Rejected {
	if _, ok := t.hosts.Get([]byte(c.Host)); !ok {
		return reject(RejectUnknown, "lend to host %q: it is not in the mesh", clip(c.Host))
	}
	if c.Tokens < 1 || c.Tokens > MaxHosts || c.Time <= 0 || c.Time > maxLoanTime || c.Boot == "" || len(c.Boot) > maxID {
		return reject(RejectInvalid, "lend %d tokens to host %s for %s: out of bounds", c.Tokens, c.Host, c.Time)
	}
	left := slices.DeleteFunc(slices.Clone(t.loans), func(l Loan) bool { return slices.Contains(c.Returned, l.ID) })
	if total := Budget(t.hosts.Len()); lent(left)+c.Tokens > total {
		return reject(RejectLimit, "lend %d tokens to host %s: %d of %d are lent, or spent within the last %s", c.Tokens, c.Host, lent(left), total, BudgetWindow)
	}
	t.loans = append(left, Loan{ID: t.index, Host: c.Host, Boot: c.Boot, Tokens: c.Tokens, Time: c.Time})
	return nil
}

func (t *txn) settleLoan(c SettleLoan) *Rejected {
	i := slices.IndexFunc(t.loans, func(l Loan) bool { return l.ID == c.ID && l.Host == c.Host && l.Settled == 0 })
	if i < 0 {
		return nil // settled before, or free again
	}
	loans := slices.Clone(t.loans)
	if loans[i].Tokens = min(loans[i].Tokens, max(c.Spent, loans[i].Used)); loans[i].Tokens <= 0 {
		t.loans = slices.Delete(loans, i, i+1)
		return nil
	}
	loans[i].Settled = t.index
	t.loans = loans
	return nil
}

// useLoan pays for a command with a token of a host's loan. A token pays once,
// whoever says what, and none of a loan whose holder has said that it is over.
func (t *txn) useLoan(what string, id uint64, host string) *Rejected {
	i := slices.IndexFunc(t.loans, func(l Loan) bool { return l.ID == id && l.Host == host && l.Settled == 0 && l.Used < l.Tokens })
	if i < 0 {
		return reject(RejectConflict, "%s: loan %d of host %s has no token to pay with", what, id, host)
	}
	loans := slices.Clone(t.loans)
	if loans[i].Used++; loans[i].Used == loans[i].Tokens {
		loans[i].Settled = t.index
	}
	t.loans = loans
	return nil
}

// Free is how many tokens a Lend would find, if the loans named have come back.
func (s *State) Free(returned []uint64) int {
	left := slices.DeleteFunc(slices.Clone(s.loans), func(l Loan) bool { return slices.Contains(returned, l.ID) })
	return Budget(s.hosts.Len()) - lent(left)
}
