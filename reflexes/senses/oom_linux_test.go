package senses

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ganglion-mesh/ganglion/reflexes"
	"github.com/ganglion-mesh/ganglion/reflexes/senses/procfs"
)

// hog starts a program in a group that will use memory without end as soon as it
// is told to. It has a child of its own that does the same if deep is set, and
// lives on when the child is killed.
func hog(t testing.TB, deep bool, dirs ...string) (cmd *exec.Cmd, eat func()) {
	t.Helper()
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); out.Close() })
	script := "read go; exec tail /dev/zero"
	if deep {
		script = "while read go; do tail /dev/zero; done; exec sleep 1000"
	}
	cmd = startWith(t, in, "/bin/sh", "-c", script)
	for _, dir := range dirs {
		join(t, dir, cmd.Process.Pid)
	}
	return cmd, func() {
		if _, err := out.WriteString("go\n"); err != nil {
			t.Fatal(err)
		}
	}
}

// memoryGroup makes a group with little memory, of whichever version has the
// memory controller, and returns where its kills are counted.
func memoryGroup(t testing.TB) (dir, counter string) {
	t.Helper()
	if dir = groupV2(t, "memory"); dir != "" {
		put(t, dir, "memory.max", "8388608")
		_ = os.WriteFile(filepath.Join(dir, "memory.swap.max"), []byte("0"), 0) // where there is swap
		return dir, filepath.Join(dir, "memory.events")
	}
	dir = group(t, "memory")
	put(t, dir, "memory.limit_in_bytes", "8388608")
	put(t, dir, "memory.swappiness", "0")
	return dir, filepath.Join(dir, "memory.oom_control")
}

func newOOM(t testing.TB, copies *Copies) *OOM {
	t.Helper()
	return must[*OOM](t)(NewOOM(OOMConfig{CopiesConfig: CopiesConfig{Now: bootNow, Copies: copies}}))
}

// TestOOMOfAGroup has the kernel kill processes of a copy that has a memory
// group of its own.
func TestOOMOfAGroup(t *testing.T) {
	dir, counter := memoryGroup(t)
	cmd, eat := hog(t, true, dir)
	copies := copiesOf(Copy{ID: "web/1", PID: cmd.Process.Pid})
	sense := newOOM(t, copies)
	e := listen(t, sense)
	e.waitFor(reflexes.OOMCount, "web/1", is(reflexes.Int(0)))
	e.waitFor(reflexes.HostOOMCount, "", known)
	for n := range 3 {
		eat()
		f := e.waitFor(reflexes.OOMCount, "web/1", is(reflexes.Int(int64(n+1))))
		if at, ok := copies.Killed("web/1"); !ok || at < f.At {
			t.Errorf("killed at %s, %t; told of %s", at, ok, f.At)
		}
	}
	if n := readField(t, counter, "oom_kill"); n != 3 {
		t.Errorf("the kernel counted %d", n)
	}
	e.waitFor(reflexes.HostOOMCount, "", func(v reflexes.Value) bool { return v.AsInt() >= 3 })

	// The sense fails and is run again; meanwhile the kernel kills once more.
	e.stop()
	eat()
	kills := func() uint64 { return readField(t, counter, "oom_kill") }
	eventually(t, "a fourth kill", func() bool { return kills() == 4 })
	e = listen(t, sense)
	e.waitFor(reflexes.OOMCount, "web/1", is(reflexes.Int(4)))

	// The copy is started again, in the same group: nothing is forgotten.
	next, eat := hog(t, false, dir)
	copies.Set([]Copy{{ID: "web/1", PID: next.Process.Pid}})
	eat()
	e.waitFor(reflexes.OOMCount, "web/1", is(reflexes.Int(5)))
	from := e.heard()
	copies.Set(nil)
	e.wait("its end", from, func(f reflexes.Fact) bool { return f.Var == reflexes.OOMCount && !f.Value.Known() })
	if at, ok := copies.Killed("web/1"); ok {
		t.Errorf("a copy that is gone was killed at %s", at)
	}
}

// TestOOMByTheLog has the kernel kill a copy that shares its group with another.
func TestOOMByTheLog(t *testing.T) {
	dir, _ := memoryGroup(t)
	if f, err := os.OpenFile("/dev/kmsg", os.O_RDONLY|unix.O_NONBLOCK, 0); err != nil {
		skip(t, "to read the kernel's log: "+err.Error())
	} else {
		f.Close()
	}
	victim, eat := hog(t, false, dir)
	other := start(t, "/bin/sleep", "1000")
	join(t, dir, other.Process.Pid)
	e := listen(t, newOOM(t, copiesOf(Copy{ID: "web/1", PID: victim.Process.Pid}, Copy{ID: "web/2", PID: other.Process.Pid})))
	e.waitFor(reflexes.OOMCount, "web/1", is(reflexes.Int(0)))
	e.waitFor(reflexes.OOMCount, "web/2", is(reflexes.Int(0)))
	eat()
	e.waitFor(reflexes.OOMCount, "web/1", is(reflexes.Int(1)))
	if v, _ := last(e.all(), reflexes.OOMCount, "web/2"); v != reflexes.Int(0) {
		t.Errorf("its neighbour was killed %v times", v)
	}
}

func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
		<-tick.C
	}
}

// TestOOMOfVersion2 stands in for the kernel: on hybrid hosts memory.events does
// not exist.
func TestOOMOfVersion2(t *testing.T) {
	dir := t.TempDir()
	write := func(kills string) {
		f, err := os.OpenFile(filepath.Join(dir, "memory.events"), os.O_WRONLY|os.O_CREATE, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString("low 0\nhigh 0\nmax 9\noom 1\noom_kill " + kills + "\noom_group_kill 0\n"); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	write("0")
	news := newOOMNews()
	w, err := newOOMWatch(news)
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	c, err := w.open(Copy{}, groupDirs{v2: dir, memory: "/nowhere"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	write("2")
	for told := false; !told; {
		select {
		case <-news.wake:
		case <-time.After(patience):
			t.Fatal("never told")
		}
		batch, err := news.take()
		if err != nil {
			t.Fatal(err)
		}
		told = batch.watches[c.watch]
	}
	if n, err := c.read(); err != nil || n != 2 {
		t.Errorf("%d, %v", n, err)
	}
}

func TestCountsOfGroupsThatComeAndGo(t *testing.T) {
	var k copyKills
	for _, c := range []struct {
		group uint64
		n     int64
		want  int64
	}{
		{7, 5, 0},  // what was before we looked is nobody's news
		{7, 6, 1},  //
		{7, 6, 1},  //
		{9, 0, 1},  // another group
		{9, 2, 3},  //
		{12, 4, 7}, // a third, which has killed before it was looked at
	} {
		if k.read(c.group, c.n); k.kills != c.want {
			t.Errorf("%+v: %d", c, k.kills)
		}
	}
}

func TestVictimsOfTheLog(t *testing.T) {
	news := newOOMNews()
	news.where = func(pid int) string { return map[int]string{50: "/v2/web1"}[pid] }
	r := &oomRun{o: &OOM{cfg: OOMConfig{CopiesConfig: CopiesConfig{Now: bootNow, Copies: NewCopies()}}, copies: map[string]*copyKills{}}, victims: map[int]string{}, told: map[string]bool{}}
	counter := &oomCounter{rang: -lateKill}
	r.track = &tracker[*oomCounter]{copies: map[string]*trackedCopy[*oomCounter]{
		"web/1": {copy: Copy{ID: "web/1", PID: 40}, dirs: groupDirs{v2: "/v2/web1"}},
		"web/2": {copy: Copy{ID: "web/2", PID: 41}},
		"db/1":  {copy: Copy{ID: "db/1", PID: 42}, files: counter}, // counted otherwise
	}}
	for _, line := range []string{
		"oom-kill:constraint=CONSTRAINT_NONE,task_memcg=/,task=x,pid=50,uid=0", // a child of web/1, found by its group
		"Out of memory: Killed process 50 (x) total-vm:1kB",
		"Out of memory: Killed process 41 (y) total-vm:1kB", // an old kernel, which says it once
		"Out of memory: Killed process 42 (z) total-vm:1kB",
		"Out of memory: Killed process 77 (z) total-vm:1kB", // nobody's
		"tail invoked oom-killer: gfp_mask=0x140dca",
	} {
		news.message([]byte(line))
	}
	batch, err := news.take()
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range batch.victims {
		r.killed(v)
	}
	if r.o.copies["web/1"].kills != 1 || r.o.copies["web/2"].kills != 1 || r.o.copies["db/1"] != nil {
		t.Errorf("%v", r.track.facts)
	}
	if counter.logged != 1 || counter.rang < 0 {
		t.Errorf("a kill of which the log told before the counter does not have it read: %+v", counter)
	}
	if db := r.track.copies["db/1"]; !r.unread(db) || r.o.copies["db/1"].kills != 1 {
		t.Error("a group that went away before its counter was read has its kill forgotten")
	}
	counter.counted = 1
	if r.unread(r.track.copies["db/1"]) {
		t.Error("a kill that was read is counted twice")
	}
	for range 2 * maxVictims {
		news.message([]byte("Out of memory: Killed process 1 (z)"))
	}
	if batch, _ = news.take(); len(batch.victims) != maxVictims || !batch.missed {
		t.Errorf("%d wait, missed %t", len(batch.victims), batch.missed)
	}
}

// TestKernelLog reads the log of this kernel from its beginning, ends in the
// middle of it, and goes on from there.
func TestKernelLog(t *testing.T) {
	needRoot(t)
	log, err := openKmsg("/dev/kmsg", 1)
	if err != nil {
		skip(t, "to read the kernel's log: "+err.Error())
	}
	first := make(chan struct{})
	tell := sync.OnceFunc(func() { close(first) })
	ended := make(chan error)
	go func() { ended <- log.follow(t.Context(), func([]byte) { tell() }, func() {}) }()
	select {
	case <-first:
	case <-time.After(patience):
		t.Error("the kernel has never said anything")
	}
	log.close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if log.next < 2 {
		t.Errorf("next is %d", log.next)
	}
	again, err := openKmsg("/dev/kmsg", log.next)
	if err != nil {
		t.Fatal(err)
	}
	defer again.close()
	again.message([]byte("6,0,0,-;old"), func([]byte) { t.Error("an old message is told again") })
}

func TestKernelMessages(t *testing.T) {
	var told []string
	k := &kmsg{next: 10}
	tell := func(text []byte) { told = append(told, string(text)) }
	for _, m := range []string{"6,9,1,-;old", "6,10,1,-;new\n K=V", "14,11,1,-;by a program", "garbage", "", "6,12,1,-;newer", strings.Repeat("6", procfs.MaxRecord+1)} {
		k.message([]byte(m), tell)
	}
	if strings.Join(told, "|") != "new|newer" || k.next != 13 {
		t.Errorf("%q, next %d", told, k.next)
	}
}
