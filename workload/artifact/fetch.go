package artifact

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/ganglion-mesh/ganglion/pause"
)

// Source is a host that may have packages. Its methods may be called from any
// goroutine, several at once.
type Source interface {
	// String names the source in messages.
	String() string
	// Describe tells of a package; ErrAbsent if the source has it not.
	Describe(ctx context.Context, d Digest) (Described, error)
	// Read yields n bytes of a package from off on. The caller closes it.
	Read(ctx context.Context, d Digest, off, n int64) (io.ReadCloser, error)
}

// Described is what a source tells of a package. Nothing in it is trusted.
type Described struct {
	Chunks
	Name string `json:"name,omitempty"`
}

// FetcherConfig of a Fetcher.
type FetcherConfig struct {
	Store *Store
	Rate  int64         // bytes a second, of all fetches together; 0: unbounded
	Ask   time.Duration // for how long sources are asked what they have; default 5 s
	Stall time.Duration // a source that sends nothing for so long has failed; default 15 s
	// Retry is how long a source that failed rests, at most; how long exactly is
	// left to chance. Default 1 s.
	Retry time.Duration
	// Origin fetches from a Request's URL. Nil: a client without credentials that
	// follows few redirects, to https alone.
	Origin *http.Client
	Logger *slog.Logger // default: none
}

// Fetcher gets packages from other hosts into a store. It may be used from many
// goroutines.
type Fetcher struct {
	cfg     FetcherConfig
	limiter *rate.Limiter
}

const (
	streams  = 2         // at once from one source
	failures = 3         // in a row, after which a source is not asked again
	burst    = 256 << 10 // bytes that may come at once under a rate
)

// NewFetcher returns a Fetcher. It starts nothing.
func NewFetcher(cfg FetcherConfig) (*Fetcher, error) {
	if cfg.Store == nil || cfg.Rate < 0 {
		return nil, errors.New("configure fetcher: Store is missing or Rate is negative")
	}
	orElse(&cfg.Ask, 5*time.Second)
	orElse(&cfg.Stall, 15*time.Second)
	orElse(&cfg.Retry, time.Second)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	f := &Fetcher{cfg: cfg, limiter: rate.NewLimiter(rate.Inf, burst)}
	if cfg.Rate > 0 {
		f.limiter.SetLimit(rate.Limit(cfg.Rate))
	}
	return f, nil
}

// Request is one package to be fetched.
type Request struct {
	Digest  Digest
	Sources []Source
	URL     string // https://…, where it is had if no source has it; empty: nowhere
	// Progress is told how much is here, from many goroutines. May be nil.
	Progress func(done, size int64, from string)
}

// Fetch gets a package into the store: from all sources that have it at once,
// chunk by chunk, each checked on arrival, going on from what an earlier try or
// life has left; else from the URL. It is in the store, checked as a whole and
// durable, when Fetch returns nil. A source that sends what is wrong is not
// asked again.
//
// The error wraps ErrAbsent if nobody has it, ErrCorrupt if whoever has it sends
// something else, a *SpaceError if there is no room for it.
func (f *Fetcher) Fetch(ctx context.Context, r Request) error {
	s := f.cfg.Store
	if err := s.claimPart(ctx, r.Digest); err != nil {
		return err
	}
	defer s.releasePart(r.Digest)
	if s.Has(r.Digest) {
		return nil
	}
	if r.Progress == nil {
		r.Progress = func(int64, int64, string) {}
	}
	var errs []error
	groups, silent := f.ask(ctx, r)
	for _, g := range groups {
		err := f.fromGroup(ctx, r, g)
		if err == nil {
			s.dropPart(r.Digest)
			return nil
		}
		errs = append(errs, err)
		if ctx.Err() != nil || ours(err) {
			return fmt.Errorf("fetch package %s: %w", r.Digest.Short(), err)
		}
	}
	if r.URL != "" {
		err := f.fromURL(ctx, r)
		if err == nil {
			s.dropPart(r.Digest)
			return nil
		}
		errs = append(errs, err)
	}
	if silent > 0 { // one of them may have it
		errs = append(errs, fmt.Errorf("%d of %d hosts could not be asked", silent, len(r.Sources)))
	} else if len(errs) == 0 {
		errs = append(errs, fmt.Errorf("%w at any of %d hosts", ErrAbsent, len(r.Sources)))
	}
	return fmt.Errorf("fetch package %s: %w", r.Digest.Short(), errors.Join(errs...))
}

// ours tells whether an error is a fault of this host: to ask others helps
// nothing.
func ours(err error) bool {
	return errors.As(err, new(*diskError)) || errors.As(err, new(*SpaceError)) || errors.Is(err, ErrRefused)
}

// group is the sources that tell the same of a package.
type group struct {
	Described
	sources []Source
}

// ask asks all sources what they have. They are grouped by what they say, the
// most numerous first: honest ones agree. Silent is how many did not answer.
func (f *Fetcher) ask(ctx context.Context, r Request) (groups []group, silent int) {
	ctx, cancel := context.WithTimeout(ctx, f.cfg.Ask)
	defer cancel()
	found, mute := make([]*Described, len(r.Sources)), make([]bool, len(r.Sources))
	var asking sync.WaitGroup
	for i, src := range r.Sources {
		asking.Go(func() {
			d, err := src.Describe(ctx, r.Digest)
			if err == nil {
				err = d.check(f.cfg.Store.cfg.Limits.Package)
			}
			if err == nil {
				found[i] = &d
			} else if !errors.Is(err, ErrAbsent) {
				mute[i] = true
				f.cfg.Logger.Debug("ask for a package", "package", r.Digest.Short(), "host", src.String(), "error", err)
			}
		})
	}
	asking.Wait()
	for i, d := range found {
		if mute[i] {
			silent++
		}
		if d == nil {
			continue
		}
		at := slices.IndexFunc(groups, func(g group) bool { return g.equal(d.Chunks) })
		if at < 0 {
			groups, at = append(groups, group{Described: *d}), len(groups)
		}
		groups[at].sources = append(groups[at].sources, r.Sources[i])
	}
	slices.SortStableFunc(groups, func(a, b group) int { return cmp.Compare(len(b.sources), len(a.sources)) })
	return groups, silent
}

// fromGroup fetches from sources that agree on what the package is.
func (f *Fetcher) fromGroup(ctx context.Context, r Request, g group) error {
	p, err := f.cfg.Store.openPart(r.Digest, g.Chunks)
	if err != nil {
		return err
	}
	defer p.close()
	r.Progress(p.done(), g.Size, "")
	pl := &pull{Fetcher: f, part: p, req: r, todo: p.missing(), wake: make(chan struct{})}
	if err := pl.run(ctx, g.sources); err != nil {
		return err
	}
	return p.finish(g.Name)
}

// pull is the transfer of one part: the sources take chunk after chunk, each as
// fast as it can.
type pull struct {
	*Fetcher
	part *part
	req  Request

	mu      sync.Mutex
	todo    []int // chunks that nobody has taken
	taken   int   // chunks under way
	fatal   error // of this host
	lastErr error // of a source that was given up
	wake    chan struct{}
}

func (p *pull) run(ctx context.Context, sources []Source) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	rand.Shuffle(len(sources), func(i, j int) { sources[i], sources[j] = sources[j], sources[i] })
	var pulling sync.WaitGroup
	for _, src := range sources {
		from := &supplier{Source: src}
		for range streams {
			pulling.Go(func() { p.from(ctx, from, cancel) })
		}
	}
	pulling.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.fatal != nil:
		return p.fatal
	case len(p.part.missing()) == 0:
		return nil
	case p.lastErr != nil:
		return p.lastErr
	}
	return context.Cause(ctx)
}

// supplier is a source within one pull.
type supplier struct {
	Source
	mu    sync.Mutex
	fails int
}

// failed counts a failure and tells whether the source is given up.
func (s *supplier) failed(err error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fails++; errors.Is(err, ErrCorrupt) || errors.Is(err, ErrAbsent) {
		s.fails = failures
	}
	return s.fails >= failures
}

func (s *supplier) worked() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fails < failures {
		s.fails = 0
	}
}

func (s *supplier) given() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fails >= failures
}

// from takes chunks from one source until there is none left to take, or the
// source is given up. A chunk that another source fails on comes back.
func (p *pull) from(ctx context.Context, src *supplier, stop func()) {
	buf := make([]byte, ChunkSize)
	for ctx.Err() == nil && !src.given() {
		i, ok := p.take(ctx)
		if !ok {
			return
		}
		err := p.chunk(ctx, src, i, buf)
		p.settle(i, err)
		if err == nil {
			src.worked()
			p.req.Progress(p.part.done(), p.part.chunks.Size, src.String())
			continue
		}
		if ctx.Err() != nil {
			return
		}
		if ours(err) {
			p.mu.Lock()
			p.fatal = err
			p.mu.Unlock()
			stop()
			return
		}
		if src.failed(err) {
			p.mu.Lock()
			p.lastErr = fmt.Errorf("from %s: %w", src, err)
			p.mu.Unlock()
			p.cfg.Logger.Warn("a host is not asked again for a package", "package", p.req.Digest.Short(), "host", src.String(), "error", err)
			return
		}
		pause.For(ctx, jitter(p.cfg.Retry))
	}
}

// take takes a chunk that is missing. While others are under way it waits: they
// may fail.
func (p *pull) take(ctx context.Context) (int, bool) {
	for {
		p.mu.Lock()
		if len(p.todo) > 0 {
			i := p.todo[0]
			p.todo = p.todo[1:]
			p.taken++
			p.mu.Unlock()
			return i, true
		}
		if p.taken == 0 {
			p.mu.Unlock()
			return 0, false
		}
		wake := p.wake
		p.mu.Unlock()
		select {
		case <-wake:
		case <-ctx.Done():
			return 0, false
		}
	}
}

// settle takes back chunk i if it failed, and wakes those who wait for one.
func (p *pull) settle(i int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.taken--
	if err != nil {
		p.todo = append(p.todo, i)
	}
	if err != nil || p.taken == 0 {
		close(p.wake)
		p.wake = make(chan struct{})
	}
}

// chunk fetches one chunk.
func (p *pull) chunk(ctx context.Context, src Source, i int, buf []byte) error {
	off, n := p.part.chunks.span(i)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	w := p.watch(cancel)
	defer w.stop()
	r, err := src.Read(ctx, p.req.Digest, off, n)
	if err != nil {
		return cause(ctx, err)
	}
	defer r.Close()
	if _, err := io.ReadFull(p.paced(ctx, w, r), buf[:n]); err != nil {
		return cause(ctx, err)
	}
	return p.part.put(i, buf[:n])
}

// cause prefers why a context ended to what its end led to.
func cause(ctx context.Context, err error) error {
	if c := context.Cause(ctx); c != nil {
		return c
	}
	return err
}

// errStalled ends a transfer in which nothing comes any more.
var errStalled = errors.New("nothing came for too long")

// watchdog ends a transfer that stalls.
type watchdog struct {
	timer *time.Timer
	after time.Duration
}

func (f *Fetcher) watch(cancel context.CancelCauseFunc) *watchdog {
	return &watchdog{time.AfterFunc(f.cfg.Stall, func() { cancel(errStalled) }), f.cfg.Stall}
}

func (w *watchdog) stop() { w.timer.Stop() }

// paced reads at the configured rate and tells the watchdog of what comes.
func (f *Fetcher) paced(ctx context.Context, w *watchdog, r io.Reader) io.Reader {
	return &pacedReader{ctx, f.limiter, w, r}
}

type pacedReader struct {
	ctx     context.Context
	limiter *rate.Limiter
	dog     *watchdog
	r       io.Reader
}

func (p *pacedReader) Read(b []byte) (int, error) {
	n, err := p.r.Read(b[:min(len(b), burst)])
	if n > 0 {
		p.dog.timer.Stop() // to wait for the rate is no stall
		if wait := p.limiter.WaitN(p.ctx, n); wait != nil {
			return n, wait
		}
		p.dog.timer.Reset(p.dog.after)
	}
	return n, err
}

// jitter is a random part of d.
func jitter(d time.Duration) time.Duration { return rand.N(max(d, 1)) }
