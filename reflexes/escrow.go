package reflexes

import "slices"

// Loan is tokens of the mesh's budget that the leader has lent to this host, so
// that it may act when it cannot ask.
type Loan struct {
	ID     uint64 `json:"id"`
	Tokens int    `json:"tokens"`
	// Until is when they are no longer good, on this host's boot clock, counted
	// from before the host asked for them: earlier than the leader counts.
	Until Boot `json:"until"`
	Spent int  `json:"spent,omitempty"`
}

// Escrow is the pure book of borrowed tokens: a token is spent at most once, in
// the order of expiry, and never after it.
type Escrow struct {
	loans []Loan
	// ahead are tokens that the journal says were spent of loans that are not
	// known, or not again: the agent died before it had stored them.
	ahead map[uint64]int
}

// Lend takes in a loan. One with the same ID is taken once.
func (s *Escrow) Lend(l Loan) {
	if l.Tokens <= 0 || slices.ContainsFunc(s.loans, func(o Loan) bool { return o.ID == l.ID }) {
		return
	}
	l.Spent = min(max(l.Spent, 0, s.ahead[l.ID]), l.Tokens)
	s.loans = append(s.loans, l)
	slices.SortStableFunc(s.loans, func(a, b Loan) int { return int(min(max(a.Until-b.Until, -1), 1)) })
}

// Tokens is how many can be spent at now.
func (s *Escrow) Tokens(now Boot) int {
	n := 0
	for _, l := range s.loans {
		if now < l.Until {
			n += l.Tokens - l.Spent
		}
	}
	return n
}

// spend takes one token, and tells of which loan, and until when that is good.
func (s *Escrow) spend(now Boot) (loan uint64, until Boot) {
	for i := range s.loans {
		if l := &s.loans[i]; now < l.Until && l.Spent < l.Tokens {
			l.Spent++
			return l.ID, l.Until
		}
	}
	return 0, 0
}

// spent notes a token of a loan that the journal says was spent.
func (s *Escrow) spent(loan uint64) {
	for i := range s.loans {
		if l := &s.loans[i]; l.ID == loan {
			l.Spent = min(l.Spent+1, l.Tokens)
			return
		}
	}
	if s.ahead == nil {
		s.ahead = map[uint64]int{}
	}
	s.ahead[loan]++
}

// Expired removes and returns the loans that are over: what the host reports to
// the leader, with what was spent of them.
func (s *Escrow) Expired(now Boot) []Loan {
	var out []Loan
	s.loans = slices.DeleteFunc(s.loans, func(l Loan) bool {
		if now >= l.Until {
			out = append(out, l)
			return true
		}
		return false
	})
	return out
}

// Lend takes in a leader's answer: tokens that it lends, or with the zero Loan
// none. What waits for it is tried again.
func (e *Engine) Lend(now Boot, l Loan) {
	now = e.enter(now)
	e.escrow.Lend(l)
	for _, in := range e.instances {
		if in.wantsToAct() && in.id == 0 && in.awaits() {
			in.retry = now
			e.dirty(in)
		}
	}
	e.settle(now)
}

// Loans returns the loans that are held, those that are over among them.
func (e *Engine) Loans() []Loan { return slices.Clone(e.escrow.loans) }

// ExpiredLoans removes and returns the loans that are over.
func (e *Engine) ExpiredLoans(now Boot) []Loan { return e.escrow.Expired(now) }

// LoanEnds is when ExpiredLoans next has something to return; never if no loan is
// held.
func (e *Engine) LoanEnds() Boot {
	if len(e.escrow.loans) == 0 {
		return never
	}
	return e.escrow.loans[0].Until
}

// awaits tells that the instance was refused for want of what a leader gives.
func (in *instance) awaits() bool {
	return in.refused == ReasonTokens || in.refused == ReasonDeadMan || in.refused == ReasonAsking
}
