//go:build linux

package process

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/workload"
	"github.com/ganglion-mesh/ganglion/workload/bootclock"
	"github.com/ganglion-mesh/ganglion/workload/program"
)

func leasedShell(n int, script string, in time.Duration) workload.Spec {
	s := shell(n, script)
	s.Lease = &workload.Lease{Token: 7, Deadline: bootclock.Now() + in, Signal: syscall.SIGTERM}
	return s
}

// family is a copy that heeds no signal, with a daemon that has left its session,
// its parents and, but for its path, its environment.
const family = `(setsid env -i /bin/sh -c 'trap "" TERM; echo $$ >'$STATE_DIR/pid.new'; mv '$STATE_DIR/pid.new' '$STATE_DIR/pid'; sleep 1000' &); trap "" TERM; sleep 1000`

// daemonOf waits for a daemon's pid; 0 if the lease is over before.
func daemonOf(t *testing.T, d *Driver, s workload.Spec) (pid int) {
	t.Helper()
	file := filepath.Join(d.copyDir(s.ID), stateDir, "pid")
	until(t, "the daemon", func() bool {
		b, _ := os.ReadFile(file)
		pid, _ = strconv.Atoi(strings.TrimSpace(string(b)))
		return pid > 0 || bootclock.Now() > s.Lease.Deadline
	})
	_ = os.Remove(file)
	return pid
}

// inTime gives f leases that are short, and longer where the machine is too busy
// to do in them what f does first.
func inTime(t *testing.T, f func(in time.Duration) bool) {
	t.Helper()
	for in := time.Second; !f(in); in *= 2 {
		if in > time.Minute {
			t.Fatal("no lease is long enough")
		}
	}
}

// outran tells whether a daemon has outlived its copy, and ends it. Without a
// cgroup that may be where the machine starved the keeper for so long that its own
// timer ended it, and with it the copy's first process alone. It may not be
// always.
func outran(t *testing.T, daemon int) bool {
	t.Helper()
	for begun := bootclock.Now(); alive(daemon); <-time.After(5 * time.Millisecond) {
		if bootclock.Now()-begun > 2*time.Second {
			t.Log("the keeper came too late for a daemon of its copy")
			_ = syscall.Kill(daemon, syscall.SIGKILL)
			return true
		}
	}
	return false
}

// suspend stops a process, and waits until it is.
func suspend(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	until(t, "the process is stopped", func() bool {
		st, err := program.ReadStat(pid)
		return err != nil || st.State == 'T'
	})
}

func startLeased(t *testing.T, d *Driver, s workload.Spec) *leased {
	t.Helper()
	h, err := d.Start(ctxOf(t), s, 1)
	if err != nil {
		t.Fatal(err)
	}
	return h.(*leased)
}

// A daemon that hides from every search of the driver's hangs below the keeper
// all the same: it ends with the lease, and with a stop.
func TestLeaseEndsDaemons(t *testing.T) {
	modes(t, func(t *testing.T, cfg Config) {
		d := fresh(t, cfg)
		inTime(t, func(in time.Duration) bool {
			s := leasedShell(1, family, in)
			h, err := d.Start(ctxOf(t), s, 1)
			if err != nil {
				return false
			}
			daemon := daemonOf(t, d, s)
			if e := exitFrom(t, h); !e.Fenced || bootclock.Now() < s.Lease.Deadline {
				t.Errorf("exit %+v", e)
			}
			if alive(h.Instance().Pid) {
				t.Error("the lease is over, and the copy runs")
			}
			return daemon != 0 && !outran(t, daemon)
		})
		s := leasedShell(2, family, time.Hour)
		h := startLeased(t, d, s)
		daemon := daemonOf(t, d, s)
		stop(t, h, 0)
		if alive(daemon) || alive(h.Instance().Pid) {
			t.Error("stopped, and something of the copy runs")
		}
	})
}

// A keeper that is killed takes its copy along, and the driver what that leaves
// and can be seen; the exit comes when that is done.
func TestKilledKeeper(t *testing.T) {
	modes(t, func(t *testing.T, cfg Config) {
		d := fresh(t, cfg)
		script := strings.Replace(family, "env -i ", "", 1)
		for n := 1; n <= 2; n++ {
			s := leasedShell(1, script, time.Hour)
			h := startLeased(t, d, s)
			daemon, pid := daemonOf(t, d, s), h.Instance().Pid
			if err := syscall.Kill(h.process.inst.Pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			if e := exitFrom(t, h); e.Signal != syscall.SIGKILL || e.Fenced || e.Successor != nil {
				t.Errorf("exit %+v", e)
			}
			if alive(pid) || alive(daemon) {
				t.Errorf("the exit is told; copy runs %v, daemon %v", alive(pid), alive(daemon))
			}
		}
	})
}

// A process in its end shows no mark any more, and holds what it held: its files,
// locks and ports. The exit of its copy waits for it.
func TestKilledKeeperOfALargeDaemon(t *testing.T) {
	modes(t, func(t *testing.T, cfg Config) {
		d := fresh(t, cfg)
		s := leasedShell(1, fmt.Sprintf(`(%s=stuffed setsid %s &); exec sleep 1000`, roleVar, self(t)), time.Hour)
		h := startLeased(t, d, s)
		daemon := daemonOf(t, d, s)
		if err := syscall.Kill(h.process.inst.Pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		exitFrom(t, h)
		if alive(daemon) {
			t.Error("the exit is told, and a daemon of the copy is still in its end")
		}
	})
}

// A keeper that is stopped is ended by the kernel, after its deadline; one that a
// Stop finds stopped, at once.
func TestStoppedKeeper(t *testing.T) {
	modes(t, func(t *testing.T, cfg Config) {
		d := fresh(t, cfg)
		inTime(t, func(in time.Duration) bool {
			s := leasedShell(1, `trap "" TERM; exec sleep 1000`, in)
			h, err := d.Start(ctxOf(t), s, 1)
			if err != nil {
				return false
			}
			suspend(t, h.(*leased).process.inst.Pid)
			bites := bootclock.Now() < s.Lease.Deadline
			if e := exitFrom(t, h); !e.Fenced || bootclock.Now() < s.Lease.Deadline || alive(h.Instance().Pid) {
				t.Errorf("exit %+v, %s after the deadline", e, bootclock.Now()-s.Lease.Deadline)
			}
			return bites
		})
		h := startLeased(t, d, leasedShell(1, `trap "" TERM; exec sleep 1000`, time.Hour))
		suspend(t, h.process.inst.Pid)
		soon, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		if err := h.Extend(soon, 7, h.Lease().Deadline+1); err == nil {
			t.Error("a stopped keeper has answered")
		}
		cancel()
		stop(t, h, time.Hour)
		if alive(h.Instance().Pid) {
			t.Error("stopped, and it runs")
		}
	})
}

// An agent that is stopped (SIGSTOP), and one that is killed, hold up no end.
func TestLeaseOutlivesNoAgent(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGSTOP, syscall.SIGKILL} {
		t.Run(sig.String(), func(t *testing.T) {
			d := fresh(t, Config{})
			d.Close()
			inTime(t, func(in time.Duration) bool {
				s := leasedShell(1, family, in)
				agent, copies := startAgent(t, "agent", agentConfig{Dir: d.cfg.Dir, Start: []workload.Spec{s}})
				daemon, pid := daemonOf(t, d, s), copies[s.ID.String()]
				_ = agent.Process.Signal(sig)
				until(t, "the copy's end", func() bool { return !alive(pid) })
				if outran(t, daemon) {
					_ = agent.Process.Kill()
					return false
				}
				now := bootclock.Now()
				if daemon != 0 && (now < s.Lease.Deadline || now > s.Lease.Deadline+5*time.Second) {
					t.Errorf("ended %s after the deadline", now-s.Lease.Deadline)
				}
				_ = agent.Process.Kill()
				return daemon != 0 && pid != 0
			})
		})
	}
}

// An agent that dies between the keeper's start and its record leaves a keeper
// with nothing to keep. It starts nothing, and does not stand in the way.
func TestKeeperWithoutOrders(t *testing.T) {
	d := fresh(t, Config{})
	s := leasedShell(1, "exec sleep 1000", time.Hour)
	p, err := d.prepare(s)
	if err != nil {
		t.Fatal(err)
	}
	h, err := d.startKeeper(p, 1)
	if err != nil {
		t.Fatal(err)
	}
	pid := h.inst.Pid
	next := open(t, d.cfg)
	if hs, err := next.Adopt(ctxOf(t)); err != nil || len(hs) != 0 {
		t.Fatalf("adopted %v, %v", hs, err)
	}
	until(t, "the keeper's end", func() bool { return !alive(pid) })
	h2, err := next.Start(ctxOf(t), s, 1)
	if err != nil {
		t.Fatal(err)
	}
	stop(t, h2, 0)
	p.close()
}

// The copy of a singleton is confined as any other.
func TestLeasedCopyIsConfined(t *testing.T) {
	needRoot(t)
	d := fresh(t, Config{})
	const look = "grep -E '^(Uid|Gid|Groups|Cap...|NoNewPrivs|SigIgn|SigBlk|Umask):' /proc/self/status; ls -l /proc/self/fd | wc -l; cat /proc/self/oom_score_adj; exec sleep 1000"
	a, b := shell(1, look), leasedShell(2, look, time.Hour)
	start(t, d, a, 1)
	h := startLeased(t, d, b)
	lines := func(id workload.CopyID) (text string) {
		path, _ := d.out.Paths(id)
		until(t, "output of "+id.String(), func() bool {
			b, _ := os.ReadFile(path)
			text = string(b)
			return strings.Count(text, "\n") == 14
		})
		return text
	}
	want, got := lines(a.ID), lines(b.ID)
	if got != want || want == "" {
		t.Errorf("a singleton's copy sees\n%s\nanother copy\n%s", got, want)
	}
	st, err := program.ReadStat(h.Instance().Pid)
	if err != nil || st.Session != h.Instance().Pid || st.Parent != h.process.inst.Pid {
		t.Errorf("%+v, %v", st, err)
	}
	stop(t, h, 0)
}
