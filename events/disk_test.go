package events

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// faultyFile is a segment whose disk misbehaves as told.
type faultyFile struct {
	ringFile
	fault *faults
}

type faults struct {
	writeErr, syncErr, truncErr error
	partial                     bool // failing writes leave half of the record
	syncs                       atomic.Int64
}

func (f *faultyFile) Write(b []byte) (int, error) {
	if f.fault.writeErr == nil {
		return f.ringFile.Write(b)
	}
	n := 0
	if f.fault.partial {
		n, _ = f.ringFile.Write(b[:len(b)/2])
	}
	return n, f.fault.writeErr
}

func (f *faultyFile) Sync() error {
	f.fault.syncs.Add(1)
	return errors.Join(f.fault.syncErr, f.ringFile.Sync())
}

func (f *faultyFile) Truncate(n int64) error {
	return errors.Join(f.fault.truncErr, f.ringFile.Truncate(n))
}

// openFaulty opens a ring whose disk fails as the returned faults say.
func openFaulty(t *testing.T, dir string) (*Recorder, *faults) {
	t.Helper()
	r, f := open(t, dir), &faults{}
	inner := r.ring.create
	r.ring.create = func(path string) (ringFile, error) {
		file, err := inner(path)
		return &faultyFile{ringFile: file, fault: f}, err
	}
	return r, f
}

// A disk that takes no more writes costs the events of that time, which are
// counted, and nothing else: no seq, no order, no later event.
func TestFailingWrites(t *testing.T) {
	for _, partial := range []bool{false, true} {
		for _, truncErr := range []error{nil, errors.New("truncate: EIO")} {
			dir := t.TempDir()
			r, f := openFaulty(t, dir)
			for i := range 3 {
				mustAppend(t, r, started(i))
			}
			f.writeErr, f.partial, f.truncErr = syscall.EIO, partial, truncErr
			for range 4 {
				if _, err := r.Append(started(0)); !errors.Is(err, syscall.EIO) {
					t.Fatalf("Append on a failing disk: %v", err)
				}
			}
			wantSeqs(t, all(t, r, 1), 1, 3)
			f.writeErr = nil
			if e := mustAppend(t, r, started(4)); e.Seq != 4 || e.Dropped != 4 {
				t.Errorf("after the disk is back: seq %d dropped %d", e.Seq, e.Dropped)
			}
			if e := mustAppend(t, r, started(5)); e.Dropped != 0 {
				t.Errorf("dropped is told twice: %+v", e)
			}
			wantSeqs(t, all(t, r, 1), 1, 5)
			f.truncErr = nil
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
			wantSeqs(t, all(t, open(t, dir), 1), 1, 5)
		}
	}
}

// After a failed fsync the file is left alone, the caller is told once, and
// the story goes on in a new file.
func TestFailingSync(t *testing.T) {
	dir := t.TempDir()
	r, f := openFaulty(t, dir)
	mustAppend(t, r, started(1))
	f.syncErr = syscall.EIO
	if err := r.Sync(); !errors.Is(err, syscall.EIO) {
		t.Fatalf("Sync: %v", err)
	}
	f.syncErr = nil
	mustAppend(t, r, started(2))
	if err := r.Sync(); err != nil {
		t.Errorf("Sync of the new file: %v", err)
	}
	if r.synced.level() != 2 {
		t.Errorf("the publisher may send up to %d, want 2", r.synced.level())
	}
	wantSeqs(t, all(t, r, 1), 1, 2)
	if _, err := os.Stat(segmentPath(dir, 2)); err != nil {
		t.Errorf("no new file after a failed fsync: %v", err)
	}
}

// Each event is fsynced within 100 ms of its append, a burst costs few
// fsyncs, and an idle recorder none at all.
func TestSyncPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f := openFaulty(t, t.TempDir())
		stop := running(t, r.Run)
		synctest.Wait()
		for range 100 {
			e := mustAppend(t, r, started(1))
			time.Sleep(100 * time.Millisecond)
			if got := r.synced.level(); got < e.Seq {
				t.Fatalf("100 ms after event %d only %d is on disk", e.Seq, got)
			}
		}
		before := f.syncs.Load()
		for range 1000 {
			mustAppend(t, r, started(1))
			time.Sleep(time.Millisecond)
		}
		if n := f.syncs.Load() - before; n > 25+8 { // a rotation costs one more
			t.Errorf("%d fsyncs in one second", n)
		}
		time.Sleep(time.Second)
		before = f.syncs.Load()
		time.Sleep(time.Hour)
		if n := f.syncs.Load() - before; n != 0 {
			t.Errorf("%d fsyncs in an idle hour", n)
		}
		mustAppend(t, r, started(1))
		stop() // syncs once more
		if r.synced.level() != r.Last() {
			t.Errorf("stopped with %d of %d on disk", r.synced.level(), r.Last())
		}
	})
}

// writeForEver is the process that TestKillNine kills: it says each seq on
// stdout once Append has returned.
func writeForEver(dir string) int {
	r, err := OpenRecorder(RecorderConfig{Dir: dir, Host: "h1", MaxBytes: MinMaxBytes})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for {
		e, err := r.Append(started(rand.IntN(1 << 30)))
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		fmt.Println(e.Seq)
	}
}

// Killed at any moment, nothing that was acknowledged is lost, and the next
// process counts on.
func TestKillNine(t *testing.T) {
	dir := t.TempDir()
	var acked uint64
	for round := range 12 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "EVENTS_TEST_WRITER="+dir)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for n, stop := 0, 1+rand.IntN(600); n < stop && lines.Scan(); n++ {
			acked = checkNext(t, lines.Text(), acked)
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for lines.Scan() { // what it had said before it died
			acked = checkNext(t, lines.Text(), acked)
		}
		_ = cmd.Wait()
		r, err := OpenRecorder(RecorderConfig{Dir: dir, Host: "h1", MaxBytes: MinMaxBytes})
		if err != nil {
			t.Fatal(err)
		}
		if r.Last() < acked || r.Last() > acked+1 {
			t.Fatalf("round %d: %d acknowledged, %d in the ring", round, acked, r.Last())
		}
		wantSeqs(t, all(t, r, r.First()), r.First(), r.Last())
		acked = r.Last() // one more may have been written than said
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if acked < 1000 {
		t.Errorf("only %d events: the test did not bite", acked)
	}
}

func checkNext(t *testing.T, line string, acked uint64) uint64 {
	t.Helper()
	seq, err := strconv.ParseUint(line, 10, 64)
	if err != nil || seq != acked+1 {
		t.Fatalf("writer said %q after %d", line, acked)
	}
	return seq
}

func BenchmarkAppend(b *testing.B) {
	r, err := OpenRecorder(RecorderConfig{Dir: b.TempDir(), Host: "h1"})
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	d := New(AppSubject("web", "2"), AppRestarted{Pid: 4711, AfterUS: 812, By: "agent", Start: 2}).With(ulidText, 1234)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Append(d); err != nil {
			b.Fatal(err)
		}
	}
}

const ulidText = "01ARZ3NDEKTSV4RRFFQ69G5FAV"

// BenchmarkReadNewest is what the publisher does for one event.
func BenchmarkReadNewest(b *testing.B) {
	r, err := OpenRecorder(RecorderConfig{Dir: b.TempDir(), Host: "h1"})
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	for i := range 10000 {
		mustAppend(b, r, started(i))
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := r.Read(10000, func(Event) bool { return true }); err != nil {
			b.Fatal(err)
		}
	}
}
