// Package packages sees to it that the packages that a host's copies run from
// are on the host: it fetches, unpacks and keeps them, tries again for ever where
// that fails, and removes what nobody needs.
package packages

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/ganglion-mesh/ganglion/intent"
	"github.com/ganglion-mesh/ganglion/workload/artifact"
)

// Ref names a package as those who run from it see it.
type Ref struct {
	Digest artifact.Digest
	URL    string // where it is had if no host has it; empty: nowhere
	Plain  string // name of the file that it becomes if it is no archive
}

// RefOf returns the package that run names; ok is false if it names none. An
// artifact that is a path names none that a host could get.
func RefOf(run intent.Run) (_ Ref, ok bool, err error) {
	r := Ref{}
	switch {
	case run.Artifact == "":
		return r, false, nil
	case strings.HasPrefix(run.Artifact, "https://"):
		r.URL, r.Plain = run.Artifact, artifact.PlainName(run.Artifact)
		r.Digest, err = artifact.ParseDigest(run.Digest)
	default:
		r.Digest, err = artifact.ParseDigest(run.Artifact)
		if len(run.Command) > 0 && !path.IsAbs(run.Command[0]) {
			r.Plain = path.Base(run.Command[0])
		}
	}
	return r, err == nil, err
}

// State is how it stands with a package on this host.
type State struct {
	Dir    string // where it is unpacked; empty if it is not
	Ready  bool
	Failed bool   // it cannot be had as it is; it is tried on, slowly
	Stuck  bool   // the last try failed, for whatever reason
	Why    string // how far it is, or what is wrong; empty if Ready
}

// Config of a Keeper.
type Config struct {
	Store   *artifact.Store
	Fetcher *artifact.Fetcher
	// Sources returns the hosts to ask for a package. From is a host that is known
	// to have it, empty if none is.
	Sources func(from string) []artifact.Source
	// Admit is asked about a package that is here, before it is unpacked; nil: all
	// may be. An error that is artifact.ErrRefused is the package's own fault.
	Admit func(context.Context, artifact.Digest) error
	Bound int64         // bytes that packages may have on this disk, what is pinned aside; default 10 GiB
	Grace time.Duration // what nobody needs is kept for so long at least; default 1 h
	// Patience is for how long a package that nobody has, or nobody has right, is
	// looked for before that is told as a failure. Default 1 min.
	Patience time.Duration
	Tend     time.Duration // how often it is looked for what can go; default 1 min
	Logger   *slog.Logger  // default: none
}

func (c *Config) validate() error {
	if c.Store == nil || c.Fetcher == nil || c.Sources == nil {
		return errors.New("configure packages: Store, Fetcher or Sources is missing")
	}
	if c.Bound < 0 || c.Grace < 0 || c.Patience < 0 || c.Tend < 0 {
		return errors.New("configure packages: a bound or a time is negative")
	}
	if c.Admit == nil {
		c.Admit = func(context.Context, artifact.Digest) error { return nil }
	}
	orElse(&c.Bound, 10<<30)
	orElse(&c.Grace, time.Hour)
	orElse(&c.Patience, time.Minute)
	orElse(&c.Tend, time.Minute)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

func orElse[T comparable](v *T, otherwise T) {
	var zero T
	if *v == zero {
		*v = otherwise
	}
}

// Wanted is what a host should have. It is always complete: what is not in it
// is not wanted any more.
type Wanted struct {
	Unpacked []Ref                    // for copies, now or soon
	Stored   []Ref                    // for others
	Pinned   map[artifact.Digest]bool // not to be removed if they are here, besides all of the above
}

// Keeper provides packages. Its methods may be called from any goroutine; it
// does nothing before Run.
type Keeper struct {
	cfg  Config
	log  *slog.Logger
	wake chan struct{} // cap 1
	turn chan struct{} // a slot for each fetch that may run at once
	jobs sync.WaitGroup

	mu       sync.Mutex
	informed bool // Want has been called
	wanted   map[Ref]bool
	pinned   map[artifact.Digest]bool
	asked    map[Ref]ask
	running  map[Ref]*job
	idle     map[artifact.Digest]time.Time // since when nobody needs it
	changed  chan struct{}
}

// ask is a wish for a package that came from elsewhere than Want.
type ask struct {
	from  string
	until time.Time
}

const (
	atOnce  = 3                // packages fetched at the same time
	askedIn = 10 * time.Minute // after which a wish that nobody repeats is forgotten
)

// New returns a Keeper.
func New(cfg Config) (*Keeper, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	return &Keeper{
		cfg: cfg, log: cfg.Logger, wake: make(chan struct{}, 1), turn: make(chan struct{}, atOnce),
		wanted: map[Ref]bool{}, pinned: map[artifact.Digest]bool{}, asked: map[Ref]ask{}, running: map[Ref]*job{},
		idle: map[artifact.Digest]time.Time{}, changed: make(chan struct{}),
	}, nil
}

// Want makes w what this host should have.
func (k *Keeper) Want(w Wanted) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.informed = true
	clear(k.wanted)
	k.pinned = maps.Clone(w.Pinned)
	if k.pinned == nil {
		k.pinned = map[artifact.Digest]bool{}
	}
	for _, r := range w.Stored {
		k.wanted[stored(r)] = true
		k.pinned[r.Digest] = true
	}
	for _, r := range w.Unpacked {
		k.wanted[r] = true
		k.pinned[r.Digest] = true
	}
	k.signal()
}

// onlyStored marks a Ref of which the package is wanted and nothing unpacked. No
// file can have that name.
const onlyStored = "/"

func stored(r Ref) Ref { return Ref{Digest: r.Digest, URL: r.URL, Plain: onlyStored} }

// Get tells how it stands with the package that run names, and sees to it that it
// is fetched. It never blocks. Of a run that names none it is ready, in no
// directory.
func (k *Keeper) Get(run intent.Run) State {
	ref, ok, err := RefOf(run)
	switch {
	case err != nil:
		return State{Failed: true, Why: fmt.Sprintf("use artifact: %v; only a digest names a package on hosts: apply again", err)}
	case !ok:
		return State{Ready: true}
	}
	dir, ready := k.cfg.Store.Tree(ref.Digest, ref.Plain)
	if ready {
		return State{Dir: dir, Ready: true}
	}
	return k.ask(ref, "")
}

// Store sees to it that the package that run names is here, without unpacking it,
// and tells how it stands with it. It never blocks.
func (k *Keeper) Store(run intent.Run) State {
	ref, ok, err := RefOf(run)
	switch {
	case err != nil || !ok:
		return State{Failed: true, Stuck: true, Why: fmt.Sprintf("it names no package: %v", err)}
	case k.cfg.Store.Has(ref.Digest):
		return State{Ready: true}
	}
	return k.ask(stored(ref), "")
}

// Fetch sees to it that a package is here, without unpacking it, and tells how it
// stands with it. It never blocks. From is a host that has it.
func (k *Keeper) Fetch(d artifact.Digest, from string) State {
	if k.cfg.Store.Has(d) {
		return State{Ready: true}
	}
	return k.ask(stored(Ref{Digest: d}), from)
}

func (k *Keeper) ask(ref Ref, from string) State {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.asked[ref] = ask{from, time.Now().Add(askedIn)}
	j := k.running[ref]
	if j == nil {
		k.signal()
		return State{Why: "package " + ref.Digest.Short() + " is to be fetched"}
	}
	return j.state
}

// Changed returns a channel that is closed when a State may differ from what it
// was. Get the channel first, then the State: then no change is missed.
func (k *Keeper) Changed() <-chan struct{} {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.changed
}

// announce is called with mu held.
func (k *Keeper) announce() {
	close(k.changed)
	k.changed = make(chan struct{})
}

func (k *Keeper) signal() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// Run provides what is wanted until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	defer k.jobs.Wait()
	tick := time.NewTicker(k.cfg.Tend)
	defer tick.Stop()
	for {
		k.reconcile(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-k.wake:
		case <-tick.C:
			k.tend(ctx)
		}
	}
}

// reconcile starts the jobs that are needed and ends those that are not.
func (k *Keeper) reconcile(ctx context.Context) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Now()
	need := maps.Clone(k.wanted)
	for ref, a := range k.asked {
		if now.After(a.until) {
			delete(k.asked, ref)
			continue
		}
		need[ref] = true
	}
	for ref, j := range k.running {
		if !need[ref] {
			j.cancel()
		}
	}
	for ref := range need {
		if k.running[ref] != nil || k.have(ref) {
			continue
		}
		j := &job{k: k, ref: ref, from: k.asked[ref].from, state: State{Why: "package " + ref.Digest.Short() + " is to be fetched"}}
		jctx, cancel := context.WithCancel(ctx)
		j.cancel = cancel
		k.running[ref] = j
		k.jobs.Go(func() {
			defer cancel()
			j.run(jctx)
		})
	}
}

// have tells whether what ref asks for is here.
func (k *Keeper) have(ref Ref) bool {
	if ref.Plain == onlyStored {
		return k.cfg.Store.Has(ref.Digest)
	}
	_, ok := k.cfg.Store.Tree(ref.Digest, ref.Plain)
	return ok
}

// Pinned tells whether a package must not be removed here.
func (k *Keeper) Pinned(d artifact.Digest) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.pinned[d]
}

// Remove removes a package that nobody needs.
func (k *Keeper) Remove(d artifact.Digest) error {
	if k.Pinned(d) {
		return fmt.Errorf("remove package %s: an app needs it", d.Short())
	}
	return k.cfg.Store.Remove(d)
}
