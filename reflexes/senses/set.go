package senses

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ganglion-mesh/ganglion/reflexes"
)

// The bounds of a Set.
const (
	maxFacts     = 8192 // that one sense may keep known at once
	firstRetry   = time.Second
	slowestRetry = time.Minute
)

// Config of a Set.
type Config struct {
	// Senses, at least one, with names of their own.
	Senses []Sense
	// Now is the boot clock; required.
	Now Clock
	// Logger is told once of a sense that fails, however often it fails again, and
	// once when it has worked for a minute since. Default: discard.
	Logger *slog.Logger
}

func (c *Config) validate() error {
	if c.Now == nil {
		return fmt.Errorf("set up senses: %w", errNoClock)
	}
	if len(c.Senses) == 0 {
		return errors.New("set up senses: none is given")
	}
	seen := map[string]bool{}
	for _, s := range c.Senses {
		if s.Name() == "" || seen[s.Name()] {
			return fmt.Errorf("set up senses: two are named %q, or one has no name", s.Name())
		}
		seen[s.Name()] = true
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

// Set runs senses. All its methods may be called from any goroutine, but only
// one may fetch facts (Ready, Take), and Run may be called once.
type Set struct {
	cfg  Config
	box  *mailbox
	jobs []*job
}

// job is one sense and whether it is wanted.
type job struct {
	sense Sense
	index int

	mu      sync.Mutex
	wanted  bool
	changed chan struct{} // closed when wanted changes
	state   State
	reason  string
	since   reflexes.Boot
}

// State tells how a sense is.
type State string

// The states of a sense.
const (
	StateIdle        State = "idle"        // nobody reads what it tells
	StateRunning     State = "running"     // it looks
	StateUnavailable State = "unavailable" // it failed and will be tried again
)

// Status is how one sense is.
type Status struct {
	Name   string        `json:"name"`
	State  State         `json:"state"`
	Reason string        `json:"reason,omitempty"` // why it is unavailable
	Since  reflexes.Boot `json:"since"`            // when it came to be so
	Age    time.Duration `json:"age"`              // of what it told last; -1 if it has told nothing since it runs
	Facts  int           `json:"facts"`            // that it keeps known
	// Dropped counts what it told of more targets than are kept.
	Dropped int64 `json:"dropped,omitempty"`
}

// New checks cfg and returns a Set of which nothing runs yet.
func New(cfg Config) (*Set, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	s := &Set{cfg: cfg, box: newMailbox(len(cfg.Senses)+1, maxFacts)}
	for i, sense := range cfg.Senses {
		s.jobs = append(s.jobs, &job{sense: sense, index: i, state: StateIdle, changed: make(chan struct{})})
	}
	return s, nil
}

// NeedFor says what is read from now on: by rules, and what else, at leisure, for
// what is dear to tell at once is told at once only to rules. A sense that tells
// none of it stops, and what it told is not known any more; of the senses of users'
// own, which all tell the same variables, only those run that a rule is about. For
// what the engine counts by itself, what it counts is needed, and for what an exit
// was, the kills that may be its reason. It may be called before Run.
func (s *Set) NeedFor(rules []*reflexes.Rule, vars []reflexes.VarID) {
	readers := make([]demand, len(rules))
	for i, r := range rules {
		readers[i] = demand{closure(r.Reads()), r}
	}
	s.need(readers, closure(vars))
}

// demand is what somebody reads.
type demand struct {
	vars map[reflexes.VarID]bool
	rule *reflexes.Rule
}

// attentive is a sense that looks more often while somebody waits for what it
// tells.
type attentive interface{ attend(read bool) }

func (s *Set) need(readers []demand, leisure map[reflexes.VarID]bool) {
	for _, j := range s.jobs {
		of, own := j.sense.(interface{ Target() reflexes.Target })
		read := slices.ContainsFunc(readers, func(r demand) bool {
			return tellsAny(j.sense, r.vars) && (!own || r.rule.About(of.Target()))
		})
		if a, ok := j.sense.(attentive); ok {
			a.attend(read)
		}
		j.want(read || tellsAny(j.sense, leisure))
	}
}

// closure is what has to be told so that variables can be known.
func closure(vars []reflexes.VarID) map[reflexes.VarID]bool {
	need := map[reflexes.VarID]bool{}
	for _, id := range vars {
		need[id] = true
		info := id.Info()
		need[info.Of], need[info.With] = true, true
		if id == reflexes.ExitOOM {
			need[reflexes.OOMCount] = true
		}
	}
	delete(need, 0)
	return need
}

func tellsAny(s Sense, need map[reflexes.VarID]bool) bool {
	return slices.ContainsFunc(s.Vars(), func(id reflexes.VarID) bool { return need[id] })
}

// Ready has something to receive when there are facts to take.
func (s *Set) Ready() <-chan struct{} { return s.box.ready }

// Take appends the facts that came since the last Take, oldest first and as
// reflexes.Inbox keeps them: edges one by one as long as there are few, of all
// else the newest. A fact without a value says that it is not known any more.
func (s *Set) Take(to []reflexes.Fact) []reflexes.Fact { return s.box.take(to) }

// Offer adds facts that others have seen: exits, checks, peers. It never blocks.
// The Set forgets them only when they come without a value.
func (s *Set) Offer(facts []reflexes.Fact) { s.box.put(len(s.jobs), facts) }

// Known returns what is known now, sorted by variable and target.
func (s *Set) Known() []reflexes.Fact { return s.box.all() }

// Status returns how the senses are, in the order of Config.
func (s *Set) Status() []Status {
	now := s.cfg.Now()
	out := make([]Status, len(s.jobs))
	for i, j := range s.jobs {
		o := s.box.of(i)
		j.mu.Lock()
		out[i] = Status{Name: j.sense.Name(), State: j.state, Reason: j.reason, Since: j.since, Age: -1, Facts: o.known, Dropped: o.dropped}
		j.mu.Unlock()
		if o.told {
			out[i].Age = max(0, now-o.last)
		}
	}
	return out
}

// Run runs the senses until ctx ends, and returns when all have ended. It never
// fails: senses fail, each alone.
func (s *Set) Run(ctx context.Context) {
	var wg sync.WaitGroup
	for _, j := range s.jobs {
		k := keeper{
			sense: j.sense, log: s.cfg.Logger, wish: j.wish,
			emit:   func(facts []reflexes.Fact) { s.box.put(j.index, facts) },
			mark:   func(state State, reason string) { s.mark(j, state, reason) },
			forget: func() { s.box.forget(j.index, s.cfg.Now()) },
		}
		wg.Go(func() { k.run(ctx) })
	}
	wg.Wait()
}

func (s *Set) mark(j *job, state State, reason string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.state != state {
		j.since = s.cfg.Now()
	}
	j.state, j.reason = state, reason
}

func (j *job) want(wanted bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.wanted != wanted {
		j.wanted = wanted
		close(j.changed)
		j.changed = make(chan struct{})
	}
}

// wish tells whether the sense is wanted, and what is closed when that changes.
func (j *job) wish() (wanted bool, changed <-chan struct{}) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.wanted, j.changed
}

func compareFacts(a, b reflexes.Fact) int {
	return cmp.Or(cmp.Compare(a.Var, b.Var), cmp.Compare(a.Target.Scope, b.Target.Scope), strings.Compare(a.Target.Name, b.Target.Name))
}
