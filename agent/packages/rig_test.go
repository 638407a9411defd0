package packages

import (
	"bytes"
	"context"
	"io"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ganglion-mesh/ganglion/intent"
	"github.com/ganglion-mesh/ganglion/workload/artifact"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a host's keeper, and the store of another host that it may ask.
type rig struct {
	t     *testing.T
	k     *Keeper
	store *artifact.Store
	other *host
}

func newRig(t *testing.T, edit ...func(*Config, *artifact.Config)) *rig {
	t.Helper()
	r := &rig{t: t, other: &host{store: open(t, artifact.Config{})}}
	cfg, stored := Config{Patience: 300 * time.Millisecond, Sources: func(string) []artifact.Source { return []artifact.Source{r.other} }}, artifact.Config{}
	for _, f := range edit {
		f(&cfg, &stored)
	}
	r.store = open(t, stored)
	cfg.Store = r.store
	var err error
	if cfg.Fetcher, err = artifact.NewFetcher(artifact.FetcherConfig{Store: r.store, Retry: time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	if r.k, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { r.k.Run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
	return r
}

func open(t *testing.T, cfg artifact.Config) *artifact.Store {
	t.Helper()
	cfg.Dir = filepath.Join(t.TempDir(), "artifacts")
	if cfg.Spare == 0 {
		cfg.Spare = 1
	}
	t.Cleanup(func() { artifact.RemoveStore(cfg.Dir) })
	s, err := artifact.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// put makes a package on a host.
func put(t *testing.T, s *artifact.Store, content string) artifact.Digest {
	t.Helper()
	d, err := s.Put(t.Context(), bytes.NewReader([]byte(content)), artifact.PutOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// await waits until the state of a package is as cond says.
func (r *rig) await(run intent.Run, what string, cond func(State) bool) State {
	r.t.Helper()
	late := time.After(20 * time.Second)
	for {
		changed := r.k.Changed()
		st := r.k.Get(run)
		if cond(st) {
			return st
		}
		select {
		case <-changed:
		case <-late:
			r.t.Fatalf("never %s: %+v", what, st)
		}
	}
}

func named(d artifact.Digest) intent.Run {
	return intent.Run{Artifact: string(d), Command: []string{"./web"}}
}

// host is another host, as the keeper sees it.
type host struct {
	store *artifact.Store
	mu    sync.Mutex
	rot   bool // every chunk comes with a flipped bit
	deaf  bool
}

func (*host) String() string { return "h2" }

func (h *host) set(f func(*host)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f(h)
}

func (h *host) Describe(_ context.Context, d artifact.Digest) (artifact.Described, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.deaf {
		return artifact.Described{}, context.DeadlineExceeded
	}
	c, err := h.store.Chunks(d)
	return artifact.Described{Chunks: c}, err
}

func (h *host) Read(_ context.Context, d artifact.Digest, off, n int64) (io.ReadCloser, error) {
	f, err := h.store.Open(d)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, n)
	if _, err := f.ReadAt(b, off); err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.rot {
		b[0] ^= 1
	}
	return io.NopCloser(bytes.NewReader(b)), nil
}
