package virtual

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ganglion-mesh/ganglion/workload"
)

// Span is the life of one process of a copy, as the kernel of its host saw it.
// Times are since the mesh began.
type Span struct {
	Host     string
	Copy     workload.CopyID
	Version  string
	Pid      int // unique on its host for as long as that is not booted
	Boot     int // of the host, from 1
	From, To time.Duration
	Why      string // how it ended; empty: it runs
}

// Ended tells whether the process is no more.
func (s Span) Ended() bool { return s.Why != "" }

func (s Span) String() string {
	end := "…"
	if s.Ended() {
		end = s.To.String() + " (" + s.Why + ")"
	}
	return fmt.Sprintf("%s on %s pid %d.%d: %s to %s", s.Copy, s.Host, s.Boot, s.Pid, s.From, end)
}

// Trouble is a fault between two hosts, or between one and all others if B is
// empty. It is open while Over is false.
type Trouble struct {
	A, B     string
	What     string
	From, To time.Duration
	Over     bool
}

// touches tells whether the trouble is one between a and b.
func (t Trouble) touches(a, b string) bool {
	if t.B == "" {
		return t.A == a || t.A == b
	}
	return t.A == a && t.B == b || t.A == b && t.B == a
}

// Want is how many copies an app was to have from a moment on.
type Want struct {
	App   string
	Count int
	At    time.Duration
}

// History is all that happened in a mesh, for checkers to judge.
type History struct {
	Surge    int // copies that an app may have beside its count
	Spans    []Span
	Troubles []Trouble
	Wants    []Want
	Reigns   []Reign // none at all: as if everyone were always led
	Now      time.Duration
}

// Reign is a time in which a host led, having passed its barrier. It goes on
// while Over is false.
type Reign struct {
	Host     string
	From, To time.Duration
	Over     bool
}

// ledger writes the history. It may be used from any goroutine.
type ledger struct {
	begun time.Time

	mu   sync.Mutex
	h    History
	open map[spanKey]int // spans that run
}

type spanKey struct {
	host string
	id   workload.CopyID
}

func newLedger() *ledger {
	return &ledger{begun: time.Now(), open: map[spanKey]int{}}
}

func (l *ledger) now() time.Duration { return time.Since(l.begun) }

// began and ended are told by the drivers.
func (l *ledger) began(host string, boot int, inst workload.Instance) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open[spanKey{host, inst.Spec.ID}] = len(l.h.Spans)
	l.h.Spans = append(l.h.Spans, Span{
		Host: host, Copy: inst.Spec.ID, Version: inst.Spec.Version, Pid: inst.Pid, Boot: boot, From: l.now(),
	})
}

func (l *ledger) ended(host string, id workload.CopyID, why string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.end(spanKey{host, id}, why)
}

func (l *ledger) end(k spanKey, why string) {
	if i, ok := l.open[k]; ok {
		l.h.Spans[i].To, l.h.Spans[i].Why = l.now(), why
		delete(l.open, k)
	}
}

// died ends everything that ran on a host.
func (l *ledger) died(host string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for k := range l.open {
		if k.host == host {
			l.end(k, hostDown)
		}
	}
}

func (l *ledger) trouble(a, b, what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.h.Troubles = append(l.h.Troubles, Trouble{A: a, B: b, What: what, From: l.now()})
}

// over ends the troubles of which the predicate says so.
func (l *ledger) over(f func(Trouble) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.h.Troubles {
		if t := &l.h.Troubles[i]; !t.Over && f(*t) {
			t.To, t.Over = l.now(), true
		}
	}
}

// leads notes that a host leads, or does not any more.
func (l *ledger) leads(host string, does bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if does {
		l.h.Reigns = append(l.h.Reigns, Reign{Host: host, From: l.now()})
		return
	}
	for i := range l.h.Reigns {
		if r := &l.h.Reigns[i]; r.Host == host && !r.Over {
			r.To, r.Over = l.now(), true
		}
	}
}

func (l *ledger) want(app string, count int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.h.Wants = append(l.h.Wants, Want{app, count, l.now()})
}

// wantAtLeast raises what is wanted, and never lowers it.
func (l *ledger) wantAtLeast(app string, count int) {
	l.mu.Lock()
	for _, w := range slices.Backward(l.h.Wants) {
		if w.App == app {
			count = max(count, w.Count)
			break
		}
	}
	l.mu.Unlock()
	l.want(app, count)
}

func (l *ledger) history() History {
	l.mu.Lock()
	defer l.mu.Unlock()
	return History{
		Spans: slices.Clone(l.h.Spans), Troubles: slices.Clone(l.h.Troubles), Wants: slices.Clone(l.h.Wants),
		Reigns: slices.Clone(l.h.Reigns), Now: l.now(),
	}
}

// Running returns what runs, ordered by copy and host. With an app named, only
// its copies.
func (h History) Running(app string) []Span {
	var out []Span
	for _, s := range h.Spans {
		if !s.Ended() && (app == "" || s.Copy.App == app) {
			out = append(out, s)
		}
	}
	slices.SortFunc(out, func(a, b Span) int {
		if c := strings.Compare(a.Copy.App, b.Copy.App); c != 0 {
			return c
		}
		if a.Copy.N != b.Copy.N {
			return a.Copy.N - b.Copy.N
		}
		return strings.Compare(a.Host, b.Host)
	})
	return out
}

// On returns what runs on a host.
func (h History) On(host string) []Span {
	return slices.DeleteFunc(h.Running(""), func(s Span) bool { return s.Host != host })
}

// What can be wrong with a host, and how a process ends with it.
const (
	agentEnds = "the agent is told to end" // and may yet finish what it was at
	agentDown = "no agent"
	hostDown  = "host down"
	linkCut   = "cut"
)
