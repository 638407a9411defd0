package reflexer

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ganglion-mesh/ganglion/intent"
	"github.com/ganglion-mesh/ganglion/reflexes"
)

// bank is a leader, as a host sees it.
type bank struct {
	mu     sync.Mutex
	asked  []Borrowing
	at     []time.Duration
	answer func(n int, b Borrowing) Answer
	takes  time.Duration
	began  time.Time
}

func (k *bank) borrow(ctx context.Context, b Borrowing) Answer {
	k.mu.Lock()
	k.asked, k.at = append(k.asked, b), append(k.at, time.Since(k.began))
	n, takes := len(k.asked), k.takes
	k.mu.Unlock()
	select {
	case <-time.After(takes):
	case <-ctx.Done():
	}
	return k.answer(n, b)
}

// questions are all that were asked, and when.
func (k *bank) questions() ([]Borrowing, []time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.asked), slices.Clone(k.at)
}

// pass lets time pass, and all that is due then be done.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// wants counts the questions for a token.
func (k *bank) wants() (n int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, b := range k.asked {
		n += min(b.Tokens, 1)
	}
	return n
}

// flee wants its copy elsewhere while its check fails.
func flee() intent.Reflex {
	return intent.Reflex{
		Name: "flee", When: "check.failures >= 3", Act: []intent.Action{{Op: "evict"}}, Limit: "10/1h", Cooldown: intent.Duration(time.Hour),
	}
}

func lend(id uint64, until time.Duration) Answer {
	return Answer{Loan: reflexes.Loan{ID: id, Tokens: 1, Until: until}}
}

// TestActOnALoan: what reaches further is done when a leader has lent a token for it,
// and names the loan; in between nothing is told, and what stays within the copy is
// done at once.
func TestActOnALoan(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		k := &bank{began: time.Now(), takes: 5 * time.Second, answer: func(int, Borrowing) Answer { return lend(7, time.Hour) }}
		l := beginWith(t, dir, time.Now(), k.borrow, flee(), intent.Reflex{
			Name: "heal", When: "check.failures >= 5", Act: []intent.Action{{Op: "restart"}}, Limit: "5/1h", Cooldown: intent.Duration(time.Hour),
		})
		defer l.end(t)
		l.sick(3)
		pass(4 * time.Second) // it listens for two, and asks
		if l.acted() != 0 || k.wants() != 1 || l.kinds() != "" {
			t.Errorf("%d acts, asked %d times, told: %s", l.acted(), k.wants(), l.kinds())
		}
		l.sick(5)
		if l.acted() != 1 || l.did()[0].Rule != "heal" {
			t.Errorf("a restart waits for a leader: %+v", l.did())
		}
		pass(10 * time.Second)
		l.sick(5)
		pass(10 * time.Second)
		if l.acted() != 2 || l.did()[1].Loan != 7 || !l.did()[1].Durable || k.wants() != 1 {
			t.Errorf("acts %+v, asked %d times, told: %s", l.did(), k.wants(), l.kinds())
		}
	})
}

// TestNoToken: it is told why, once a minute, and the leader is asked ever more
// rarely; as soon as there is a token it is used.
func TestNoToken(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		k := &bank{began: time.Now()}
		k.answer = func(n int, _ Borrowing) Answer {
			switch {
			case n <= 3:
				return Answer{Err: errors.New("no voter is reachable")}
			case n <= 8:
				return Answer{Why: "all is lent"}
			}
			return lend(9, 10*time.Hour)
		}
		l := beginWith(t, dir, time.Now(), k.borrow, flee())
		defer l.end(t)
		l.sick(3)
		pass(10 * time.Second)
		if got := l.last(); !strings.Contains(got, reflexes.ReasonDeadMan.String()+" (no voter is reachable)") {
			t.Errorf("told: %s", got)
		}
		pass(50 * time.Second)
		for range 4 {
			pass(time.Minute)
			l.sick(3)
		}
		if got := l.last(); l.acted() == 0 && !strings.Contains(got, reflexes.ReasonTokens.String()+" (all is lent)") {
			t.Errorf("told: %s", got)
		}
		for range 5 {
			pass(time.Minute)
			l.sick(3)
		}
		if l.acted() != 1 || k.wants() != 9 {
			_, at := k.questions()
			t.Errorf("%d acts, asked %d times at %v", l.acted(), k.wants(), at)
		}
		if n := strings.Count(l.kinds(), "suppressed"); n > 12 {
			t.Errorf("told %d times in ten minutes", n)
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, o := range l.told { // it is tried again when a leader is asked again, and says so
			if o.Reason == reflexes.ReasonTokens && (o.Retry-o.At < 2*time.Second || o.Retry-o.At > longestWait) {
				t.Errorf("tried again in %s: %+v", o.Retry-o.At, o)
			}
		}
	})
}

// TestLoansAreSettled: once a loan is over a leader is told what was spent of it,
// until it has heard; then there is silence.
func TestLoansAreSettled(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		k := &bank{began: time.Now()}
		k.answer = func(n int, b Borrowing) Answer {
			switch {
			case b.Tokens > 0:
				return lend(3, 2*time.Minute)
			case n < 5:
				return Answer{Err: errors.New("no voter is reachable")}
			}
			return Answer{}
		}
		l := beginWith(t, dir, time.Now(), k.borrow, flee())
		defer l.end(t)
		l.sick(3)
		pass(time.Minute)
		if asked, _ := k.questions(); l.acted() != 1 || len(asked) != 1 {
			t.Fatalf("%d acts, asked %+v", l.acted(), asked)
		}
		pass(20 * time.Minute)
		asked, at := k.questions()
		if len(asked) != 5 || at[1] < 2*time.Minute {
			t.Fatalf("asked %+v at %v", asked, at)
		}
		for _, b := range asked[1:] {
			if b.Tokens != 0 || len(b.Settled) != 1 || b.Settled[0].ID != 3 || b.Settled[0].Spent != 1 {
				t.Errorf("asked %+v", b)
			}
		}
	})
}

// TestNobodyToAsk: where no leader is ever asked nothing reaches further.
func TestNobodyToAsk(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		l := beginWith(t, dir, time.Now(), nil, flee())
		defer l.end(t)
		l.sick(3)
		pass(10 * time.Minute)
		if l.acted() != 0 || !strings.Contains(l.kinds(), reflexes.ReasonDeadMan.String()) {
			t.Errorf("%d acts, told: %s", l.acted(), l.kinds())
		}
	})
}
