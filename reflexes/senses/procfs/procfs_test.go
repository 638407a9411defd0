//go:build linux

package procfs

import (
	"math"
	"os"
	"strings"
	"testing"
	"time"
)

func TestPressure(t *testing.T) {
	p, err := ParsePressure([]byte("some avg10=80.85 avg60=55.59 avg300=29.46 total=12174912872\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n"))
	if err != nil || p.Some != 12174912872*time.Microsecond || p.Full != 7*time.Microsecond || !p.HasFull {
		t.Errorf("%+v, %v", p, err)
	}
	p, err = ParsePressure([]byte("some avg10=0.00 avg60=0.00 avg300=0.00 total=1\n"))
	if err != nil || p.HasFull || p.Some != time.Microsecond {
		t.Errorf("without full: %+v, %v", p, err)
	}
	for _, bad := range []string{"", "full avg10=0 total=1\n", "some total=\n", "some total=x", "some avg10=1 total=18446744073709551615"} {
		if p, err := ParsePressure([]byte(bad)); err == nil {
			t.Errorf("%q: %+v", bad, p)
		}
	}
}

func TestMeminfo(t *testing.T) {
	m, err := ParseMeminfo([]byte("MemTotal:       24684092 kB\nMemFree:        1 kB\nMemAvailable:   23523892 kB\nSwapCached: 9 kB\nSwapTotal:      1000 kB\nSwapFree:       400 kB\n"))
	want := Meminfo{Total: 24684092 << 10, Available: 23523892 << 10, SwapTotal: 1000 << 10, SwapFree: 400 << 10}
	if err != nil || m != want {
		t.Errorf("%+v, %v", m, err)
	}
	for _, bad := range []string{"", "MemTotal: 1 kB\n", "MemTotal: 0 kB\nMemAvailable: 0 kB\n", "MemTotal: x kB\nMemAvailable: 1 kB\n"} {
		if m, err := ParseMeminfo([]byte(bad)); err == nil {
			t.Errorf("%q: %+v", bad, m)
		}
	}
}

func TestCPU(t *testing.T) {
	c, err := ParseCPU([]byte("cpu  100 20 30 1000 50 6 7 8 90 0\ncpu0 1 2"))
	if err != nil || c.Busy != 171 || c.Total != 1221 || c.IOWait != 50 || c.Steal != 8 {
		t.Errorf("%+v, %v", c, err)
	}
	if c, err = ParseCPU([]byte("cpu  1 2 3 4 5")); err != nil || c.Total != 15 || c.Busy != 6 {
		t.Errorf("an old kernel: %+v, %v", c, err)
	}
	for _, bad := range []string{"", "cpu", "cpu 1 2 3 4", "cpu0 1 2 3 4 5 6 7 8", "cpu 1 2 -3 4 5", "intr 1 2 3 4 5 6"} {
		if c, err := ParseCPU([]byte(bad)); err == nil {
			t.Errorf("%q: %+v", bad, c)
		}
	}
}

func TestLoad(t *testing.T) {
	l, err := ParseLoad([]byte("6.03 2.81 1.98 30/262 23343\n"))
	if err != nil || math.Abs(l.One-6.03) > 1e-9 || math.Abs(l.Five-2.81) > 1e-9 || math.Abs(l.Fifteen-1.98) > 1e-9 || l.Running != 30 || l.Tasks != 262 {
		t.Errorf("%+v, %v", l, err)
	}
	for _, bad := range []string{"", "1 2 3", "1 2 3 4 5", "1 2 3 a/b", "1 x 3 4/5", "1 2 3 /"} {
		if l, err := ParseLoad([]byte(bad)); err == nil {
			t.Errorf("%q: %+v", bad, l)
		}
	}
}

func TestFileNr(t *testing.T) {
	used, most, err := ParseFileNr([]byte("1184\t0\t9223372036854775807\n"))
	if err != nil || used != 1184 || most != math.MaxInt64 {
		t.Error(used, most, err)
	}
	if _, _, err := ParseFileNr([]byte("1 2\n")); err == nil {
		t.Error("two fields were taken")
	}
}

// TestProcessWithAHostileName: a name may hold blanks, parentheses and newlines.
func TestProcessWithAHostileName(t *testing.T) {
	const tail = " S 23329 23329 21109 0 -1 4194304 100 0 0 0 150 50 0 0 20 0 3 0 2557224 3133440 380 18446744073709551615 1 2\n"
	for _, name := range []string{"cat", "a b", ") R 1 1 (", "x\n7 (y) Z 3"} {
		p, err := ParseProcess([]byte("23345 (" + name + ")" + tail))
		want := Process{State: 'S', Parent: 23329, CPU: 2 * time.Second, Threads: 3, Start: 2557224, Resident: 380}
		if err != nil || p != want {
			t.Errorf("%q: %+v, %v", name, p, err)
		}
	}
	for _, bad := range []string{"", "1 (x", "1 (x) S 1 2 3", "1 (x)" + strings.Replace(tail, " 3 0 2557224", " 99999999999 0 2557224", 1)} {
		if p, err := ParseProcess([]byte(bad)); err == nil {
			t.Errorf("%q: %+v", bad, p)
		}
	}
}

func TestNumberAndField(t *testing.T) {
	for text, want := range map[string]uint64{"0\n": 0, "123": 123, "max\n": math.MaxUint64, "18446744073709551615": math.MaxUint64} {
		if n, err := Number([]byte(text)); err != nil || n != want {
			t.Errorf("%q: %d, %v", text, n, err)
		}
	}
	for _, bad := range []string{"", "-1", "18446744073709551616", "1 2", "99999999999999999999"} {
		if n, err := Number([]byte(bad)); err == nil {
			t.Errorf("%q: %d", bad, n)
		}
	}
	const events = "low 0\nhigh 0\nmax 17\noom 3\noom_kill 2\noom_group_kill 0\n"
	for key, want := range map[string]uint64{"oom": 3, "oom_kill": 2, "max": 17} {
		if n, ok := Field([]byte(events), key); !ok || n != want {
			t.Errorf("%s: %d, %t", key, n, ok)
		}
	}
	for _, absent := range []string{"oom_k", "kill", "", "oom_kill_all"} {
		if n, ok := Field([]byte(events), absent); ok {
			t.Errorf("%s: %d", absent, n)
		}
	}
}

func TestRecordAndKill(t *testing.T) {
	r, err := ParseRecord([]byte("6,10309,23115598331,-;br0: port 3; entered\n SUBSYSTEM=net\n"))
	if err != nil || r.Priority != 6 || r.Seq != 10309 || string(r.Text) != "br0: port 3; entered" || !r.FromKernel() {
		t.Errorf("%+v, %v", r, err)
	}
	if r, err := ParseRecord([]byte("12,1,2,-;Killed process 1 (x)")); err != nil || r.FromKernel() {
		t.Errorf("what a program wrote: %+v, %v", r, err)
	}
	for text, want := range map[string]Kill{
		"Out of memory: Killed process 4711 (my) app) total-vm:1kB, anon-rss:2kB":                                                               {PID: 4711, Name: []byte("my) app"), Done: true},
		"Memory cgroup out of memory: Killed process 12 (tail) total-vm:17kB, UID:0":                                                            {PID: 12, Name: []byte("tail"), Memcg: true, Done: true},
		"Killed process 12, UID 0, (old) total-vm:17kB":                                                                                         {PID: 12, Done: true},
		"oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/a,task_memcg=/a/b,c,task=x,pid=1,pid=99,uid=0": {PID: 99, Name: []byte("x,pid=1"), Group: []byte("/a/b,c"), Memcg: true},
		"oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),global_oom,task_memcg=/,task=y,pid=5,uid=0":                                        {PID: 5, Name: []byte("y"), Group: []byte("/")},
	} {
		k, ok := ParseKill([]byte(text))
		if !ok || k.PID != want.PID || string(k.Name) != string(want.Name) || string(k.Group) != string(want.Group) || k.Memcg != want.Memcg || k.Done != want.Done {
			t.Errorf("%s:\n%+v %t", text, k, ok)
		}
	}
	for _, other := range []string{"", "eth0: link up", "Killed process", "Killed process x (y)", "oom-kill:pid=1", "oom-kill:constraint=,pid=", "Killed process 99999999999 (y)"} {
		if k, ok := ParseKill([]byte(other)); ok {
			t.Errorf("%q: %+v", other, k)
		}
	}
}

const hybrid = `25 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 25 0:26 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct
31 25 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
32 25 0:28 /docker/x /sys/fs/cgroup/unified ro - cgroup2 cgroup2 rw
33 25 0:29 / /mnt/a\040b\134c rw - tmpfs none rw,size=1k
broken line
`

func TestMountsAndGroups(t *testing.T) {
	ms := ParseMounts(hybrid)
	if len(ms) != 5 || ms[4].Point != `/mnt/a b\c` || ms[0].Device != "254:0" || ms[0].ReadOnly || !ms[3].ReadOnly {
		t.Errorf("%+v", ms)
	}
	hs := ParseHierarchies(hybrid)
	if len(hs) != 3 || !hs[2].V2() || hs[0].V2() {
		t.Fatalf("%+v", hs)
	}
	if d, ok := hs[1].Dir("/web"); !ok || d != "/sys/fs/cgroup/memory/web" {
		t.Error(d, ok)
	}
	if d, ok := hs[2].Dir("/docker/x/web"); !ok || d != "/sys/fs/cgroup/unified/web" {
		t.Error(d, ok)
	}
	if d, ok := hs[2].Dir("/docker/y"); ok {
		t.Errorf("a group that is not seen here: %s", d)
	}
	g := ParseGroups("5:cpu,cpuacct:/a\n4:memory:/b:c\n1:name=systemd:/s\n0::/u\nnonsense\n3:pids:relative\n")
	if g.V2() != "/u" || g.V1("memory") != "/b:c" || g.V1("cpuacct") != "/a" || g.V1("pids") != "" {
		t.Errorf("%+v", g)
	}
}

// TestThisKernel reads what the parsers are for.
func TestThisKernel(t *testing.T) {
	read := func(path string) []byte {
		f, err := Open(path, 64) // too small at first for most
		if err != nil {
			t.Skipf("needs %s: %v", path, err)
		}
		defer f.Close()
		b, err := f.Read()
		if err != nil {
			t.Fatal(err)
		}
		return append([]byte(nil), b...)
	}
	if m, err := ParseMeminfo(read("/proc/meminfo")); err != nil || m.Total < 1<<20 || m.Available > m.Total {
		t.Errorf("%+v, %v", m, err)
	}
	if c, err := ParseCPU(read("/proc/stat")); err != nil || c.Total == 0 || c.Busy > c.Total {
		t.Errorf("%+v, %v", c, err)
	}
	if l, err := ParseLoad(read("/proc/loadavg")); err != nil || l.Tasks == 0 || l.Running > l.Tasks {
		t.Errorf("%+v, %v", l, err)
	}
	if used, most, err := ParseFileNr(read("/proc/sys/fs/file-nr")); err != nil || used == 0 || used > most {
		t.Error(used, most, err)
	}
	if p, err := ParseProcess(read("/proc/self/stat")); err != nil || p.Parent != os.Getppid() || !p.Running() || p.Resident == 0 {
		t.Errorf("%+v, %v", p, err)
	}
	if p, err := ParsePressure(read("/proc/pressure/memory")); err != nil || p.Full > p.Some {
		t.Errorf("%+v, %v", p, err)
	}
}

func FuzzParsers(f *testing.F) {
	for _, path := range []string{"/proc/meminfo", "/proc/stat", "/proc/loadavg", "/proc/self/stat", "/proc/self/mountinfo", "/proc/self/cgroup", "/proc/pressure/io", "/proc/vmstat"} {
		if b, err := os.ReadFile(path); err == nil {
			f.Add(b)
		}
	}
	f.Add([]byte("6,1,2,-;oom-kill:constraint=CONSTRAINT_MEMCG,task_memcg=/a,task=x,pid=3,uid=0\n K=V"))
	f.Add([]byte("6,1,2,-;Memory cgroup out of memory: Killed process 12 (a (b)) total-vm:1kB"))
	f.Add([]byte(hybrid))
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := ParsePressure(b); err == nil && (p.Some < 0 || p.Full < 0) {
			t.Errorf("%+v", p)
		}
		if m, err := ParseMeminfo(b); err == nil && (m.Total == 0 || m.Available > m.Total || m.SwapFree > m.SwapTotal) {
			t.Errorf("%+v", m)
		}
		if c, err := ParseCPU(b); err == nil && (c.Busy > c.Total || c.IOWait > c.Total) {
			t.Errorf("%+v", c)
		}
		if l, err := ParseLoad(b); err == nil && (l.One < 0 || math.IsNaN(l.One)) {
			t.Errorf("%+v", l)
		}
		if p, err := ParseProcess(b); err == nil && (p.CPU < 0 || p.Parent < 0 || p.Threads < 0) {
			t.Errorf("%+v", p)
		}
		if r, err := ParseRecord(b); err == nil {
			if k, ok := ParseKill(r.Text); ok && k.PID <= 0 {
				t.Errorf("%+v", k)
			}
		}
		if k, ok := ParseKill(b); ok && k.PID <= 0 {
			t.Errorf("%+v", k)
		}
		_, _ = Number(b)
		_, _, _ = ParseFileNr(b)
		_, _ = Field(b, "oom_kill")
		g := ParseGroups(string(b))
		for _, h := range ParseHierarchies(string(b)) {
			if d, ok := h.Dir(g.V2()); ok && g.V2() != "" && !strings.HasPrefix(d, strings.TrimSuffix(h.Point, "/")) && h.Point == "/sys/fs/cgroup" {
				t.Errorf("%s of %+v", d, h)
			}
		}
	})
}

// reads are the files that senses read often, and what is made of them.
var reads = []struct {
	path  string
	parse func(b []byte) error
}{
	{"/proc/meminfo", func(b []byte) error { _, err := ParseMeminfo(b); return err }},
	{"/proc/stat", func(b []byte) error { _, err := ParseCPU(b); return err }},
	{"/proc/loadavg", func(b []byte) error { _, err := ParseLoad(b); return err }},
	{"/proc/pressure/cpu", func(b []byte) error { _, err := ParsePressure(b); return err }},
	{"/proc/self/stat", func(b []byte) error { _, err := ParseProcess(b); return err }},
	{"/proc/sys/fs/file-nr", func(b []byte) error { _, _, err := ParseFileNr(b); return err }},
}

func TestReadingAllocatesNothing(t *testing.T) {
	for _, r := range reads {
		f, err := Open(r.path, 4<<10)
		if err != nil {
			t.Logf("skipping %s: %v", r.path, err)
			continue
		}
		look := func() {
			b, err := f.Read()
			if err == nil {
				err = r.parse(b)
			}
			if err != nil {
				t.Error(err)
			}
		}
		look() // the buffer grows
		if n := testing.AllocsPerRun(100, look); n >= 1 {
			t.Errorf("%s: %v allocations a read", r.path, n)
		}
		_ = f.Close()
	}
}

func BenchmarkRead(b *testing.B) {
	for _, r := range reads {
		b.Run(strings.ReplaceAll(strings.TrimPrefix(r.path, "/proc/"), "/", "-"), func(b *testing.B) {
			f, err := Open(r.path, 4<<10)
			if err != nil {
				b.Skip(err)
			}
			defer f.Close()
			b.ReportAllocs()
			for b.Loop() {
				text, err := f.Read()
				if err == nil {
					err = r.parse(text)
				}
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
