//go:build linux

package systemd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ganglion-mesh/ganglion/workload"
)

func TestBoundsInDropIns(t *testing.T) {
	cpu, memory := bounds[0], bounds[1]
	for _, c := range []struct {
		b    bound
		text string
		want uint64
		ok   bool
	}{
		{cpu, "# made\n[Service]\nCPUQuota=20%\n", 200_000, true},
		{cpu, "[Service]\nCPUQuota=150.00%\n", 1_500_000, true},
		{cpu, "[Service]\nCPUQuota=20%\nCPUQuota=\n", unbounded, true},
		{cpu, "[Service]\nCPUQuota=much\n", 0, false},
		{cpu, "[Service]\nMemoryHigh=5\n", 0, false},
		{memory, "[Service]\nMemoryHigh=1048576\n", 1 << 20, true},
		{memory, "[Service]\nMemoryHigh=infinity", unbounded, true},
	} {
		if v, ok := c.b.in(c.text); ok != c.ok || ok && v != c.want {
			t.Errorf("%q: %d, %v", c.text, v, ok)
		}
	}
	for cores, want := range map[float64]uint64{0.57: 570_000, 0.125: 120_000, 0.01: 10_000, 0.001: 10_000, 2: 2_000_000, 0: unbounded} {
		if got := boundsOf(workload.Throttle{CPU: cores})[0]; got != want {
			t.Errorf("%v cores: %d, want %d", cores, got, want)
		}
	}
}

// fakePID1 is PID 1 with one unit: of each setting its own file, which is read before
// what PID 1 was told to remember, and one that is read after.
type fakePID1 struct {
	t       *testing.T
	dir     string
	running bool
	early   [len(bounds)]uint64 // 0: says nothing
	late    [len(bounds)]uint64
	shown   [len(bounds)]uint64
	crash   func() bool // the agent dies now
}

var errCrash = errors.New("the agent has died")

func (f *fakePID1) file(b bound) string {
	return filepath.Join(f.dir, "mine.service.d", "50-"+b.setting+".conf")
}

func (f *fakePID1) bounds(context.Context, string) (unitBounds, error) {
	u := unitBounds{id: "mine.service", shown: f.shown}
	if f.running {
		u.group = "/mine"
	}
	if f.crash() {
		return u, errCrash
	}
	return u, nil
}

// said is what the files say of a setting.
func (f *fakePID1) said(i int) uint64 {
	v := uint64(unbounded)
	if f.early[i] != 0 {
		v = f.early[i]
	}
	if data, err := os.ReadFile(f.file(bounds[i])); err == nil {
		if n, ok := bounds[i].in(string(data)); ok {
			v = n
		}
	}
	if f.late[i] != 0 {
		v = f.late[i]
	}
	return v
}

func (f *fakePID1) reload(context.Context) error {
	if f.crash() {
		return errCrash
	}
	for i := range bounds {
		f.shown[i] = f.said(i)
	}
	if f.crash() {
		return errCrash
	}
	return nil
}

func (f *fakePID1) bind(_ context.Context, _ string, props []property) error {
	if f.crash() {
		return errCrash
	}
	for _, p := range props {
		f.set(p.Name, p.Value.Value().(uint64))
		if f.crash() {
			return errCrash
		}
	}
	return nil
}

// set is what `systemctl set-property --runtime` does too.
func (f *fakePID1) set(name string, v uint64) {
	for i, b := range bounds {
		if b.property != name {
			continue
		}
		f.shown[i] = v
		word := fmt.Sprint(v)
		if i == 0 {
			word = fmt.Sprintf("%d%%", v/percent)
		}
		if err := errors.Join(os.MkdirAll(filepath.Dir(f.file(b)), 0o755), os.WriteFile(f.file(b), []byte("[Service]\n"+b.setting+"="+word+"\n"), 0o644)); err != nil {
			f.t.Fatal(err)
		}
	}
}

// holding is a unit that is held back by an agent that may die at any moment: all that
// its next life knows is disk.
type holding struct {
	*fakePID1
	disk  []byte
	lacks bool // the controllers
}

func (h *holding) throttle(most workload.Throttle) error {
	var was UnitHold
	if h.disk != nil {
		if err := json.Unmarshal(h.disk, &was); err != nil {
			h.t.Fatal(err)
		}
	}
	note := func(u UnitHold) (err error) {
		if h.crash() {
			return errCrash
		}
		h.disk, err = json.Marshal(u)
		return err
	}
	if was == nil {
		was = UnitHold{}
	}
	one := unitHolder{
		manager: h.fakePID1, unit: "mine.service", dir: h.dir, hold: was, note: note,
		able: func(workload.Throttle) error { return nil },
		kernel: func(_ string, b bound, m uint64) bool {
			for i, x := range bounds {
				if x == b && h.shown[i] > m {
					h.t.Errorf("%s is %d, told %d", b.setting, h.shown[i], m)
				}
			}
			return !h.lacks
		},
	}
	err := one.to(h.t.Context(), most)
	if errors.Is(err, errCrash) {
		return err
	}
	if e := note(one.hold); e != nil {
		return e
	}
	return err
}

// TestUnitHoldHistories: whatever the operator sets of a unit, and whenever the agent
// dies, a throttle that is told holds, is never above what is seen to be the unit's
// own, and at its end all is as the operator's files say.
func TestUnitHoldHistories(t *testing.T) {
	for seed := range uint64(150) {
		r := rand.New(rand.NewPCG(seed, 7))
		dying := 0
		f := &fakePID1{t: t, dir: t.TempDir(), running: true, shown: [...]uint64{unbounded, unbounded}}
		f.crash = func() bool { return r.IntN(100) < dying }
		h := &holding{fakePID1: f}
		mine := [len(bounds)]string{} // what the operator had PID 1 remember
		step := uint64(percent)
		some := func() uint64 { return (1 + r.Uint64N(40)) * step }
		for range 30 {
			i := r.IntN(len(bounds))
			switch r.IntN(8) {
			case 0:
				f.early[i] = some()
			case 1:
				f.late[i] = some()
			case 2:
				f.late[i], f.early[i] = 0, 0
			case 3:
				step++ // no value comes twice: else nobody could tell whose it is
				v := some() / percent * percent
				if held(h, bounds[i], v) {
					break
				}
				f.set(bounds[i].property, v)
				data, _ := os.ReadFile(f.file(bounds[i]))
				mine[i] = string(data)
				step = percent
			case 4:
				dying = 0
				_ = f.reload(t.Context())
			default:
				dying = r.IntN(2) * 20
				most := workload.Throttle{CPU: float64(r.IntN(4)) / 10, Memory: int64(r.IntN(4)) * 100_001}
				err := h.throttle(most)
				if err != nil && !errors.Is(err, errCrash) {
					t.Fatalf("seed %d: %v", seed, err)
				}
				for j, m := range boundsOf(most) {
					if err == nil && f.shown[j] > m {
						t.Fatalf("seed %d: %s is %d, wanted %d", seed, bounds[j].setting, f.shown[j], m)
					}
				}
			}
		}
		dying = 0
		if err := h.throttle(workload.Throttle{}); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if string(h.disk) != "{}" {
			t.Fatalf("seed %d: kept %s", seed, h.disk)
		}
		_ = f.reload(t.Context())
		for i, b := range bounds {
			data, _ := os.ReadFile(f.file(b))
			if string(data) != mine[i] {
				t.Fatalf("seed %d: %s: left %q, the operator said %q", seed, b.setting, data, mine[i])
			}
		}
	}
}

// held tells whether a value is one that was told for a throttle.
func held(h *holding, b bound, v uint64) bool {
	var was UnitHold
	_ = json.Unmarshal(h.disk, &was)
	for _, x := range was[b.setting].Told {
		if x == v {
			return true
		}
	}
	return false
}

// TestUnitHoldRefuses a unit that does not run, and one whose control group has no
// such controller: nothing is left of the try, and it is told within a moment. One that
// is held already may stop and start.
func TestUnitHoldRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakePID1{t: t, dir: t.TempDir(), shown: [...]uint64{500_000, unbounded}, early: [...]uint64{500_000, 0}, crash: func() bool { return false }}
		h := &holding{fakePID1: f}
		half := workload.Throttle{CPU: 0.2}
		if err := h.throttle(half); err == nil || !strings.Contains(err.Error(), "does not run") {
			t.Errorf("stopped: %v", err)
		}
		f.running, h.lacks = true, true
		if err := h.throttle(half); err == nil || !strings.Contains(err.Error(), "lacks the controller") {
			t.Errorf("without a controller: %v", err)
		}
		if _, err := os.Stat(filepath.Join(f.dir, "mine.service.d")); err == nil || f.shown[0] != 500_000 || string(h.disk) != "{}" {
			t.Errorf("left: %d, %s", f.shown[0], h.disk)
		}
		h.lacks = false
		if err := h.throttle(half); err != nil || f.shown[0] != 200_000 {
			t.Errorf("%v, %d", err, f.shown[0])
		}
		f.running = false
		_ = f.reload(t.Context())
		if err := h.throttle(half); err != nil || f.shown[0] != 200_000 {
			t.Errorf("while it is stopped: %v, %d", err, f.shown[0])
		}
		if err := h.throttle(workload.Throttle{CPU: 0.7}); err != nil || f.shown[0] != 500_000 || string(h.disk) != "{}" {
			t.Errorf("above its own bound: %v, %d, %s", err, f.shown[0], h.disk)
		}
	})
}

// throttledUnit is a unit on a real PID 1, with what an agent keeps of it.
type throttledUnit struct {
	t    *testing.T
	file string
	able bool // whether the kernel heeds quotas here
	disk UnitHold
}

const throttledName = "throttled-test.service"

func newThrottledUnit(t *testing.T) *throttledUnit {
	needSystemd(t)
	u := &throttledUnit{t: t, file: "/etc/systemd/system/" + throttledName, able: CanThrottle(workload.Throttle{CPU: 1}) == nil}
	t.Cleanup(func() {
		_ = exec.Command("systemctl", "stop", throttledName).Run()
		for _, path := range []string{u.file, u.file + ".d", filepath.Join(controlUnits, throttledName+".d"), noCPU} {
			_ = os.RemoveAll(path)
		}
		_ = exec.Command("systemctl", "daemon-reload").Run()
	})
	u.write(u.file, "[Service]\nExecStart=/bin/sleep 86411\nCPUQuota=50%\nMemoryHigh=900M\n")
	u.systemctl("start", throttledName)
	return u
}

// noCPU is a slice without a cpu controller.
const noCPU = "/run/systemd/system/nocpu.slice"

func (u *throttledUnit) systemctl(args ...string) {
	u.t.Helper()
	if out, err := exec.Command("systemctl", args...).CombinedOutput(); err != nil {
		u.t.Fatalf("systemctl %v: %v: %s", args, err, out)
	}
}

func (u *throttledUnit) write(path, text string) {
	u.t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
		u.t.Fatal(err)
	}
	u.systemctl("daemon-reload")
}

// throttle is ThrottleUnit, also where the kernel heeds nothing.
func (u *throttledUnit) throttle(most workload.Throttle) {
	u.t.Helper()
	h := unitHolder{unit: throttledName, dir: controlUnits, hold: u.disk, note: func(UnitHold) error { return nil }, able: func(workload.Throttle) error { return nil }}
	if h.hold == nil {
		h.hold = UnitHold{}
	}
	h.kernel = func(group string, b bound, most uint64) bool {
		return !u.able || b != bounds[0] || kernelHas(group, b, most)
	}
	err := withUnit(ctxFor(u.t), "throttle", throttledName, func(p errand) error {
		h.manager = p
		return h.to(ctxFor(u.t), most)
	})
	if u.disk = h.hold; err != nil {
		u.t.Fatal(err)
	}
}

// is holds that PID 1 shows the unit so, and that the kernel has its quota.
func (u *throttledUnit) is(when, cpu, memory string) {
	u.t.Helper()
	if c, m := property1(u.t, throttledName, "CPUQuotaPerSecUSec"), property1(u.t, throttledName, "MemoryHigh"); c != cpu || m != memory {
		u.t.Errorf("%s: CPUQuota %s, MemoryHigh %s, want %s and %s", when, c, m, cpu, memory)
	}
	if !u.able || property1(u.t, throttledName, "ActiveState") != "active" {
		return
	}
	d, err := time.ParseDuration(cpu)
	if err != nil {
		u.t.Fatal(err)
	}
	most := uint64(d.Microseconds())
	eventually(u.t, when+": the kernel's quota of "+cpu, func() bool {
		group := property1(u.t, throttledName, "ControlGroup")
		return kernelHas(group, bounds[0], most) && !kernelHas(group, bounds[0], most-percent)
	})
}

const (
	ownQuota  = "500ms"
	ownMemory = "943718400"
)

// TestThrottleUnit on a real PID 1: a unit is held back, over its restart and over
// reloads also where the operator has a drop-in of a later name, and is afterwards as
// its files say. What others have had PID 1 remember of it is not touched.
func TestThrottleUnit(t *testing.T) {
	u := newThrottledUnit(t)
	u.is("before", ownQuota, ownMemory)
	u.throttle(workload.Throttle{CPU: 0.2, Memory: 100 << 20})
	u.is("held", "200ms", "104857600")
	u.systemctl("restart", throttledName)
	u.is("after a restart", "200ms", "104857600")
	u.throttle(workload.Throttle{CPU: 0.1})
	u.is("tighter, without memory", "100ms", ownMemory)
	u.write(u.file+".d/zz.conf", "[Service]\nCPUQuota=40%\n")
	u.throttle(workload.Throttle{CPU: 0.1})
	u.is("after the operator's drop-in", "100ms", ownMemory)
	u.throttle(workload.Throttle{CPU: 0.45})
	u.is("no looser than the operator's", "400ms", ownMemory)
	if err := os.RemoveAll(u.file + ".d"); err != nil {
		t.Fatal(err)
	}
	u.systemctl("daemon-reload")

	u.systemctl("set-property", "--runtime", throttledName, "CPUQuota=30%", "MemoryHigh=800M")
	u.throttle(workload.Throttle{CPU: 0.05, Memory: 100 << 20})
	u.is("below what was set by hand", "50ms", "104857600")
	u.systemctl("stop", throttledName)
	u.throttle(workload.Throttle{CPU: 0.1, Memory: 100 << 20})
	u.is("stopped", "100ms", "104857600")
	u.systemctl("start", throttledName)
	u.is("started again", "100ms", "104857600")
	u.throttle(workload.Throttle{})
	u.is("over", "300ms", "838860800")
	if len(u.disk) != 0 {
		t.Errorf("kept %+v", u.disk)
	}

	u.systemctl("revert", throttledName)
	u.systemctl("daemon-reload")
	u.throttle(workload.Throttle{CPU: 0.1})
	u.throttle(workload.Throttle{})
	u.is("over, with nothing set by hand", ownQuota, ownMemory)
	if _, err := os.Stat(filepath.Join(controlUnits, throttledName+".d")); err == nil {
		t.Error("a drop-in is left")
	}
}

// TestThrottleUnitRefused: of a unit that there is not, and of one whose slice has no
// such controller, which is as it was afterwards.
func TestThrottleUnitRefused(t *testing.T) {
	u := newThrottledUnit(t)
	note := func(UnitHold) error { return nil }
	if _, err := ThrottleUnit(ctxFor(t), "nosuch.service", workload.Throttle{CPU: 1}, nil, note); err == nil || !strings.Contains(err.Error(), "no such unit") {
		t.Errorf("a unit that there is not: %v", err)
	}
	want := "no cpu controller"
	if u.able {
		want = "lacks the controller"
	}
	u.write(noCPU, "[Slice]\nDisableControllers=cpu\n")
	u.write(u.file+".d/slice.conf", "[Service]\nSlice=nocpu.slice\n")
	u.systemctl("restart", throttledName)
	held, err := ThrottleUnit(ctxFor(t), throttledName, workload.Throttle{CPU: 0.2}, nil, note)
	if q := property1(t, throttledName, "CPUQuotaPerSecUSec"); err == nil || !strings.Contains(err.Error(), want) || len(held) != 0 || q != ownQuota {
		t.Errorf("without a controller: %v, held %v, quota %s", err, held, q)
	}
}
