package reflexer

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ganglion-mesh/ganglion/intent"
	"github.com/ganglion-mesh/ganglion/reflexes"
)

// box is a source of facts.
type box struct {
	mu    sync.Mutex
	inbox *reflexes.Inbox
	ready chan struct{}
	rules []*reflexes.Rule
	need  []reflexes.VarID // beside what they read
}

func (b *box) Ready() <-chan struct{} { return b.ready }

func (b *box) Take(to []reflexes.Fact) []reflexes.Fact {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append(to, b.inbox.Take()...)
}

func (b *box) NeedFor(rules []*reflexes.Rule, vars []reflexes.VarID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.rules, b.need = rules, vars
}

func (b *box) put(facts ...reflexes.Fact) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.inbox.Put(facts...)
	select {
	case b.ready <- struct{}{}:
	default:
	}
}

// life is one life of an agent over a directory, in virtual time.
type life struct {
	*Reflexer
	box    *box
	cancel context.CancelFunc
	done   chan error
	begun  time.Time

	mu    sync.Mutex
	acts  []Order
	told  []Told
	doing func(ctx context.Context, o Order) error
}

func (l *life) clock() (string, time.Duration) { return "boot", time.Since(l.begun) }

// begin starts a life on dir with rules.
func begin(t *testing.T, dir string, begun time.Time, rules ...intent.Reflex) *life {
	t.Helper()
	return beginWith(t, dir, begun, nil, rules...)
}

// beginWith begins a life that asks a leader by borrow.
func beginWith(t *testing.T, dir string, begun time.Time, borrow func(context.Context, Borrowing) Answer, rules ...intent.Reflex) *life {
	t.Helper()
	l := &life{box: &box{inbox: reflexes.NewInbox(), ready: make(chan struct{}, 1)}, done: make(chan error, 1), begun: begun}
	var err error
	l.Reflexer, err = New(Config{
		Dir: dir, Host: "h1", Senses: l.box, Clock: l.clock,
		Authority: func(reflexes.Firing) reflexes.Authority { return reflexes.Authority{} },
		Borrow:    borrow,
		Act: func(ctx context.Context, o Order) (string, error) {
			l.mu.Lock()
			l.acts = append(l.acts, o)
			doing := l.doing
			l.mu.Unlock()
			if doing == nil {
				return "did it", nil
			}
			return "", doing(ctx, o)
		},
		Tell: func(o Told) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.told = append(l.told, o)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	c, err := reflexes.NewCompiler()
	if err != nil {
		t.Fatal(err)
	}
	var list []*reflexes.Rule
	for _, r := range rules {
		rule, err := c.Compile(r, "web")
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, rule)
	}
	l.SetRules(list)
	var ctx context.Context
	ctx, l.cancel = context.WithCancel(t.Context())
	go func() { l.done <- l.Run(ctx) }()
	synctest.Wait()
	return l
}

func (l *life) end(t *testing.T) {
	t.Helper()
	l.cancel()
	if err := <-l.done; err != nil {
		t.Error(err)
	}
}

// sick tells that the copy's check fails so often in a row.
func (l *life) sick(failures int64) {
	_, now := l.clock()
	l.box.put(
		reflexes.Fact{Var: reflexes.AppReady, Target: reflexes.CopyTarget("web/0"), Value: reflexes.Bool(failures == 0), At: now},
		reflexes.Fact{Var: reflexes.CheckFailures, Target: reflexes.CopyTarget("web/0"), Value: reflexes.Int(failures), At: now})
	synctest.Wait()
}

func (l *life) acted() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.acts)
}

// did is what was done.
func (l *life) did() []Order {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.acts)
}

// last is what was told last, with its reason.
func (l *life) last() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.told) == 0 {
		return ""
	}
	o := l.told[len(l.told)-1]
	return o.Kind.String() + " " + o.Reason.String() + " (" + o.Detail + ")"
}

// kinds tells what was told, in a line.
func (l *life) kinds() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []string
	for _, o := range l.told {
		word := o.Kind.String()
		if o.Kind == reflexes.Suppressed {
			word += " (" + o.Reason.String() + ")"
		}
		if o.Kind == reflexes.Finished && !o.OK {
			word += " (" + o.Detail + ")"
		}
		out = append(out, word)
	}
	return strings.Join(out, ", ")
}

func heal(limit string) intent.Reflex {
	return intent.Reflex{Name: "heal", When: "check.failures >= 3", Act: []intent.Action{{Op: "restart"}}, Limit: limit, Cooldown: intent.Duration(time.Millisecond)}
}

// TestActIsRecordedBeforeItIsDone: in the journal, with what the rule saw.
func TestActIsRecordedBeforeItIsDone(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		l := begin(t, dir, time.Now(), heal("5/1h"))
		defer l.end(t)
		var at string
		l.doing = func(context.Context, Order) error {
			files, _ := filepath.Glob(filepath.Join(dir, journalPrefix+"*"))
			for _, f := range files {
				b, _ := os.ReadFile(f)
				at += string(b)
			}
			return errors.New("no room")
		}
		l.sick(3)
		if !strings.Contains(at, `"kind":"intent","act":1`) || strings.Contains(at, `"result"`) {
			t.Errorf("the journal at the time of the act: %s", at)
		}
		if got := l.kinds(); got != "fired, finished (no room)" {
			t.Errorf("told: %s", got)
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		if o := l.told[1]; len(o.Facts) != 1 || o.Facts[0].Value != reflexes.Int(3) || o.Acted < o.Sensed {
			t.Errorf("finished: %+v", o)
		}
	})
}

// TestDeathInMidActDoublesNothing: the agent dies in the act. Its next life
// neither does it again nor has more to spend, and says that nobody knows.
func TestDeathInMidActDoublesNothing(t *testing.T) {
	for _, stored := range []bool{false, true} { // whether a snapshot came between
		dir, copied := t.TempDir(), t.TempDir()
		synctest.Test(t, func(t *testing.T) {
			begun := time.Now()
			l := begin(t, dir, begun, heal("1/1h"))
			l.doing = func(ctx context.Context, _ Order) error { <-ctx.Done(); return ctx.Err() }
			l.sick(3)
			if stored {
				time.Sleep(snapshotEvery + time.Second)
				synctest.Wait()
			}
			if _, err := os.Stat(filepath.Join(dir, stateFile)); stored != (err == nil) {
				t.Errorf("stored %t: %v", stored, err)
			}
			// What is on the disk now is all that a kill -9 leaves.
			if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
				t.Fatal(err)
			}
			l.end(t)
			next := begin(t, copied, begun, heal("1/1h"))
			defer next.end(t)
			next.sick(3)
			time.Sleep(20 * time.Minute)
			next.sick(4)
			if next.acted() != 0 || l.acted() != 1 {
				t.Errorf("stored %t: %d acts before the death, %d after", stored, l.acted(), next.acted())
			}
			if got := next.kinds(); !strings.Contains(got, "finished ("+agentEnded+")") || strings.Contains(got, "fired") {
				t.Errorf("stored %t: told: %s", stored, got)
			}
			for _, o := range next.told {
				if o.Chain != o.Rule {
					t.Errorf("stored %t: %s of %s is told with the chain %q", stored, o.Kind, o.Rule, o.Chain)
				}
			}
		})
	}
}

// TestOrderlyEndKeepsWhatWasSpent: over a stop of the agent, in any number of
// lives, and a torn line at the end of a journal changes nothing.
func TestOrderlyEndKeepsWhatWasSpent(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		begun, acts := time.Now(), 0
		for i := range 4 {
			l := begin(t, dir, begun, heal("2/1h"))
			l.sick(3)
			time.Sleep(2 * time.Minute)
			l.sick(0)
			time.Sleep(2 * time.Minute)
			l.end(t)
			acts += l.acted()
			torn := filepath.Join(dir, journalPrefix+string(rune('0'+i)))
			if err := os.WriteFile(torn, []byte(`{"kind":"intent","act":9`), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if acts != 2 {
			t.Errorf("%d acts in four lives, want the 2 that the limit allows", acts)
		}
	})
}

// TestDamagedStateSpendsAll: an agent that cannot know what was spent acts as if
// all was.
func TestDamagedStateSpendsAll(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, stateFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		l := begin(t, dir, time.Now(), heal("1/1h"))
		defer l.end(t)
		time.Sleep(2 * time.Minute)
		l.sick(3)
		if l.acted() != 0 || !strings.Contains(l.kinds(), reflexes.ReasonLimit.String()) && !strings.Contains(l.kinds(), "exhausted") {
			t.Errorf("%d acts; told: %s", l.acted(), l.kinds())
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if l.acted() == 0 {
			t.Error("it never acts again")
		}
	})
}

// TestNothingIsDoneUnrecorded: a disk that takes no record has nothing done,
// whether it is the file that cannot be written or that cannot be made.
func TestNothingIsDoneUnrecorded(t *testing.T) {
	for name, spoil := range map[string]func(l *life, dir string) error{
		"written": func(l *life, _ string) error { return l.journal.file.Close() },
		"made": func(l *life, dir string) error {
			l.journal.turn()
			return os.RemoveAll(dir)
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				l := begin(t, dir, time.Now(), heal("5/1h"))
				if err := spoil(l, dir); err != nil {
					t.Fatal(err)
				}
				l.sick(3)
				if l.acted() != 0 || !strings.Contains(l.kinds(), "its record could not be written") {
					t.Errorf("%d acts; told: %s", l.acted(), l.kinds())
				}
				l.cancel()
				<-l.done // with an error or without: there is nothing to store in
			})
		})
	}
}

// TestTheJournalIsMadeBeforehand: an act waits for its record, and not for a file to
// be made; not after a snapshot either, which ends the one before.
func TestTheJournalIsMadeBeforehand(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		l := begin(t, dir, time.Now(), heal("5/1h"))
		defer l.end(t)
		made := func(n uint64) {
			t.Helper()
			l.journal.mu.Lock()
			defer l.journal.mu.Unlock()
			if l.journal.file == nil || l.journal.n != n {
				t.Errorf("file %d, made %t; want %d made", l.journal.n, l.journal.file != nil, n)
			}
		}
		made(1)
		l.sick(3)
		time.Sleep(snapshotEvery + time.Second)
		synctest.Wait()
		made(2)
	})
}

// TestOnlyWhatRulesReadIsNeeded: a host without rules senses nothing.
func TestOnlyWhatRulesReadIsNeeded(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		l := begin(t, dir, time.Now(), heal(""))
		defer l.end(t)
		if len(l.box.rules) != 1 || len(l.box.need) == 0 {
			t.Errorf("needed: %v and %v", l.box.rules, l.box.need)
		}
		l.SetRules(nil)
		synctest.Wait()
		if len(l.box.rules)+len(l.box.need) != 0 {
			t.Errorf("needed: %v and %v", l.box.rules, l.box.need)
		}
	})
}
