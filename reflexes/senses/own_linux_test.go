package senses

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ganglion-mesh/ganglion/reflexes"
)

// probed is a sense that tells how often it was run, and can be made to fail.
type probed struct {
	name string
	runs atomic.Int64
	end  chan error
}

func (c *probed) Name() string           { return "probed:" + c.name }
func (c *probed) Vars() []reflexes.VarID { return []reflexes.VarID{reflexes.SenseValue} }
func (c *probed) Target() reflexes.Target {
	return reflexes.Target{Scope: reflexes.ScopeSense, Name: c.name}
}

func (c *probed) Run(ctx context.Context, emit Emit) error {
	n := c.runs.Add(1)
	emit([]reflexes.Fact{fact(reflexes.SenseValue, c.Target(), reflexes.Float(float64(n)), bootNow())})
	select {
	case <-ctx.Done():
		return nil
	case err := <-c.end:
		if err == nil {
			panic("broken")
		}
		return err
	}
}

// TestOwn: senses come and go while it runs; one that stays is not disturbed, of
// one that goes nothing is known any more, and one that fails is run again.
func TestOwn(t *testing.T) {
	o := must[*Own](t)(NewOwn(OwnConfig{Now: bootNow}))
	a, b := &probed{name: "a", end: make(chan error)}, &probed{name: "b", end: make(chan error)}
	o.Set([]Targeted{a})
	e := listen(t, o)
	e.waitFor(reflexes.SenseValue, "a", is(reflexes.Float(1)))
	o.Set([]Targeted{a, b})
	e.waitFor(reflexes.SenseValue, "b", is(reflexes.Float(1)))
	from := e.heard()
	b.end <- errors.New("out of order")
	e.wait("nothing is known of it", from, func(f reflexes.Fact) bool { return f.Target.Name == "b" && !f.Value.Known() })
	e.waitFor(reflexes.SenseValue, "b", is(reflexes.Float(2)))
	b.end <- nil
	e.waitFor(reflexes.SenseValue, "b", is(reflexes.Float(3)))
	from = e.heard()
	o.Set([]Targeted{a})
	e.wait("it is gone", from, func(f reflexes.Fact) bool { return f.Target.Name == "b" && !f.Value.Known() })
	for _, f := range e.all() {
		if f.Target.Name == "a" && f.Value != reflexes.Float(1) {
			t.Errorf("one that stays was disturbed: %v", f)
		}
	}
	e.stop()
	if _, err := NewOwn(OwnConfig{}); err == nil {
		t.Error("made without a clock")
	}
}

// TestOwnRecovers: a sense that failed for long and then was well is run again at
// once when it fails, and of both a word is said.
func TestOwnRecovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said strings.Builder
		o := must[*Own](t)(NewOwn(OwnConfig{Now: bubbleClock(), Logger: slog.New(slog.NewTextHandler(&said, nil))}))
		p := &probed{name: "a", end: make(chan error)}
		o.Set([]Targeted{p})
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { o.Run(ctx, func([]reflexes.Fact) {}) })
		fail := func() (pause time.Duration) {
			p.end <- errors.New("out of order")
			began, before := time.Now(), p.runs.Load()
			for synctest.Wait(); p.runs.Load() == before; synctest.Wait() {
				time.Sleep(100 * time.Millisecond)
			}
			return time.Since(began)
		}
		for range 7 {
			fail()
		}
		if long := fail(); long != slowestRetry {
			t.Errorf("after eight failures it is run again in %s, want %s", long, slowestRetry)
		}
		time.Sleep(2 * slowestRetry)
		if short := fail(); short != firstRetry {
			t.Errorf("after it was well it is run again in %s, want %s", short, firstRetry)
		}
		cancel()
		running.Wait()
		if n, m := strings.Count(said.String(), "is unavailable"), strings.Count(said.String(), "works again"); n != 2 || m != 1 {
			t.Errorf("%d failures and %d recoveries were said:\n%s", n, m, said.String())
		}
	})
}

// counting is a sense of edges, of which one run leaves its count to the next.
type counting struct {
	*probed
	count int64
}

func (c *counting) Vars() []reflexes.VarID {
	return []reflexes.VarID{reflexes.SenseCount, reflexes.SenseOK}
}

func (c *counting) Run(ctx context.Context, emit Emit) error {
	c.count += 3
	at := bootNow()
	emit([]reflexes.Fact{fact(reflexes.SenseOK, c.Target(), reflexes.Bool(true), at), fact(reflexes.SenseCount, c.Target(), reflexes.Int(c.count), at)})
	select {
	case <-ctx.Done():
		return nil
	case err := <-c.end:
		return err
	}
}

// TestOwnKeepsCounts: a sense that fails goes on counting, and what it had counted is
// not taken back, else it would be new to rules when it is told again. It is when
// the sense goes for good.
func TestOwnKeepsCounts(t *testing.T) {
	o := must[*Own](t)(NewOwn(OwnConfig{Now: bootNow}))
	c := &counting{probed: &probed{name: "a", end: make(chan error)}}
	o.Set([]Targeted{c})
	e := listen(t, o)
	e.waitFor(reflexes.SenseCount, "a", is(reflexes.Int(3)))
	c.end <- errors.New("out of order")
	e.waitFor(reflexes.SenseCount, "a", is(reflexes.Int(6)))
	var told []string
	for _, f := range e.all() {
		told = append(told, f.String())
	}
	want := "sense:a sense.ok = true, sense:a sense.count = 3, sense:a sense.ok = ?, sense:a sense.ok = true, sense:a sense.count = 6"
	if got := strings.Join(told, ", "); got != want {
		t.Errorf("told\n%s, want\n%s", got, want)
	}
	o.Set(nil)
	e.waitFor(reflexes.SenseCount, "a", unknown)
}
