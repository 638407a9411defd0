package packages

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/intent"
	"github.com/ganglion-mesh/ganglion/workload/artifact"
)

func TestRefOf(t *testing.T) {
	digest := "sha256:" + strings.Repeat("ab", 32)
	for _, c := range []struct {
		run intent.Run
		ref Ref
		ok  bool
		bad bool
	}{
		{run: intent.Run{Command: []string{"/bin/true"}}},
		{run: intent.Run{Artifact: digest, Command: []string{"bin/web", "x"}}, ref: Ref{artifact.Digest(digest), "", "web"}, ok: true},
		{run: intent.Run{Artifact: digest, Command: []string{"/bin/sh"}}, ref: Ref{artifact.Digest(digest), "", ""}, ok: true},
		{run: intent.Run{Artifact: "https://x/y/z.bin?q=1", Digest: digest}, ref: Ref{artifact.Digest(digest), "https://x/y/z.bin?q=1", "z.bin"}, ok: true},
		{run: intent.Run{Artifact: "/srv/web"}, bad: true},
		{run: intent.Run{Artifact: "https://x/y"}, bad: true},
	} {
		ref, ok, err := RefOf(c.run)
		if ok != c.ok || (err != nil) != c.bad || ok && ref != c.ref {
			t.Errorf("%+v: %+v, %v, %v", c.run, ref, ok, err)
		}
	}
}

func TestPackagesCome(t *testing.T) {
	r := newRig(t)
	if st := r.k.Get(intent.Run{}); !st.Ready || st.Dir != "" {
		t.Errorf("no package: %+v", st)
	}
	if st := r.k.Get(intent.Run{Artifact: "/srv/web"}); !st.Failed || st.Why == "" {
		t.Errorf("a path: %+v", st)
	}
	d := put(t, r.other.store, "#!/bin/sh\n")
	if st := r.k.Get(named(d)); st.Ready || st.Failed || st.Why == "" {
		t.Errorf("at once: %+v", st)
	}
	st := r.await(named(d), "ready", func(s State) bool { return s.Ready })
	if st.Why != "" || st.Failed {
		t.Errorf("%+v", st)
	}
	if b, err := os.ReadFile(filepath.Join(st.Dir, "web")); err != nil || string(b) != "#!/bin/sh\n" {
		t.Errorf("%q, %v", b, err)
	}
	artifact.RemoveStore(st.Dir) // somebody tidies up
	r.await(named(d), "ready again", func(s State) bool { return s.Ready })
}

// TestAdmit: what may not be unpacked is fetched and no more, told as the
// package's own fault, and comes once it may. What is unpacked is not asked about
// again.
func TestAdmit(t *testing.T) {
	var let atomic.Bool
	asked := make(chan artifact.Digest, 1000)
	r := newRig(t, func(c *Config, _ *artifact.Config) {
		c.Admit = func(_ context.Context, d artifact.Digest) error {
			asked <- d
			if !let.Load() {
				return fmt.Errorf("%w: nobody has signed it", artifact.ErrRefused)
			}
			return nil
		}
	})
	d := put(t, r.other.store, "#!/bin/sh\n")
	st := r.await(named(d), "refused", func(s State) bool { return s.Failed })
	if !strings.Contains(st.Why, "nobody has signed it") || !r.store.Has(d) {
		t.Errorf("%+v", st)
	}
	if _, ok := r.store.Tree(d, "web"); ok {
		t.Error("it was unpacked")
	}
	let.Store(true)
	r.await(named(d), "ready", func(s State) bool { return s.Ready })
	let.Store(false)
	if n := len(asked); !r.k.Get(named(d)).Ready || len(asked) != n {
		t.Error("what runs depends on a question that was answered")
	}
	if got := <-asked; got != d {
		t.Errorf("asked about %s", got)
	}
}

// TestWhatFails: what passes by itself is no fault of the package; what does not
// is, after a while, and it is tried on.
func TestWhatFails(t *testing.T) {
	r := newRig(t)
	d := artifact.Digest("sha256:" + strings.Repeat("0", 64))
	st := r.await(named(d), "tried", func(s State) bool { return strings.Contains(s.Why, "at any of 1 hosts") })
	if st.Failed {
		t.Errorf("at once: %+v", st)
	}
	r.await(named(d), "failed", func(s State) bool { return s.Failed })

	d = put(t, r.other.store, "program")
	r.other.set(func(h *host) { h.rot = true })
	r.await(named(d), "failed for rot", func(s State) bool { return s.Failed && strings.Contains(s.Why, "digest") })
	r.other.set(func(h *host) { h.rot = false })
	r.await(named(d), "ready", func(s State) bool { return s.Ready })

	d = put(t, r.other.store, "another")
	r.other.set(func(h *host) { h.deaf = true })
	r.await(named(d), "told", func(s State) bool { return strings.Contains(s.Why, "could not be asked") })
	time.Sleep(400 * time.Millisecond) // longer than the patience
	if st := r.k.Get(named(d)); st.Failed {
		t.Errorf("for a host that is not reached: %+v", st)
	}
	r.other.set(func(h *host) { h.deaf = false })
	r.await(named(d), "ready", func(s State) bool { return s.Ready })

	d = put(t, r.other.store, "\xfd7zXZ\x00")
	r.await(named(d), "refused", func(s State) bool { return s.Failed && strings.Contains(s.Why, "refused") })
}

func TestWantedAndCollected(t *testing.T) {
	r := newRig(t, func(c *Config, _ *artifact.Config) {
		c.Bound, c.Grace, c.Tend = 1, 200*time.Millisecond, 20*time.Millisecond
	})
	run, share, pinned := put(t, r.other.store, "run"), put(t, r.other.store, "share"), put(t, r.store, "pinned")
	idle := put(t, r.store, "idle")
	time.Sleep(300 * time.Millisecond)
	if !r.store.Has(idle) {
		t.Fatal("removed before it is known what is needed")
	}
	w := Wanted{Unpacked: []Ref{{Digest: run, Plain: "web"}}, Stored: []Ref{{Digest: share}}, Pinned: map[artifact.Digest]bool{pinned: true}}
	r.k.Want(w)
	r.await(named(run), "ready", func(s State) bool { return s.Ready })
	eventually(t, "the share is here and the idle one gone", func() bool { return r.store.Has(share) && !r.store.Has(idle) })
	if !r.store.Has(pinned) || !r.store.Has(run) || len(r.store.List()) != 3 {
		t.Errorf("left: %v", r.store.List())
	}
	if err := r.k.Remove(pinned); err == nil {
		t.Error("a pinned package was removed by hand")
	}
	if _, ok := r.store.Tree(share, ""); ok {
		t.Error("the share is unpacked")
	}
	r.k.Want(Wanted{})
	eventually(t, "all is gone", func() bool { return len(r.store.List()) == 0 })
}

func TestSpaceIsMade(t *testing.T) {
	r := newRig(t, func(c *Config, a *artifact.Config) { c.Grace, a.Spare = time.Millisecond, 1<<60 })
	d := put(t, r.other.store, "program")
	r.k.Want(Wanted{})
	st := r.await(named(d), "told", func(s State) bool { return strings.Contains(s.Why, "no space") })
	if st.Failed {
		t.Errorf("a full disk is blamed on the package: %+v", st)
	}
}

func TestFetchForOthers(t *testing.T) {
	r := newRig(t)
	d := put(t, r.other.store, "\xfd7zXZ\x00") // cannot be unpacked, and need not be
	r.k.Want(Wanted{})
	r.k.Fetch(d, "h2")
	eventually(t, "fetched", func() bool { return r.k.Fetch(d, "h2").Ready })
}

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

func TestShare(t *testing.T) {
	hosts := []string{"h1", "h2", "h3", "h4", "h5"}
	first := map[string]int{}
	for i := range 500 {
		d := artifact.Digest("sha256:" + strings.Repeat(string(rune('a'+i%26)), i))
		order := Share(d, hosts)
		first[order[0]]++
		if again := Share(d, []string{"h5", "h3", "h1", "h2", "h4"}); !slices.Equal(order, again) {
			t.Fatalf("%v and %v", order, again)
		}
		without := slices.DeleteFunc(slices.Clone(order), func(h string) bool { return h == "h3" })
		if got := Share(d, []string{"h1", "h2", "h4", "h5"}); !slices.Equal(got, without) {
			t.Fatalf("a host that goes moves others: %v, %v", order, got)
		}
	}
	for _, h := range hosts {
		if first[h] < 60 {
			t.Errorf("not spread: %v", first)
		}
	}
}
