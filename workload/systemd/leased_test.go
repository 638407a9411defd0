//go:build linux

package systemd

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/workload"
	"github.com/ganglion-mesh/ganglion/workload/bootclock"
	"github.com/ganglion-mesh/ganglion/workload/program"
)

func leasedSpec(command []string, in time.Duration) workload.Spec {
	s := specOf("db", 1, command)
	s.Lease = &workload.Lease{Token: 7, Deadline: bootclock.Now() + in, Signal: syscall.SIGTERM}
	return s
}

// keeperOf finds the keeper: the parent of the copy.
func keeperOf(t *testing.T, h workload.Handle) int {
	t.Helper()
	st, err := program.ReadStat(h.Instance().Pid)
	if err != nil {
		t.Fatal(err)
	}
	return st.Parent
}

func statusOf(t *testing.T, pid int) string {
	t.Helper()
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// The copy of a singleton is what any copy is: the app's own user, with no
// capability and no way to one, in the same sandbox. Its keeper is there too, and
// out of its reach.
func TestKeeperAndCopyAreConfined(t *testing.T) {
	needSystemd(t)
	d := fresh(t, dataDir(t))
	h := start(t, d, leasedSpec([]string{"sleep", "1000"}, time.Minute), 1)
	plain := start(t, d, specOf("db", 2, []string{"sleep", "1000"}), 1)
	copied, kept := statusOf(t, h.Instance().Pid), statusOf(t, keeperOf(t, h))
	for _, field := range []string{"Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Umask"} {
		if got, want := lineOf(copied, field), lineOf(statusOf(t, plain.Instance().Pid), field); got != want || want == "" {
			t.Errorf("a singleton's copy has %q, another copy %q", got, want)
		}
	}
	if lineOf(kept, "Uid") != "Uid:\t0\t0\t0\t0" || lineOf(kept, "NoNewPrivs") != "NoNewPrivs:\t1" {
		t.Errorf("the keeper is\n%s", kept)
	}
	for _, ns := range []string{"mnt", "pid", "net"} {
		a, _ := os.Readlink("/proc/" + strconv.Itoa(h.Instance().Pid) + "/ns/" + ns)
		b, _ := os.Readlink("/proc/" + strconv.Itoa(keeperOf(t, h)) + "/ns/" + ns)
		if a != b || a == "" {
			t.Errorf("%s: the copy is in %s, its keeper in %s", ns, a, b)
		}
	}
	cmd := exec.Command("/bin/kill", "-STOP", strconv.Itoa(keeperOf(t, h)))
	uid, gid, _ := ownerOf(h.Instance().Pid)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	if out, err := cmd.CombinedOutput(); err == nil {
		t.Errorf("the copy's user may signal the keeper: %s", out)
	}
}

func lineOf(status, field string) string {
	for line := range strings.Lines(status) {
		if strings.HasPrefix(line, field+":") {
			return strings.TrimSpace(line)
		}
	}
	return ""
}

// daemons is a copy with a daemon that has left its session, its parents and
// its signals.
const daemons = `(setsid sh -c 'trap "" TERM; echo $$ >$STATE_DIR/pid.new; mv $STATE_DIR/pid.new $STATE_DIR/pid; sleep 1000' &) ; trap "" TERM; sleep 1000`

func daemonOf(t *testing.T, d *Driver, s workload.Spec) (pid int) {
	t.Helper()
	eventually(t, "the daemon", func() bool {
		b, err := os.ReadFile(d.dirs.copyDir(s.ID) + "/" + stateDir + "/pid")
		pid, _ = strconv.Atoi(strings.TrimSpace(string(b)))
		return err == nil && pid > 0
	})
	return pid
}

// Who kills a keeper kills all of its copy: the kernel its first process, PID 1
// at once the rest of the unit, with no agent there.
func TestKilledKeeperOfAUnit(t *testing.T) {
	needSystemd(t)
	dir := dataDir(t)
	d := fresh(t, dir)
	s := leasedSpec(sh(daemons), time.Minute)
	h := start(t, d, s, 1)
	daemon, pid := daemonOf(t, d, s), h.Instance().Pid
	kept := keeperOf(t, h)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(kept, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end of all", func() bool { return !alive(pid) && !alive(daemon) })
	d = open(t, dir)
	if hs, err := d.Adopt(ctxFor(t)); err != nil || len(hs) != 0 {
		t.Errorf("adopted %v, %v", hs, err)
	}
}

// A stopped keeper is killed by the kernel after the deadline, and PID 1 ends the
// rest; a reload of PID 1 in between changes nothing.
func TestStoppedKeeperOfAUnit(t *testing.T) {
	needSystemd(t)
	d := fresh(t, dataDir(t))
	s := leasedSpec(sh(daemons), 3*time.Second)
	h := start(t, d, s, 1)
	daemon, pid := daemonOf(t, d, s), h.Instance().Pid
	if out, err := exec.Command("systemctl", "daemon-reload").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := syscall.Kill(keeperOf(t, h), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	e, ok := nextExit(t, h)
	if !ok || !e.Fenced || e.Signal != syscall.SIGKILL || e.Successor != nil {
		t.Errorf("exit %+v, %v", e, ok)
	}
	if now := bootclock.Now(); now < s.Lease.Deadline || alive(pid) || alive(daemon) {
		t.Errorf("%s after the deadline: copy runs %v, daemon %v", now-s.Lease.Deadline, alive(pid), alive(daemon))
	}
	s.Lease = leasedSpec(nil, time.Minute).Lease
	start(t, d, s, 1)
}

// When the host shuts down, or somebody stops the unit by hand, the copy is asked
// and has its time.
func TestKeeperIsStoppedByPID1(t *testing.T) {
	needSystemd(t)
	d := fresh(t, dataDir(t))
	s := leasedSpec(sh(`trap 'exit 9' TERM; : >$STATE_DIR/pid; while :; do sleep 0.02; done`), time.Minute)
	h := start(t, d, s, 1)
	eventually(t, "the trap", func() bool {
		_, err := os.Stat(d.dirs.copyDir(s.ID) + "/" + stateDir + "/pid")
		return err == nil
	})
	stopUnits(t, d)
	if e, ok := nextExit(t, h); !ok || e.Code != 9 || e.Signal != 0 || e.Fenced {
		t.Errorf("exit %+v, %v", e, ok)
	}
}

// stopUnits asks PID 1 to stop all units of a driver.
func stopUnits(t *testing.T, d *Driver) {
	t.Helper()
	if out, err := exec.Command("systemctl", "stop", unitPrefix+"*-"+d.tag+"*"+unitSuffix).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}
