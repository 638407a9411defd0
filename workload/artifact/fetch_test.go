package artifact

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/pause"
)

// peer is a host that has packages, and may be ill in many ways.
type peer struct {
	name string
	has  map[Digest][]byte
	lie  *Chunks                                      // told instead of the truth
	bad  func(off int64, b []byte) (io.Reader, error) // what is read instead
	slow func(ctx context.Context)                    // before each answer
	read atomic.Int64                                 // bytes asked for
	mu   sync.Mutex
	asks []int64 // offsets
}

func (p *peer) String() string { return p.name }

func (p *peer) Describe(_ context.Context, d Digest) (Described, error) {
	data, ok := p.has[d]
	if !ok {
		return Described{}, ErrAbsent
	}
	if p.lie != nil {
		return Described{Chunks: *p.lie}, nil
	}
	sum := newChunker()
	sum.Write(data)
	_, c := sum.finish()
	return Described{Chunks: c, Name: "web.tar"}, nil
}

func (p *peer) Read(ctx context.Context, d Digest, off, n int64) (io.ReadCloser, error) {
	p.read.Add(n)
	p.mu.Lock()
	p.asks = append(p.asks, off)
	p.mu.Unlock()
	if p.slow != nil {
		p.slow(ctx)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	b := p.has[d][off : off+n]
	if p.bad != nil {
		r, err := p.bad(off, b)
		return io.NopCloser(r), err
	}
	return io.NopCloser(bytes.NewReader(b)), nil
}

func peers(n int, data []byte) (Digest, []*peer) {
	sum := newChunker()
	sum.Write(data)
	d, _ := sum.finish()
	var out []*peer
	for i := range n {
		out = append(out, &peer{name: fmt.Sprintf("h%d", i+1), has: map[Digest][]byte{d: data}})
	}
	return d, out
}

func sources(ps ...*peer) (out []Source) {
	for _, p := range ps {
		out = append(out, p)
	}
	return out
}

func newFetcher(t *testing.T, s *Store, edit ...func(*FetcherConfig)) *Fetcher {
	t.Helper()
	cfg := FetcherConfig{Store: s, Retry: time.Millisecond, Stall: 5 * time.Second}
	for _, f := range edit {
		f(&cfg)
	}
	f, err := NewFetcher(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func checkFetched(t *testing.T, s *Store, d Digest, data []byte) {
	t.Helper()
	f, err := s.Open(d)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got, _ := io.ReadAll(f); !bytes.Equal(got, data) {
		t.Errorf("%d bytes that are not those of the package", len(got))
	}
	if left := content(t, s.path(dirParts)); len(left) > 0 {
		t.Errorf("parts are left")
	}
}

func TestFetchFromAll(t *testing.T) {
	data := noise(1, 20*ChunkSize+5)
	d, ps := peers(3, data)
	for _, p := range ps {
		p.slow = func(ctx context.Context) { pause.For(ctx, 2*time.Millisecond) }
	}
	s := newStore(t)
	var told atomic.Int64
	err := newFetcher(t, s).Fetch(t.Context(), Request{
		Digest: d, Sources: sources(append(ps, &peer{name: "none"})...), Progress: func(done, _ int64, _ string) { told.Store(done) },
	})
	if err != nil {
		t.Fatal(err)
	}
	checkFetched(t, s, d, data)
	if s.Name(d) != "web.tar" || told.Load() != int64(len(data)) {
		t.Errorf("name %q, told %d", s.Name(d), told.Load())
	}
	total := int64(0)
	for _, p := range ps {
		if total += p.read.Load(); p.read.Load() == 0 {
			t.Errorf("%s was not used", p.name)
		}
	}
	if total != int64(len(data)) {
		t.Errorf("%d bytes read for %d", total, len(data))
	}
}

// TestIllSources: whatever some of the sources do, the package comes, whole and
// right, as long as one is honest, and no byte too many comes for it.
func TestIllSources(t *testing.T) {
	data := noise(2, 9*ChunkSize)
	flipped := bytes.Clone(data)
	flipped[5*ChunkSize+77] ^= 4
	for name, ill := range map[string]func(p *peer, d Digest){
		"a flipped bit":        func(p *peer, d Digest) { p.has[d] = flipped; p.lie = chunksOf(data) },
		"all of it is another": func(p *peer, d Digest) { p.has[d] = noise(3, len(data)) },
		"it is longer":         func(p *peer, d Digest) { p.has[d] = append(bytes.Clone(data), 1) },
		"cuts off": func(p *peer, _ Digest) {
			p.bad = func(_ int64, b []byte) (io.Reader, error) { return bytes.NewReader(b[:1000]), nil }
		},
		"breaks": func(p *peer, _ Digest) {
			p.bad = func(int64, []byte) (io.Reader, error) { return nil, io.ErrUnexpectedEOF }
		},
		"nonsense": func(p *peer, _ Digest) { p.lie = &Chunks{Size: 1 << 50, Sums: [][]byte{{1}}} },
		"stalls":   func(p *peer, _ Digest) { p.slow = func(ctx context.Context) { <-ctx.Done() } },
	} {
		t.Run(name, func(t *testing.T) {
			d, ps := peers(3, data)
			ill(ps[0], d)
			ill(ps[1], d)
			s := newStore(t)
			f := newFetcher(t, s, func(c *FetcherConfig) {
				if name == "stalls" {
					c.Stall = 100 * time.Millisecond
				}
			})
			if err := f.Fetch(t.Context(), Request{Digest: d, Sources: sources(ps...)}); err != nil {
				t.Fatal(err)
			}
			checkFetched(t, s, d, data)
			if name == "a flipped bit" && ps[0].read.Load()+ps[1].read.Load()+ps[2].read.Load() > int64(len(data))+4*ChunkSize {
				t.Error("more than the bad chunks was fetched again")
			}
		})
	}
}

func chunksOf(data []byte) *Chunks {
	sum := newChunker()
	sum.Write(data)
	_, c := sum.finish()
	return &c
}

func TestNobodyHonest(t *testing.T) {
	data := noise(4, 3*ChunkSize)
	d, ps := peers(2, data)
	ps[0].has[d], ps[1].has[d] = noise(5, len(data)), noise(6, 100)
	s := newStore(t)
	f := newFetcher(t, s)
	if err := f.Fetch(t.Context(), Request{Digest: d, Sources: sources(ps...)}); !errors.Is(err, ErrCorrupt) {
		t.Errorf("all wrong: %v", err)
	}
	if s.Has(d) || len(s.List()) > 0 {
		t.Error("it is visible")
	}
	if err := f.Fetch(t.Context(), Request{Digest: d, Sources: sources(&peer{name: "h9"})}); !errors.Is(err, ErrAbsent) {
		t.Errorf("nobody has it: %v", err)
	}
	ps[0].has[d] = data
	if err := f.Fetch(t.Context(), Request{Digest: d, Sources: sources(ps...)}); err != nil {
		t.Errorf("once one has it: %v", err)
	}
	checkFetched(t, s, d, data)
}

// TestResume: a fetch that is cut off goes on from what is there, by the next
// agent too, and what the crash has damaged is fetched again.
func TestResume(t *testing.T) {
	data := noise(7, 12*ChunkSize+9)
	d, ps := peers(1, data)
	ctx, cancel := context.WithCancel(t.Context())
	var n atomic.Int32
	ps[0].slow = func(context.Context) {
		if n.Add(1) == 7 {
			cancel()
		}
	}
	s := newStore(t)
	if err := newFetcher(t, s).Fetch(ctx, Request{Digest: d, Sources: sources(ps...)}); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	before := ps[0].read.Load()
	s = openStore(t, s.cfg.Dir)
	p, err := s.openPart(d, *chunksOf(data))
	if err != nil {
		t.Fatal(err)
	}
	have := len(p.have) - p.left
	if have < 4 {
		t.Fatalf("%d chunks are there", have)
	}
	first := p.missing()[0]
	damaged := 0
	if first == 0 {
		damaged = 1
	}
	p.f.WriteAt([]byte("torn"), int64(damaged)*ChunkSize+100)
	p.close()
	ps[0].slow = nil
	if err := newFetcher(t, s).Fetch(t.Context(), Request{Digest: d, Sources: sources(ps...)}); err != nil {
		t.Fatal(err)
	}
	checkFetched(t, s, d, data)
	if again := ps[0].read.Load() - before; again > int64(len(data))-int64(have-1)*ChunkSize {
		t.Errorf("%d bytes fetched after %d chunks were there", again, have)
	}
}

func TestRate(t *testing.T) {
	data := noise(8, ChunkSize)
	d, ps := peers(2, data)
	f := newFetcher(t, newStore(t), func(c *FetcherConfig) { c.Rate = 8 << 20; c.Stall = 20 * time.Millisecond })
	begun := time.Now()
	if err := f.Fetch(t.Context(), Request{Digest: d, Sources: sources(ps...)}); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begun); took < 200*time.Millisecond {
		t.Errorf("2 MiB at 8 MiB/s came in %s", took)
	}
}

func TestNoRoom(t *testing.T) {
	data := noise(9, 2*ChunkSize)
	d, ps := peers(1, data)
	s := newStore(t)
	s.cfg.Spare = 1 << 60
	var space *SpaceError
	f := newFetcher(t, s)
	if err := f.Fetch(t.Context(), Request{Digest: d, Sources: sources(ps...)}); !errors.As(err, &space) || ps[0].read.Load() > 0 {
		t.Errorf("%v after %d bytes", err, ps[0].read.Load())
	}
	s.cfg.Spare = 1
	if err := f.Fetch(t.Context(), Request{Digest: d, Sources: sources(ps...)}); err != nil {
		t.Errorf("once there is room: %v", err)
	}
}

// site is a server outside of the mesh.
type site struct {
	*httptest.Server
	data   []byte
	cutAt  atomic.Int64 // an answer ends there, once
	ranges []string
	seen   []http.Header
}

func newSite(t *testing.T, data []byte) *site {
	s := &site{data: data}
	s.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.seen = append(s.seen, r.Header)
		switch {
		case strings.HasPrefix(r.URL.Path, "/to/"):
			http.Redirect(w, r, strings.TrimPrefix(r.URL.Path, "/to/"), http.StatusFound)
		case r.URL.Path == "/loop":
			http.Redirect(w, r, "/loop", http.StatusFound)
		case r.URL.Path == "/gone":
			http.NotFound(w, r)
		default:
			s.ranges = append(s.ranges, r.Header.Get("Range"))
			if at := s.cutAt.Swap(0); at > 0 {
				w.Header().Set("Content-Length", fmt.Sprint(len(s.data)))
				w.Write(s.data[:at])
				panic(http.ErrAbortHandler)
			}
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(s.data))
		}
	}))
	t.Cleanup(s.Close)
	return s
}

// client trusts the site, and else follows the rules of the real one.
func (s *site) client() *http.Client {
	c := s.Server.Client()
	c.CheckRedirect = originClient().CheckRedirect
	return c
}

func TestFetchFromURL(t *testing.T) {
	data := noise(10, 3<<20)
	d, none := peers(1, data)
	none[0].has = nil
	srv := newSite(t, data)
	srv.cutAt.Store(1 << 20)
	s := newStore(t)
	f := newFetcher(t, s, func(c *FetcherConfig) { c.Origin = srv.client() })
	if err := f.Fetch(t.Context(), Request{Digest: d, Sources: sources(none...), URL: srv.URL + "/rel/web-1.4.tar.gz?token=x"}); err != nil {
		t.Fatal(err)
	}
	checkFetched(t, s, d, data)
	if len(srv.ranges) != 2 || srv.ranges[1] != "bytes=1048576-" || s.Name(d) != "web-1.4.tar.gz" {
		t.Errorf("ranges %q, name %q", srv.ranges, s.Name(d))
	}
	for path, says := range map[string]string{
		"/loop": "redirects", "/to/http://127.0.0.1:1/x": "only https", "/gone": "404",
	} {
		other := Digest("sha256:" + strings.Repeat("1", 64))
		err := f.Fetch(t.Context(), Request{Digest: other, URL: srv.URL + path})
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", path, err)
		}
		if path == "/gone" && !errors.Is(err, ErrAbsent) {
			t.Errorf("gone: %v", err)
		}
	}
	for _, bad := range []string{"http://x/y", "https://u:p@x/y", "ftp://x", "https:///y"} {
		if err := f.Fetch(t.Context(), Request{Digest: "sha256:" + Digest(strings.Repeat("2", 64)), URL: bad}); !errors.Is(err, ErrRefused) {
			t.Errorf("%s: %v", bad, err)
		}
	}
	for _, h := range srv.seen {
		for _, private := range []string{"Authorization", "Cookie", "Referer"} {
			if h.Get(private) != "" {
				t.Errorf("%s was sent: %v", private, h)
			}
		}
	}
}

// TestURLWithAnotherContent: what has another digest is never visible, and the
// next try does not go on from it.
func TestURLWithAnotherContent(t *testing.T) {
	data := noise(11, 1<<20)
	d, _ := peers(0, data)
	srv := newSite(t, noise(12, 1<<20))
	s := newStore(t)
	f := newFetcher(t, s, func(c *FetcherConfig) { c.Origin = srv.client() })
	if err := f.Fetch(t.Context(), Request{Digest: d, URL: srv.URL + "/x"}); !errors.Is(err, ErrCorrupt) || s.Has(d) {
		t.Errorf("%v", err)
	}
	srv.data = data
	if err := f.Fetch(t.Context(), Request{Digest: d, URL: srv.URL + "/x"}); err != nil {
		t.Errorf("once it is right: %v", err)
	}
	checkFetched(t, s, d, data)
}
