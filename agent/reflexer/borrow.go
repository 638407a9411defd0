package reflexer

import (
	"context"
	"math"
	"time"

	"github.com/ganglion-mesh/ganglion/reflexes"
)

// The pace at which a leader is asked again: it has no token for minutes, or
// cannot be reached for seconds.
const (
	lentOut     = 15 * time.Second
	unreachable = 2 * time.Second
	longestWait = time.Minute
	maxOwed     = 16 // loans of which the leader is told what became; of others it waits for the end
)

// Borrowing is one question to a leader.
type Borrowing struct {
	// Tokens is how many are wanted; 0: only the permit, or to be rid of Settled.
	Tokens int
	// For are the rules that want to act.
	For []reflexes.Version
	// Settled are loans that are over, with what was spent of them.
	Settled []reflexes.Loan
}

// Answer is what a leader said, or that none could be asked. Any answer but an
// error is its permit.
type Answer struct {
	Loan reflexes.Loan // zero: none
	Why  string        // no token was lent
	Err  error
}

// purse is what this host has to do with the budget of the mesh: what it is
// asking for, and what it owes. It belongs to the engine's goroutine.
type purse struct {
	asking    bool
	next      reflexes.Boot // when a leader may be asked again
	fails     int           // questions without a token, in a row
	permit    reflexes.Boot // when the last question was asked that was answered
	permitted bool
	lacks     string
	owed      []reflexes.Loan
	owedAt    reflexes.Boot // when a leader is told of them
	owedFails int
}

// authorize adds what a leader has said to what the mesh allows.
func (r *Reflexer) authorize(f reflexes.Firing, a reflexes.Authority) reflexes.Authority {
	if f.Class != reflexes.ClassB || f.Rung.Leased() || r.cfg.Borrow == nil {
		return a
	}
	p, now := &r.purse, r.now()
	a.Asking = p.asking || now >= p.next
	a.Permitted, a.PermitAge, a.Lacks, a.AskAt = p.permitted, now-p.permit, p.lacks, p.next
	return a
}

// borrow asks a leader if an act lacks nothing but its token, beside all else
// that goes on.
func (r *Reflexer) borrow(ctx context.Context) {
	short, rules := r.engine.Short(), r.engine.Lacking()
	if p := &r.purse; short && r.cfg.Borrow != nil && !p.asking && r.now() >= p.next {
		r.question(ctx, 1, rules)
	}
}

// repay tells a leader of loans that are over.
func (r *Reflexer) repay(ctx context.Context) {
	p, now := &r.purse, r.now()
	if over := r.engine.ExpiredLoans(now); len(over) > 0 {
		p.owed = append(p.owed, over...)
		p.owed = p.owed[max(len(p.owed)-maxOwed, 0):]
		p.owedAt = now
		r.touched = true
	}
	if len(p.owed) > 0 && now >= p.owedAt && !p.asking && r.cfg.Borrow != nil {
		r.question(ctx, 0, nil)
	}
}

// purseWake is when repay has something to do.
func (r *Reflexer) purseWake() reflexes.Boot {
	at := r.engine.LoanEnds()
	if p := &r.purse; len(p.owed) > 0 && !p.asking && r.cfg.Borrow != nil {
		at = min(at, p.owedAt)
	}
	if r.cfg.Borrow == nil {
		return math.MaxInt64
	}
	return at
}

// question asks a leader on a goroutine of its own; the answer is taken in on the
// engine's.
func (r *Reflexer) question(ctx context.Context, tokens int, rules []reflexes.Version) {
	asked := r.now()
	b := Borrowing{Tokens: tokens, For: rules, Settled: append([]reflexes.Loan(nil), r.purse.owed...)}
	r.purse.asking = true
	r.acts.Go(func() {
		a := r.cfg.Borrow(ctx, b)
		r.post(func(e *reflexes.Engine, now reflexes.Boot) { r.answered(e, now, asked, b, a) })
	})
}

// answered takes in what a leader said.
func (r *Reflexer) answered(e *reflexes.Engine, now, asked reflexes.Boot, b Borrowing, a Answer) {
	p := &r.purse
	p.asking = false
	if a.Err != nil {
		p.owedFails++
		p.owedAt = now + backoff(unreachable, p.owedFails)
	} else {
		p.permit, p.permitted = max(p.permit, asked), true
		p.owed, p.owedFails = p.owed[len(b.Settled):], 0
	}
	if b.Tokens == 0 {
		return
	}
	switch {
	case a.Err != nil:
		p.fails++
		p.lacks, p.next = a.Err.Error(), now+backoff(unreachable, p.fails)
	case a.Loan.Tokens == 0:
		p.fails++
		p.lacks, p.next = a.Why, now+backoff(lentOut, p.fails)
	default:
		p.lacks, p.next, p.fails = "", 0, 0
	}
	e.Lend(now, a.Loan)
}

// backoff doubles with each failure.
func backoff(first time.Duration, fails int) time.Duration {
	return min(first<<min(max(fails-1, 0), 6), longestWait)
}
