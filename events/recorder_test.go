package events

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
)

func TestConfigIsChecked(t *testing.T) {
	for want, cfg := range map[string]RecorderConfig{
		"Dir is empty": {Host: "h1"},
		"host name":    {Dir: t.TempDir(), Host: "h/1"},
		"MaxBytes":     {Dir: t.TempDir(), Host: "h1", MaxBytes: MinMaxBytes - 1},
		"not a dir":    {Dir: "/dev/null/x", Host: "h1"},
	} {
		if _, err := OpenRecorder(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", cfg, err, want)
		}
	}
}

// Seqs count on and ids rise over restarts, with and without Run.
func TestReopen(t *testing.T) {
	dir := t.TempDir()
	var want []Event
	for round := range 5 {
		r, err := OpenRecorder(RecorderConfig{Dir: dir, Host: "h1"})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 7 {
			want = append(want, mustAppend(t, r, started(round*7+i)))
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Append(started(0)); !errors.Is(err, ErrClosed) {
			t.Errorf("Append after Close: %v", err)
		}
	}
	got := all(t, open(t, dir), 1)
	wantSeqs(t, got, 1, 35)
	for i, e := range got {
		if e.ID != want[i].ID || !bytes.Equal(e.Data, want[i].Data) {
			t.Errorf("event %d read as %+v, appended %+v", i, e, want[i])
		}
	}
	if !slices.IsSortedFunc(got, func(a, b Event) int { return strings.Compare(a.ID, b.ID) }) {
		t.Error("ids do not sort as seqs")
	}
}

func TestOneProcessAtATime(t *testing.T) {
	dir := t.TempDir()
	r := open(t, dir)
	if _, err := OpenRecorder(RecorderConfig{Dir: dir, Host: "h1"}); err == nil || !strings.Contains(err.Error(), "another agent") {
		t.Errorf("second open: %v", err)
	}
	mustAppend(t, r, started(1))
}

// Ids rise even if the wall clock jumps back, stops, or was at the end of time.
func TestIDsRiseWhateverTheClockDoes(t *testing.T) {
	var s idSource
	s.resume(tail{})
	base, last := time.Now(), ""
	for i, at := range []time.Duration{0, 0, 0, -time.Hour, time.Hour, 0, -1 << 62, 1 << 60} {
		for range 1000 {
			id := s.next(base.Add(at))
			if id <= last {
				t.Fatalf("step %d: id %s after %s", i, id, last)
			}
			last = id
		}
	}
	e := Event{SpecVersion: "1.0", ID: ulid.MustNew(ulid.MaxTime(), nil).String()}
	s.resume(tail{payload: e.appendJSON(nil)}) // would poison every later id
	if id := ulid.MustParse(s.next(base)); id.Timestamp().After(base.Add(24 * time.Hour * 365 * 60)) {
		t.Errorf("id of %s after a record from the end of time", id.Timestamp())
	}
}

// A write cut anywhere leaves everything before it, and the counter goes on.
func TestTornTail(t *testing.T) {
	src := t.TempDir()
	r := open(t, src)
	for i := range 5 {
		mustAppend(t, r, started(i))
	}
	seg := segmentPath(src, 1)
	whole, err := os.ReadFile(seg)
	if err != nil {
		t.Fatal(err)
	}
	start := bytes.LastIndex(whole, []byte(recordMagic))
	for cut := start; cut <= len(whole); cut++ {
		dir := t.TempDir()
		if err := os.WriteFile(segmentPath(dir, 1), whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		kept := uint64(4)
		if cut == len(whole) {
			kept = 5
		}
		r, err := OpenRecorder(RecorderConfig{Dir: dir, Host: "h1"})
		if err != nil {
			t.Fatal(err)
		}
		if e := mustAppend(t, r, started(9)); e.Seq != kept+1 {
			t.Errorf("cut at %d: next seq %d, want %d", cut, e.Seq, kept+1)
		}
		wantSeqs(t, all(t, r, 1), 1, kept+1)
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		if st, err := os.Stat(segmentPath(dir, 1)); err != nil || cut < len(whole) && st.Size() > int64(len(whole))+8 {
			t.Errorf("cut at %d: the torn bytes are still there: %d, %v", cut, st.Size(), err)
		}
	}
}

// A byte flipped anywhere costs at most the one record it is in.
func TestBitRot(t *testing.T) {
	src := t.TempDir()
	r := open(t, src)
	for i := range 40 {
		mustAppend(t, r, started(i))
	}
	whole, err := os.ReadFile(segmentPath(src, 1))
	if err != nil {
		t.Fatal(err)
	}
	for at := 0; at < len(whole); at += 37 {
		dir := t.TempDir()
		b := bytes.Clone(whole)
		b[at] ^= 0x41
		if err := os.WriteFile(segmentPath(dir, 1), b, 0o600); err != nil {
			t.Fatal(err)
		}
		r := open(t, dir)
		got := all(t, r, 1)
		if len(got) != 39 {
			t.Fatalf("flip at %d of %d: %d events left", at, len(whole), len(got))
		}
		if next := mustAppend(t, r, started(0)).Seq; next < got[38].Seq+1 || next > 41 {
			t.Fatalf("flip at %d: next seq %d", at, next)
		}
	}
}

// What others have seen is never counted twice, even if the ring has lost it.
func TestSeqsThatWerePublishedAreNotReused(t *testing.T) {
	dir := t.TempDir()
	if err := openCursor(dir).set(99); err != nil {
		t.Fatal(err)
	}
	r := open(t, dir)
	if e := mustAppend(t, r, started(1)); e.Seq != 100 || e.Dropped != 99 {
		t.Errorf("after a lost ring: seq %d, dropped %d", e.Seq, e.Dropped)
	}
	wantSeqs(t, all(t, r, 1), 100, 100)
}

func TestCursorSurvivesATornWrite(t *testing.T) {
	dir := t.TempDir()
	c := openCursor(dir)
	for _, seq := range []uint64{3, 8, 12} {
		if err := c.set(seq); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, cursorName)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for at := range whole {
		b := bytes.Clone(whole)
		b[at] ^= 0xff
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if seq := readCursor(dir); seq != 8 && seq != 12 {
			t.Errorf("flip at %d: cursor %d", at, seq)
		}
	}
}

func dirBytes(t testing.TB, dir string) (n int64) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			n += info.Size()
		}
	}
	return n
}

// The ring never outgrows its budget, keeps most of it in use, and what it
// keeps is the newest, without a gap, over restarts too.
func TestEviction(t *testing.T) {
	dir := t.TempDir()
	draft := New(AppSubject("web", "2"), AppNeedsHuman{Reason: strings.Repeat("x", 3000)})
	var last uint64
	for range 3 {
		r, err := OpenRecorder(RecorderConfig{Dir: dir, Host: "h1", MaxBytes: MinMaxBytes})
		if err != nil {
			t.Fatal(err)
		}
		for range 300 {
			last = mustAppend(t, r, draft).Seq
			if n := dirBytes(t, dir); n > MinMaxBytes {
				t.Fatalf("after seq %d the ring has %d bytes", last, n)
			}
		}
		got := all(t, r, 0)
		wantSeqs(t, got, r.First(), last)
		if n := dirBytes(t, dir); n < MinMaxBytes*3/4 {
			t.Errorf("only %d bytes kept", n)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if last != 900 {
		t.Errorf("last seq %d, want 900", last)
	}
}

func TestReadFromAnywhere(t *testing.T) {
	dir := t.TempDir()
	r := open(t, dir)
	draft := New(AppSubject("web", "2"), AppNeedsHuman{Reason: strings.Repeat("x", 500)})
	for range 400 {
		mustAppend(t, r, draft)
	}
	check := func(r *Recorder) {
		for from := uint64(1); from <= 401; from += 13 {
			wantSeqs(t, all(t, r, from), from, 400)
		}
		n := 0
		if err := r.Read(5, func(Event) bool { n++; return n < 3 }); err != nil || n != 3 {
			t.Errorf("Read went on after false: %d, %v", n, err)
		}
	}
	check(r)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	check(open(t, dir)) // with the marks gone
}

func TestSince(t *testing.T) {
	r := open(t, t.TempDir())
	if seq, err := r.Since(time.Time{}); seq != 1 || err != nil {
		t.Errorf("empty ring: %d, %v", seq, err)
	}
	draft := New(AppSubject("web", "2"), AppNeedsHuman{Reason: strings.Repeat("x", 4000)})
	var at []time.Time
	for range 100 { // several segments
		at = append(at, mustAppend(t, r, draft).Time)
	}
	first := r.First()
	for i, when := range at {
		want := max(uint64(i)+1, first)
		if seq, err := r.Since(when); seq != want || err != nil {
			t.Errorf("since event %d: seq %d, %v, want %d", i+1, seq, err, want)
		}
	}
	if seq, err := r.Since(time.Now().Add(time.Hour)); seq != 101 || err != nil {
		t.Errorf("since the future: %d, %v", seq, err)
	}
}

// Readers that follow see every event once and in order, while writers write
// and segments are evicted; one that never returns holds up nobody.
func TestFollowersAndASlowReader(t *testing.T) {
	r := open(t, t.TempDir())
	running(t, r.Run)
	mustAppend(t, r, started(0))
	stuck, release := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		_ = r.Read(1, func(Event) bool { close(stuck); <-release; return false })
	})
	<-stuck
	const writers, each, last = 4, 250, 1001
	for range 3 {
		wg.Go(func() {
			next := uint64(1)
			err := r.Follow(context.Background(), 1, func(e Event) bool {
				if e.Seq != next {
					t.Errorf("follower got %d, want %d", e.Seq, next)
				}
				next = e.Seq + 1
				return e.Seq < last
			})
			if err != nil {
				t.Errorf("Follow: %v", err)
			}
		})
	}
	var writing sync.WaitGroup
	for range writers {
		writing.Go(func() {
			for i := range each {
				if _, err := r.Append(started(i)); err != nil {
					t.Errorf("Append: %v", err)
				}
			}
		})
	}
	writing.Wait() // with the slow reader still in its callback
	close(release)
	wg.Wait()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := r.Follow(ctx, last+1, func(Event) bool { return true }); !errors.Is(err, context.Canceled) {
		t.Errorf("Follow after cancel: %v", err)
	}
}

// A reader whose segments are evicted under it goes on with what is left.
func TestReaderOvertakenByEviction(t *testing.T) {
	r := open(t, t.TempDir())
	draft := New(AppSubject("web", "2"), AppNeedsHuman{Reason: strings.Repeat("x", 4000)})
	for range 60 {
		mustAppend(t, r, draft)
	}
	var seen []uint64
	if err := r.Read(1, func(e Event) bool {
		if len(seen) == 0 {
			for range 300 {
				mustAppend(t, r, draft)
			}
		}
		seen = append(seen, e.Seq)
		return true
	}); err != nil {
		t.Fatal(err)
	}
	if seen[0] != 1 || !slices.IsSorted(seen) {
		t.Errorf("read %v", seen)
	}
	wantSeqs(t, all(t, r, 0), r.First(), 360)
}

func TestChangedIsLevelTriggered(t *testing.T) {
	r := open(t, t.TempDir())
	c := r.Changed()
	select {
	case <-c:
		t.Fatal("closed before anything changed")
	default:
	}
	mustAppend(t, r, started(1))
	<-c
	select {
	case <-r.Changed():
		t.Fatal("closed for a change before the call")
	default:
	}
}

// What is appended quietly is recorded like all else, and nobody is woken for it until
// it is announced, be it by another event.
func TestQuietlyAppended(t *testing.T) {
	for name, announce := range map[string]func(*Recorder){
		"announced": (*Recorder).Announce,
		"followed":  func(r *Recorder) { mustAppend(t, r, New("app/web/2", AppReady{})) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			r := open(t, dir)
			changed := r.Changed()
			e, err := r.AppendQuietly(New("app/web/2", AppReady{}))
			if err != nil || e.Seq != 1 {
				t.Fatalf("%+v, %v", e, err)
			}
			select {
			case <-changed:
				t.Fatal("a reader was woken")
			default:
			}
			announce(r)
			<-changed
			if got := all(t, r, 1); len(got) == 0 || got[0].ID != e.ID {
				t.Errorf("read %+v", got)
			}
		})
	}
	dir := t.TempDir()
	r := open(t, dir)
	e, err := r.AppendQuietly(New("app/web/2", AppReady{}))
	if err := errors.Join(err, r.Close()); err != nil {
		t.Fatal(err)
	}
	if got := all(t, open(t, dir), 1); len(got) != 1 || got[0].ID != e.ID {
		t.Errorf("the next life reads %+v", got)
	}
}
