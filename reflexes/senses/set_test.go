package senses

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ganglion-mesh/ganglion/intent"
	"github.com/ganglion-mesh/ganglion/reflexes"
)

// scripted is a sense that does what a test says.
type scripted struct {
	name string
	vars []reflexes.VarID
	run  func(ctx context.Context, emit Emit) error
	runs atomic.Int64
	now  atomic.Int64 // running at this moment
}

func (s *scripted) Name() string           { return s.name }
func (s *scripted) Vars() []reflexes.VarID { return s.vars }

func (s *scripted) Run(ctx context.Context, emit Emit) error {
	s.runs.Add(1)
	if s.now.Add(1) > 1 {
		panic("run twice at once")
	}
	defer s.now.Add(-1)
	return s.run(ctx, emit)
}

// bubbleClock is a boot clock of the bubble that calls it.
func bubbleClock() Clock {
	start := time.Now()
	return func() reflexes.Boot { return time.Hour + time.Since(start) }
}

func runSet(t *testing.T, list ...Sense) *Set {
	t.Helper()
	s, err := New(Config{Senses: list, Now: bubbleClock()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { s.Run(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	return s
}

func steady(id reflexes.VarID, v reflexes.Value) func(context.Context, Emit) error {
	return func(ctx context.Context, emit Emit) error {
		emit([]reflexes.Fact{hostFact(id, v, 1)})
		<-ctx.Done()
		return ctx.Err()
	}
}

func TestOnlyWhatIsReadRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &scripted{name: "a", vars: []reflexes.VarID{reflexes.HostLoad}, run: steady(reflexes.HostLoad, reflexes.Float(1))}
		b := &scripted{name: "b", vars: []reflexes.VarID{reflexes.HostOOMCount}, run: steady(reflexes.HostOOMCount, reflexes.Int(0))}
		s := runSet(t, a, b)
		synctest.Wait()
		if a.runs.Load()+b.runs.Load() != 0 {
			t.Fatal("nobody reads anything, and something runs")
		}
		s.NeedFor(nil, []reflexes.VarID{reflexes.HostOOM10m, reflexes.HostLoad}) // a window and a number
		synctest.Wait()
		<-s.Ready()
		if facts := s.Take(nil); len(facts) != 2 {
			t.Fatalf("a window needs what it counts: %v", facts)
		}
		s.NeedFor(nil, []reflexes.VarID{reflexes.HostOOMCount})
		synctest.Wait()
		facts := s.Take(nil)
		if len(facts) != 1 || facts[0].Var != reflexes.HostLoad || facts[0].Value.Known() {
			t.Errorf("what nobody looks at is not known: %v", facts)
		}
		if st := s.Status(); st[0].State != StateIdle || st[1].State != StateRunning || st[1].Facts != 1 {
			t.Errorf("%+v", st)
		}
		s.NeedFor(nil, []reflexes.VarID{reflexes.HostLoad})
		synctest.Wait()
		if facts := s.Take(nil); len(facts) != 1 || !facts[0].Value.Known() {
			t.Errorf("it is read again, and a counter stays what it was: %v", facts)
		}
	})
}

// TestTogether: what is done each so often is done at the same instants.
func TestTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		at := map[reflexes.Boot]int{}
		var mu sync.Mutex
		now := bubbleClock()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second+time.Millisecond)
		defer cancel()
		var wg sync.WaitGroup
		for i, interval := range []time.Duration{200 * time.Millisecond, time.Second, 2 * time.Second, time.Second} {
			wg.Go(func() {
				time.Sleep(time.Duration(i) * 270 * time.Millisecond)
				first, looks := now(), 0
				_ = every(ctx, now, interval, func() error {
					if looks++; looks == 2 && now()-first < interval/2 {
						t.Errorf("each %s: a second look after %s", interval, now()-first)
					}
					mu.Lock()
					defer mu.Unlock()
					at[now()]++
					return nil
				})
			})
		}
		wg.Wait()
		if n := at[time.Hour+4*time.Second]; n != 4 {
			t.Errorf("%d look after 4 s: %v", n, at)
		}
		if n := len(at); n > 51+3 { // 51 instants, and the first looks
			t.Errorf("there are looks at %d instants: %v", n, at)
		}
	})
}

// TestAttention: what a rule reads is looked at more often than what is only of
// use.
func TestAttention(t *testing.T) {
	rule, err := reflexes.NewCompiler()
	if err != nil {
		t.Fatal(err)
	}
	r, err := rule.Compile(intent.Reflex{Name: "busy", When: "host.psi.cpu.some_10s > 0.5", Act: []intent.Action{{Op: "emit", Target: "busy"}}}, "")
	if err != nil {
		t.Fatal(err)
	}
	var attended []bool
	s, err := New(Config{Now: bubbleClock(), Senses: []Sense{alert{&scripted{name: "x", vars: []reflexes.VarID{reflexes.HostPSICPUSome10s}}, &attended}}})
	if err != nil {
		t.Fatal(err)
	}
	psi := []reflexes.VarID{reflexes.HostPSICPUSome10s}
	s.NeedFor([]*reflexes.Rule{r}, nil)
	s.NeedFor(nil, psi)
	s.NeedFor([]*reflexes.Rule{r}, psi)
	s.NeedFor(nil, nil)
	if !slices.Equal(attended, []bool{true, false, true, false}) {
		t.Errorf("%v", attended)
	}
}

// alert is an attentive sense.
type alert struct {
	*scripted
	attended *[]bool
}

func (a alert) attend(read bool) { *a.attended = append(*a.attended, read) }

// own is a sense of a user's own.
type own struct{ *scripted }

func (o own) Target() reflexes.Target {
	return reflexes.Target{Scope: reflexes.ScopeSense, Name: o.name}
}

// TestOnlyOwnSensesThatRulesAreAbout run: they all tell the same variables.
func TestOnlyOwnSensesThatRulesAreAbout(t *testing.T) {
	c, err := reflexes.NewCompiler()
	if err != nil {
		t.Fatal(err)
	}
	rule, err := c.Compile(intent.Reflex{
		Name: "hot", Scope: "sense:temp*", When: "sense.value > 70.0 && host.load.per_core > 1.0", Act: []intent.Action{{Op: "emit", Target: "hot"}}, Limit: "3/10m",
	}, "")
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		sense := func(name string, vars ...reflexes.VarID) *scripted {
			return &scripted{name: name, vars: vars, run: func(ctx context.Context, _ Emit) error { <-ctx.Done(); return nil }}
		}
		temp, fan := sense("temp1", reflexes.SenseValue), sense("fan", reflexes.SenseValue)
		load, cpu := sense("load", reflexes.HostLoad), sense("cpu", reflexes.HostCPUBusy)
		s := runSet(t, own{temp}, own{fan}, load, cpu)
		s.NeedFor([]*reflexes.Rule{rule}, []reflexes.VarID{reflexes.HostCPUBusy})
		synctest.Wait()
		if temp.now.Load() != 1 || fan.now.Load() != 0 || load.now.Load() != 1 || cpu.now.Load() != 1 {
			t.Error("what runs is not what the rule reads")
		}
		s.NeedFor(nil, nil)
		synctest.Wait()
		if temp.now.Load()+load.now.Load()+cpu.now.Load() != 0 {
			t.Error("nobody reads anything, and something runs")
		}
	})
}

func TestASenseFailsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		good := &scripted{name: "good", vars: []reflexes.VarID{reflexes.HostLoad}, run: steady(reflexes.HostLoad, reflexes.Float(1))}
		var starts []reflexes.Boot
		now := bubbleClock()
		bad := &scripted{name: "bad", vars: []reflexes.VarID{reflexes.HostCPUBusy}}
		bad.run = func(_ context.Context, emit Emit) error {
			starts = append(starts, now())
			emit([]reflexes.Fact{hostFact(reflexes.HostCPUBusy, reflexes.Float(0.5), now())})
			if len(starts) == 3 {
				panic("a bug")
			}
			return errors.New("no such file\nand more")
		}
		s := runSet(t, good, bad)
		s.NeedFor(nil, []reflexes.VarID{reflexes.HostLoad, reflexes.HostCPUBusy})
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		var pauses []time.Duration
		for i := 1; i < len(starts); i++ {
			pauses = append(pauses, starts[i]-starts[i-1])
		}
		want := []time.Duration{1e9, 2e9, 4e9, 8e9, 16e9, 32e9, 60e9, 60e9}
		for i, d := range want {
			if i >= len(pauses) || pauses[i] != d {
				t.Fatalf("pauses %v, want %v…", pauses, want)
			}
		}
		if good.runs.Load() != 1 {
			t.Errorf("the other sense was run %d times", good.runs.Load())
		}
		st := s.Status()
		if st[1].State != StateUnavailable || st[1].Reason != "no such file" || st[0].State != StateRunning {
			t.Errorf("%+v", st)
		}
		v, ok := last(s.Take(nil), reflexes.HostCPUBusy, "")
		if !ok || v.Known() {
			t.Errorf("what a failed sense told is still known: %v", v)
		}
		if st[0].Age < 0 || st[1].Age != -1 {
			t.Errorf("ages %s and %s", st[0].Age, st[1].Age)
		}
	})
}

// TestFailureIsSaidOnce: what fails again and again is said once, and once when
// it works again.
func TestFailureIsSaidOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said strings.Builder
		var runs int
		s, err := New(Config{
			Now: bubbleClock(), Logger: slog.New(slog.NewTextHandler(&said, nil)),
			Senses: []Sense{&scripted{name: "x", vars: []reflexes.VarID{reflexes.HostLoad}, run: func(ctx context.Context, _ Emit) error {
				if runs++; runs < 5 || runs == 6 {
					return errors.New("no such file")
				}
				select {
				case <-ctx.Done():
				case <-time.After(time.Hour):
				}
				return errors.New("no such file")
			}}},
		})
		if err != nil {
			t.Fatal(err)
		}
		s.NeedFor(nil, []reflexes.VarID{reflexes.HostLoad})
		ctx, cancel := context.WithTimeout(t.Context(), 90*time.Minute)
		defer cancel()
		s.Run(ctx)
		if n, m := strings.Count(said.String(), "is unavailable"), strings.Count(said.String(), "works again"); n != 2 || m != 2 {
			t.Errorf("%d failures and %d recoveries were said:\n%s", n, m, said.String())
		}
	})
}

func TestRetriesBeginAnewAfterALongRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var pauses []time.Duration
		ended := time.Now()
		s := runSet(t, &scripted{name: "x", vars: []reflexes.VarID{reflexes.HostLoad}, run: func(ctx context.Context, _ Emit) error {
			pauses = append(pauses, time.Since(ended))
			time.Sleep(2 * time.Minute)
			ended = time.Now()
			return nil // to end by itself is a failure too
		}})
		s.NeedFor(nil, []reflexes.VarID{reflexes.HostLoad})
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		for _, p := range pauses[1:] {
			if p != firstRetry {
				t.Errorf("pauses %v", pauses)
			}
		}
	})
}

// TestStoppingJoins: a sense that takes its time to end is waited for, and is
// never run twice at once.
func TestStoppingJoins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := &scripted{name: "slow", vars: []reflexes.VarID{reflexes.HostLoad}, run: func(ctx context.Context, _ Emit) error {
			<-ctx.Done()
			time.Sleep(time.Second)
			return ctx.Err()
		}}
		s := runSet(t, slow)
		for range 20 {
			s.NeedFor(nil, []reflexes.VarID{reflexes.HostLoad})
			time.Sleep(100 * time.Millisecond)
			s.NeedFor(nil, nil)
			time.Sleep(100 * time.Millisecond)
		}
		s.NeedFor(nil, []reflexes.VarID{reflexes.HostLoad})
		time.Sleep(5 * time.Second)
		if slow.now.Load() != 1 {
			t.Error("it does not run, though it is read")
		}
	})
}

func TestEdgesAreNeverLost(t *testing.T) {
	m := newMailbox(4, maxFacts)
	const senders, each = 4, 2000
	var wg sync.WaitGroup
	for by := range senders {
		wg.Go(func() {
			target := reflexes.Target{Scope: reflexes.ScopeSense, Name: fmt.Sprint(by)}
			for n := range each {
				m.put(by, []reflexes.Fact{
					fact(reflexes.SenseSubject, target, reflexes.Text(fmt.Sprint(n+1)), reflexes.Boot(n)),
					fact(reflexes.SenseCount, target, reflexes.Int(int64(n+1)), reflexes.Boot(n)),
				})
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	counts := map[string]int64{}
	var facts []reflexes.Fact
	for over := false; !over; {
		select {
		case <-m.ready:
		case <-done:
			over = true
		}
		facts = m.take(facts[:0])
		for i, f := range facts {
			if f.Var != reflexes.SenseCount {
				continue
			}
			if n := f.Value.AsInt(); n <= counts[f.Target.Name] {
				t.Fatalf("%s went from %d to %d", f.Target, counts[f.Target.Name], n)
			}
			counts[f.Target.Name] = f.Value.AsInt()
			if d := facts[i-1]; d.Var != reflexes.SenseSubject || d.Target != f.Target || d.Value.AsString() != fmt.Sprint(f.Value.AsInt()) {
				t.Fatalf("before %v stands %v", f, d)
			}
		}
	}
	for name, n := range counts {
		if n != each {
			t.Errorf("sense %s counted %d of %d", name, n, each)
		}
	}
}

func TestMailboxIsBounded(t *testing.T) {
	m := newMailbox(2, 10)
	for i := range 100 {
		m.put(0, []reflexes.Fact{fact(reflexes.LinkUp, reflexes.Target{Scope: reflexes.ScopeLink, Name: fmt.Sprint(i)}, reflexes.Bool(true), 0)})
	}
	m.put(1, []reflexes.Fact{hostFact(reflexes.HostLoad, reflexes.Float(1), 0)})
	if o := m.of(0); o.known != 10 || o.dropped != 90 {
		t.Errorf("%+v", o)
	}
	if n := len(m.take(nil)); n != 11 {
		t.Errorf("%d facts", n)
	}
	// One goes, and there is room for another.
	m.put(0, []reflexes.Fact{
		fact(reflexes.LinkUp, reflexes.Target{Scope: reflexes.ScopeLink, Name: "3"}, reflexes.Value{}, 1),
		fact(reflexes.LinkUp, reflexes.Target{Scope: reflexes.ScopeLink, Name: "50"}, reflexes.Value{}, 1), // never known
		fact(reflexes.LinkUp, reflexes.Target{Scope: reflexes.ScopeLink, Name: "77"}, reflexes.Bool(false), 1),
	})
	if facts := m.take(nil); len(facts) != 2 || m.of(0).known != 10 {
		t.Errorf("%v", facts)
	}
	if n := len(m.all()); n != 11 {
		t.Errorf("%d known", n)
	}
}

func TestMailboxAllocatesNothing(t *testing.T) {
	m := newMailbox(1, 10)
	facts := []reflexes.Fact{hostFact(reflexes.HostLoad, reflexes.Float(1), 0), hostFact(reflexes.HostOOMCount, reflexes.Int(1), 0)}
	var out []reflexes.Fact
	put := func() {
		facts[1].Value = reflexes.Int(facts[1].Value.AsInt() + 1)
		m.put(0, facts)
		out = m.take(out[:0])
	}
	put()
	if n := testing.AllocsPerRun(100, put); n >= 1 {
		t.Errorf("%v allocations", n)
	}
}

func TestNewRefuses(t *testing.T) {
	x := &scripted{name: "x"}
	for name, cfg := range map[string]Config{
		"no clock":    {Senses: []Sense{x}},
		"no senses":   {Now: bubbleClock()},
		"equal names": {Now: bubbleClock(), Senses: []Sense{x, x}},
		"no name":     {Now: bubbleClock(), Senses: []Sense{&scripted{}}},
	} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func BenchmarkPutTake(b *testing.B) {
	m := newMailbox(1, 10)
	facts := []reflexes.Fact{hostFact(reflexes.HostLoad, reflexes.Float(1), 0)}
	var out []reflexes.Fact
	b.ReportAllocs()
	for b.Loop() {
		m.put(0, facts)
		out = m.take(out[:0])
	}
}
