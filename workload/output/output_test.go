package output

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ganglion-mesh/ganglion/pause"
	"github.com/ganglion-mesh/ganglion/workload"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var web = workload.CopyID{App: "web", N: 1}

func store(t testing.TB, limit int64) *Store {
	t.Helper()
	s, err := New(Config{Dir: filepath.Join(t.TempDir(), "output"), MaxBytes: limit, Interval: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func opened(t testing.TB, s *Store) (out, errs *os.File) {
	t.Helper()
	out, errs, err := s.Open(web, Self)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { out.Close(); errs.Close() })
	return out, errs
}

// all reads both streams to their ends.
func all(t testing.TB, s *Store, opt ReadOptions) (out, errs string, at Cursor) {
	t.Helper()
	at = opt.From
	err := s.Read(context.Background(), web, opt, func(c Chunk) error {
		at = c.Next
		if c.Stream == Stdout {
			out += string(c.Data)
		} else {
			errs += string(c.Data)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out, errs, at
}

func TestReadAndResume(t *testing.T) {
	s := store(t, 0)
	if err := s.Read(context.Background(), web, ReadOptions{}, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no output: %v", err)
	}
	out, errs := opened(t, s)
	fmt.Fprint(out, "one\ntwo\n")
	fmt.Fprint(errs, "bad\n")
	o, e, at := all(t, s, ReadOptions{})
	if o != "one\ntwo\n" || e != "bad\n" || at != (Cursor{Stdout: 8, Stderr: 4}) {
		t.Errorf("%q %q %+v", o, e, at)
	}
	fmt.Fprint(out, "three") // the end of a line may be missing at the end of all
	if o, e, _ := all(t, s, ReadOptions{From: at}); o != "three" || e != "" {
		t.Errorf("resumed: %q %q", o, e)
	}
	if o, _, _ := all(t, s, ReadOptions{Tail: 2}); o != "two\nthree" {
		t.Errorf("tail: %q", o)
	}
	if o, _, _ := all(t, s, ReadOptions{Tail: 99}); o != "one\ntwo\nthree" {
		t.Errorf("long tail: %q", o)
	}
	stop := errors.New("enough")
	if err := s.Read(context.Background(), web, ReadOptions{}, func(Chunk) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("the callback's error became %v", err)
	}
}

// The last lines are the same however long lines are, within the last MiB.
func TestTailOfLongLines(t *testing.T) {
	for _, long := range []int{1, 100, glanceBytes - 1, glanceBytes, glanceBytes + 1, 70_000, 400_000} {
		s := store(t, 64<<20)
		out, _ := opened(t, s)
		var want string
		for n := range 5 {
			line := strings.Repeat(string(rune('a'+n)), long) + "\n"
			fmt.Fprint(out, line)
			if n > 2 {
				want += line
			}
		}
		if o, _, _ := all(t, s, ReadOptions{Tail: 2}); o != want {
			t.Errorf("lines of %d bytes: read %d bytes, want the last %d", long, len(o), len(want))
		}
	}
}

func TestRotationKeepsPlacesAndBounds(t *testing.T) {
	s := store(t, 1000)
	out, _ := opened(t, s)
	var written bytes.Buffer
	var at Cursor
	var got strings.Builder
	for i := range 500 {
		line := fmt.Sprintf("line %d of the output\n", i)
		written.WriteString(line)
		fmt.Fprint(out, line)
		if i%7 == 0 {
			if err := s.Rotate(); err != nil {
				t.Fatal(err)
			}
		}
		if i%20 == 0 {
			o, _, next := all(t, s, ReadOptions{From: at})
			got.WriteString(o)
			at = next
		}
	}
	o, _, end := all(t, s, ReadOptions{From: at})
	got.WriteString(o)
	if got.String() != written.String() {
		t.Error("a reader that kept up has not read what was written")
	}
	if end.Stdout != int64(written.Len()) {
		t.Errorf("ended at %d of %d", end.Stdout, written.Len())
	}
	kept, _, _ := all(t, s, ReadOptions{})
	if !strings.HasSuffix(written.String(), kept) || len(kept) < 2000 || len(kept) > 4000 {
		t.Errorf("%d bytes are kept; are they the last: %v", len(kept), strings.HasSuffix(written.String(), kept))
	}
	dir := filepath.Join(s.cfg.Dir, dirOf(web))
	files, _ := filepath.Glob(filepath.Join(dir, "stdout*"))
	if hidden, _ := filepath.Glob(filepath.Join(dir, ".*")); len(files) != 3 || len(hidden) != 0 {
		t.Errorf("files %v and %v, want three", files, hidden)
	}
	if o, _, _ := all(t, s, ReadOptions{Tail: 3}); o != strings.Join(strings.SplitAfter(written.String(), "\n")[497:500], "") {
		t.Errorf("tail over pieces: %q", o)
	}
	if o, _, _ := all(t, s, ReadOptions{From: Cursor{Stdout: 5}}); o != kept {
		t.Error("a place that is gone is not the oldest one kept")
	}
}

// A store of the next life goes on where the last one was.
func TestReopen(t *testing.T) {
	s := store(t, 10)
	out, _ := opened(t, s)
	fmt.Fprint(out, "0123456789abcdefghij\nabc\n")
	if err := s.Rotate(); err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(out, "def\n")
	again, err := New(s.cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	again.Track(web)
	// Of 25 bytes over a limit of 10 those before the last 20 are skipped.
	if o, _, at := all(t, again, ReadOptions{}); o != "56789abcdefghij\nabc\ndef\n" || at.Stdout != 29 {
		t.Errorf("%q, %+v", o, at)
	}
}

// A follower misses nothing while the files rotate under it. The writer waits
// for each rotation's end: what is written in the middle of one may be lost.
func TestFollow(t *testing.T) {
	s := store(t, 200)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	var writing sync.Mutex
	run := make(chan error, 1)
	go func() {
		var err error
		for err == nil && pause.For(ctx, time.Millisecond) {
			writing.Lock()
			err = s.Rotate()
			writing.Unlock()
		}
		run <- err
	}()
	got := make(chan string, 1000)
	done := make(chan error, 1)
	go func() {
		done <- s.Read(ctx, web, ReadOptions{Follow: true}, func(c Chunk) error {
			got <- string(c.Data)
			return nil
		})
	}()
	out, _ := opened(t, s) // after the reader has come
	var want, have string
	for i := range 40 {
		line := fmt.Sprintf("line %d of the output\n", i)
		want += line
		for _, part := range []string{line[:5], line[5:]} {
			writing.Lock()
			fmt.Fprint(out, part)
			writing.Unlock()
		}
		for len(have) < len(want) { // rotation goes on beside this
			select {
			case d := <-got:
				have += d
			case <-ctx.Done():
				t.Fatalf("waited in vain after %q", have)
			}
		}
	}
	writing.Lock()
	fmt.Fprint(out, "unfinished")
	writing.Unlock()
	if d := <-got; d != "unfinished" {
		t.Errorf("a line without end: %q", d)
	}
	if have != want {
		t.Errorf("followed\n%q\nwant\n%q", have, want)
	}
	cancel()
	if err := errors.Join(<-done, <-run); err != nil {
		t.Error(err)
	}
}

// Run bounds the files of copies that go on writing, and loses next to nothing.
func TestRun(t *testing.T) {
	s := store(t, 1000)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	run := make(chan error, 1)
	go func() { run <- s.Run(ctx) }()
	out, _ := opened(t, s)
	path, _ := s.Paths(web)
	for rotated, size := 0, int64(0); rotated < 5; {
		fmt.Fprint(out, "a line of forty bytes, its end counted.\n")
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Size() < size {
			rotated++
		}
		size = info.Size()
	}
	cancel()
	if err := <-run; err != nil {
		t.Error(err)
	}
	if files, err := filepath.Glob(filepath.Join(filepath.Dir(path), "stdout.*")); err != nil || len(files) != 3 {
		t.Errorf("%d files, %v: want 3", len(files), err)
	}
}

// The copy has its own file open for writing and may do with it what it likes.
func TestHostileWriter(t *testing.T) {
	s := store(t, 1000)
	out, _ := opened(t, s)
	fmt.Fprint(out, strings.Repeat("x", 500)+"\n")
	_, _, at := all(t, s, ReadOptions{})
	if err := out.Truncate(0); err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(out, "after\n")
	if o, _, next := all(t, s, ReadOptions{From: at}); o != "" || next != at {
		t.Logf("after a cut: %q", o) // either way it must end
	}
	if err := out.Truncate(1 << 40); err != nil {
		t.Skipf("needs sparse files: %v", err)
	}
	if err := s.Rotate(); err != nil {
		t.Fatal(err)
	}
	o, _, _ := all(t, s, ReadOptions{})
	if len(o) > 3000 {
		t.Errorf("%d bytes of a terabyte of holes are kept", len(o))
	}
}

func TestNoLinkIsFollowed(t *testing.T) {
	s := store(t, 0)
	victim := filepath.Join(t.TempDir(), "victim")
	if err := os.WriteFile(victim, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	path, _ := s.Paths(web)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, path); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Open(web, Self); err == nil {
		t.Error("a link was opened for writing")
	}
	if err := s.Read(context.Background(), web, ReadOptions{}, func(c Chunk) error {
		t.Errorf("read %q through a link", c.Data)
		return nil
	}); err == nil {
		t.Error("a link was opened for reading")
	}
	if err := s.Purge(web); err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(victim); string(b) != "precious" {
		t.Errorf("the victim holds %q", b)
	}
}

func TestPurge(t *testing.T) {
	s := store(t, 0)
	opened(t, s)
	if err := s.Purge(web); err != nil {
		t.Fatal(err)
	}
	if err := s.Purge(web); err != nil {
		t.Errorf("again: %v", err)
	}
	if _, err := os.Stat(filepath.Join(s.cfg.Dir, web.App)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the app's directory: %v", err)
	}
	if err := s.Rotate(); err != nil {
		t.Errorf("rotate after purge: %v", err)
	}
}

// A disk that takes no more must not let a copy's file grow.
func TestRotateWithoutRoom(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("needs an ordinary user: root writes where it may not")
	}
	s := store(t, 10)
	out, _ := opened(t, s)
	fmt.Fprint(out, strings.Repeat("x", 100))
	dir := filepath.Dir(out.Name())
	if err := os.Chmod(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	defer os.Chmod(dir, 0o700)
	if err := s.Rotate(); err == nil {
		t.Error("output was lost without a word")
	}
	if info, err := out.Stat(); err != nil || info.Size() != 0 {
		t.Errorf("the file has %d bytes, %v", info.Size(), err)
	}
}

func TestConfig(t *testing.T) {
	for _, bad := range []Config{{}, {Dir: "x", Keep: 1}, {Dir: "x", MaxBytes: -1}} {
		if _, err := New(bad); err == nil {
			t.Errorf("%+v was accepted", bad)
		}
	}
}
