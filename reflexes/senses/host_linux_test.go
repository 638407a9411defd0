package senses

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ganglion-mesh/ganglion/reflexes"
	"github.com/ganglion-mesh/ganglion/reflexes/senses/procfs"
)

func must[S any](t testing.TB) func(s S, err error) S {
	return func(s S, err error) S {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
}

func ratio(v reflexes.Value) bool {
	return v.Known() && v.AsFloat() >= 0 && v.AsFloat() <= 1
}

func TestHostSenses(t *testing.T) {
	cfg := HostConfig{Now: bootNow, Interval: 20 * time.Millisecond}
	memory := listen(t, must[Sense](t)(NewMemory(cfg)))
	memory.waitFor(reflexes.HostMemAvail, "", ratio)
	memory.waitFor(reflexes.HostSwapUsed, "", ratio)
	memory.waitFor(reflexes.HostMemAvailBytes, "", func(v reflexes.Value) bool { return v.AsInt() > 1<<20 })

	cpu := listen(t, must[Sense](t)(NewCPU(cfg)))
	cpu.waitFor(reflexes.HostCPUBusy, "", ratio)
	cpu.waitFor(reflexes.HostCPUCount, "", func(v reflexes.Value) bool { return v.AsInt() >= int64(runtime.NumCPU()) })

	load := listen(t, must[Sense](t)(NewLoad(cfg)))
	load.waitFor(reflexes.HostLoad, "", func(v reflexes.Value) bool { return v.Known() && v.AsFloat() >= 0 })
	load.waitFor(reflexes.HostPids, "", func(v reflexes.Value) bool { return ratio(v) && v.AsFloat() > 0 })

	limits := listen(t, must[Sense](t)(NewLimits(cfg)))
	limits.waitFor(reflexes.HostFiles, "", ratio)
}

func TestBusyRatio(t *testing.T) {
	var b busyRatio
	look := func(stat string) (v reflexes.Value, ok bool) {
		facts, err := b.look(0, [][]byte{[]byte(stat)}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if n, _ := last(facts, reflexes.HostCPUCount, ""); n != reflexes.Int(2) {
			t.Errorf("%v", facts)
		}
		return last(facts, reflexes.HostCPUBusy, "")
	}
	const cpus = "\ncpu0 1 2 3\ncpu1 1 2 3\nintr 5 6"
	if v, ok := look("cpu 100 0 100 800 0 0 0 0" + cpus); ok {
		t.Errorf("at first: %v", v)
	}
	if v, _ := look("cpu 120 0 110 860 10 0 0 0" + cpus); v != reflexes.Float(0.3) {
		t.Errorf("30 of 100: %v", v)
	}
	if v, ok := look("cpu 120 0 110 850 10 0 0 0" + cpus); ok {
		t.Errorf("a counter that went back: %v", v)
	}
	if _, err := b.look(0, [][]byte{[]byte("nonsense")}, nil); err == nil {
		t.Error("nonsense was taken")
	}
}

func TestHostSenseWithoutItsFile(t *testing.T) {
	s := must[Sense](t)(NewMemory(HostConfig{Now: bootNow, Proc: t.TempDir()}))
	err := s.Run(t.Context(), func([]reflexes.Fact) { t.Error("told something") })
	if err == nil || !strings.Contains(err.Error(), "meminfo") {
		t.Error(err)
	}
}

func TestHostSensesAllocateNothing(t *testing.T) {
	cfg := HostConfig{Now: bootNow}
	for _, s := range []Sense{must[Sense](t)(NewMemory(cfg)), must[Sense](t)(NewCPU(cfg)), must[Sense](t)(NewLoad(cfg)), must[Sense](t)(NewLimits(cfg))} {
		r, done := reader(t, s.(*fileSense))
		look := func() {
			if _, err := r.read(); err != nil {
				t.Error(err)
			}
		}
		look()
		if n := testing.AllocsPerRun(100, look); n >= 1 {
			t.Errorf("%s: %v allocations a look", s.Name(), n)
		}
		done()
	}
}

func reader(t testing.TB, s *fileSense) (*fileReader, func()) {
	t.Helper()
	r := &fileReader{sense: s, texts: make([][]byte, len(s.paths)), look: s.look()}
	for _, p := range s.paths {
		f, err := procfs.Open("/proc/"+p, s.size)
		if err != nil {
			t.Fatal(err)
		}
		r.files = append(r.files, f)
	}
	return r, func() {
		for _, f := range r.files {
			_ = f.Close()
		}
	}
}

// needPressure skips on kernels that know no pressure.
func needPressure(t testing.TB) {
	t.Helper()
	if _, err := os.ReadFile("/proc/pressure/cpu"); err != nil {
		skip(t, "a kernel that knows pressure: "+err.Error())
	}
}

// TestPressureOfTheCPU keeps more programs spinning than there are processors,
// so that one of them always waits.
func TestPressureOfTheCPU(t *testing.T) {
	needPressure(t)
	p := must[*Pressure](t)(NewPressure(PressureConfig{Now: bootNow, Window: 2 * time.Second}))
	wake, stop, err := p.arm()
	t.Cleanup(stop)
	e := listen(t, p)
	spinners(t)
	f := e.waitFor(reflexes.HostPSICPUSome1s, "", func(v reflexes.Value) bool { return v.AsFloat() > 0.5 })
	if f.At > bootNow() || f.Target != reflexes.Host() {
		t.Errorf("%+v", f)
	}
	e.waitFor(reflexes.HostPSIMemoryFull1s, "", ratio)
	e.waitFor(reflexes.HostPSIIOSome1s, "", ratio)
	t.Run("Trigger", func(t *testing.T) {
		// Without privilege the kernel tells only every two seconds, but it does.
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EACCES) {
			skip(t, "CAP_SYS_RESOURCE, or Linux 6.4: "+err.Error())
		}
		if err != nil {
			t.Fatal(err)
		}
		select {
		case _, ok := <-wake:
			if !ok {
				t.Error("the kernel tells no more")
			}
		case <-time.After(patience):
			t.Error("never told")
		}
	})
}

// pressureFiles writes files of pressure in which every counter stands at us.
// They are written over, as a file that is cut first would be for a moment empty.
func pressureFiles(t testing.TB, dir string, us int) {
	t.Helper()
	text := fmt.Sprintf("some avg10=0.00 avg60=0.00 avg300=0.00 total=%012d\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=%012d\n", us, us)
	for _, h := range hostPressure {
		f, err := os.OpenFile(filepath.Join(dir, h.file), os.O_WRONLY|os.O_CREATE, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString(text); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
}

// TestGauge looks every half second of a made-up clock.
func TestGauge(t *testing.T) {
	dir := t.TempDir()
	pressureFiles(t, dir, 0)
	now := time.Hour
	g := gauge{now: func() reflexes.Boot { return now }, refresh: 500 * time.Millisecond}
	defer g.close()
	for _, h := range hostPressure {
		g.add(must[*procfs.File](t)(procfs.Open(filepath.Join(dir, h.file), 256)), reflexes.Host(), 50*time.Millisecond, h.some1, h.some10, h.full1, h.full10)
	}
	us := 0
	for i := range 60 {
		if i < 30 {
			us += 100_000 // of each half second
		}
		pressureFiles(t, dir, us)
		facts, err := g.look()
		if err != nil {
			t.Fatal(err)
		}
		v1, ok1 := last(facts, reflexes.HostPSIMemoryFull1s, "")
		v10, ok10 := last(facts, reflexes.HostPSIIOSome10s, "")
		if ok1 != (i >= 2) || ok10 != (i >= 20) {
			t.Fatalf("look %d: known %t, %t", i, ok1, ok10)
		}
		if i >= 20 && i < 30 && (v1 != reflexes.Float(0.2) || v10 != reflexes.Float(0.2)) {
			t.Errorf("look %d: %v, %v", i, v1, v10)
		}
		if calm := now-g.grew > quiet; calm != (i >= 34) {
			t.Errorf("look %d: calm is %t", i, calm)
		}
		now += 500 * time.Millisecond
	}
}

// TestGaugeTellsWhatIsNew does not tell of every look at a value that does not
// change.
func TestGaugeTellsWhatIsNew(t *testing.T) {
	r := pressureRatio{known: true, told: 0.5, toldAt: time.Hour}
	for _, c := range []struct {
		v    float64
		age  time.Duration
		want bool
	}{
		{0.5, 0, false}, {0.5004, 50 * time.Millisecond, false}, {0.5011, 50 * time.Millisecond, true}, {0.5, 500 * time.Millisecond, true}, {0, 0, true},
	} {
		if got := r.worth(c.v, time.Hour+c.age, 500*time.Millisecond); got != c.want {
			t.Errorf("%+v: %t", c, got)
		}
	}
	if r.told = 0.0001; !r.worth(0, time.Hour, time.Second) {
		t.Error("none at all is not told")
	}
}

func TestPressureWithoutKernelSupport(t *testing.T) {
	p := must[*Pressure](t)(NewPressure(PressureConfig{Now: bootNow, Dir: t.TempDir()}))
	err := p.Run(t.Context(), func([]reflexes.Fact) {})
	if err == nil || !strings.Contains(err.Error(), "psi=1") {
		t.Error(err)
	}
}

func TestDisks(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m,nr_inodes=100"); err != nil {
		skip(t, "to mount a tmpfs: "+err.Error())
	}
	mounted := true
	unmount := func() {
		if mounted {
			mounted = false
			if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
				t.Error(err)
			}
		}
	}
	t.Cleanup(unmount)
	e := listen(t, must[*Disks](t)(NewDisks(DisksConfig{Now: bootNow, Interval: 20 * time.Millisecond})))
	e.waitFor(reflexes.DiskFree, dir, func(v reflexes.Value) bool { return v.AsFloat() > 0.99 })
	e.waitFor(reflexes.DiskInodes, dir, func(v reflexes.Value) bool { return v.AsFloat() > 0.9 && v.AsFloat() <= 1 })
	e.waitFor(reflexes.DiskReadOnly, dir, is(reflexes.Bool(false)))
	if err := os.WriteFile(filepath.Join(dir, "full"), make([]byte, 2<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("it is not full: %v", err)
	}
	e.waitFor(reflexes.DiskFree, dir, is(reflexes.Float(0)))
	e.waitFor(reflexes.DiskFreeBytes, dir, is(reflexes.Int(0)))
	e.waitFor(reflexes.DiskFullIn, dir, is(reflexes.Float(0)))
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	e.waitFor(reflexes.DiskReadOnly, dir, is(reflexes.Bool(true)))
	unmount()
	e.waitFor(reflexes.DiskFree, dir, unknown)
}

func TestDiskBusyAndLinkErrors(t *testing.T) {
	errs := listen(t, must[*LinkErrors](t)(NewLinkErrors(LinkErrorsConfig{Now: bootNow, Interval: 20 * time.Millisecond})))
	errs.waitFor(reflexes.LinkErrors, "lo", func(v reflexes.Value) bool { return v.Known() && v.AsFloat() >= 0 })
	mounts, err := localMounts("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mounts {
		if deviceName(m.Device) != "" {
			busy := listen(t, must[*DiskBusy](t)(NewDiskBusy(DisksConfig{Now: bootNow, Interval: 20 * time.Millisecond})))
			busy.waitFor(reflexes.DiskBusy, m.Point, ratio)
			return
		}
	}
	t.Log("no file system here is on a device")
}

func TestGrowthForgetsWhatIsGone(t *testing.T) {
	g := newGrowth(reflexes.LinkErrors)
	per := func(grown int64, over time.Duration) float64 { return float64(grown) / over.Seconds() }
	eth := reflexes.Target{Scope: reflexes.ScopeLink, Name: "eth0"}
	look := func(at time.Duration, values ...int64) []reflexes.Fact {
		g.begin(at)
		for _, v := range values {
			g.add(eth, v, per)
		}
		return g.end()
	}
	if f := look(time.Second, 10); len(f) != 0 {
		t.Errorf("a first look: %v", f)
	}
	if f := look(3*time.Second, 20); len(f) != 1 || f[0].Value != reflexes.Float(5) {
		t.Errorf("10 in 2 s: %v", f)
	}
	if f := look(4*time.Second, 0); len(f) != 0 {
		t.Errorf("a counter that began anew: %v", f)
	}
	if f := look(5 * time.Second); len(f) != 1 || f[0].Value.Known() {
		t.Errorf("gone: %v", f)
	}
	if f := look(6 * time.Second); len(f) != 0 {
		t.Errorf("gone twice: %v", f)
	}
}
