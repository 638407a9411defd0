//go:build linux

package process

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ganglion-mesh/ganglion/workload"
	"github.com/ganglion-mesh/ganglion/workload/program"
)

func adopt(t *testing.T, d *Driver) []*handle {
	t.Helper()
	hs, err := d.Adopt(ctxOf(t))
	if err != nil {
		t.Fatal(err)
	}
	var all []*handle
	for _, h := range hs {
		all = append(all, h.(*handle))
	}
	return all
}

// An agent is killed -9 and the next one has the same processes, twice; then
// how they end is known, though they are nobody's children any more.
func TestAgentKilled(t *testing.T) {
	modes(t, func(t *testing.T, cfg Config) {
		d := fresh(t, cfg)
		d.Close()
		told := agentConfig{Dir: cfg.Dir, NoCgroups: cfg.NoCgroups}
		for n := range 3 {
			told.Start = append(told.Start, shell(n, `trap "exit 9" USR1; while :; do sleep 0.01; done`))
		}
		first := runAgent(t, "agent", told)
		second := runAgent(t, "agent", told)
		d = open(t, cfg)
		hs := adopt(t, d)
		if len(hs) != 3 {
			t.Fatalf("%d copies adopted", len(hs))
		}
		for _, h := range hs {
			id := h.inst.Spec.ID.String()
			if pid := h.inst.Pid; pid != first[id] || pid != second[id] || !alive(pid) {
				t.Errorf("%s: process %d, then %d, now %d", id, first[id], second[id], pid)
			}
			if (h.group.cg != nil) == cfg.NoCgroups {
				t.Errorf("%s: adopted with group %v", id, h.group.cg)
			}
		}
		if err := hs[0].Signal(syscall.SIGUSR1); err != nil {
			t.Fatal(err)
		}
		if e := exitFrom(t, hs[0]); e.Known && e.Code != 9 || !e.Known && hasPidfdInfo(t) {
			t.Errorf("exit %+v, want 9", e)
		} else if e.Ran <= 0 || e.Ran > patience {
			t.Errorf("ran %v", e.Ran)
		}
		if err := hs[1].Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if e := exitFrom(t, hs[1]); e.Known && e.Signal != syscall.SIGKILL || !e.Known && hasPidfdInfo(t) {
			t.Errorf("exit %+v, want SIGKILL", e)
		}
		stop(t, hs[2], patience)
	})
}

func hasPidfdInfo(t *testing.T) bool {
	t.Helper()
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	var uts unix.Utsname
	_ = unix.Uname(&uts)
	var major, minor int
	_, _ = fmt.Sscanf(unix.ByteSliceToString(uts.Release[:]), "%d.%d", &major, &minor)
	return major > 6 || major == 6 && minor >= 15
}

// The agent is killed between an exec and its record.
func TestKilledBeforeTheRecord(t *testing.T) {
	modes(t, func(t *testing.T, cfg Config) {
		d := fresh(t, cfg)
		d.Close()
		s := shell(1, twiceForked+"exec sleep 1000")
		runAgent(t, "agent-dies-unrecorded", agentConfig{Dir: cfg.Dir, NoCgroups: cfg.NoCgroups, Start: []workload.Spec{s}})
		d = open(t, cfg)
		until(t, "the copy", func() bool { return len(marks(t, d)) == 3 })
		if _, err := d.Start(ctxOf(t), s, 1); err == nil {
			t.Fatal("the copy was doubled by an agent that did not adopt")
		}
		if err := d.Purge(ctxOf(t), s.ID); err == nil {
			t.Fatal("a running copy was purged by an agent that did not adopt")
		}
		hs := adopt(t, d)
		if len(hs) != 1 || hs[0].inst.Start != 1 || hs[0].inst.Spec.Version != "v" {
			t.Fatalf("adopted %+v", hs)
		}
		d.Close()
		d = open(t, cfg)
		again := adopt(t, d) // by the record that the first adoption has completed
		if len(again) != 1 || again[0].inst.Pid != hs[0].inst.Pid {
			t.Fatalf("adopted %+v, then %+v", hs[0].inst, again)
		}
		stop(t, again[0], 0)
		if left := marks(t, d); len(left) != 0 {
			t.Errorf("%v are left", left)
		}
	})
}

// rewrite changes the record of a copy.
func rewrite(t *testing.T, d *Driver, id workload.CopyID, change func(*run)) {
	t.Helper()
	dir := d.recordDir(id)
	r, err := readRun(dir)
	if err != nil {
		t.Fatal(err)
	}
	change(&r)
	f, err := os.OpenFile(filepath.Join(dir, runFile), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := writeRun(f, r); err != nil {
		t.Fatal(err)
	}
}

// A number that was given anew is not the copy: it is not adopted and not harmed.
func TestReusedPid(t *testing.T) {
	modes(t, func(t *testing.T, cfg Config) {
		d := fresh(t, cfg)
		s := shell(1, "exec sleep 1000")
		stop(t, start(t, d, s, 1), 0)
		d.Close()
		stranger := exec.Command("sleep", "1000")
		if err := stranger.Start(); err != nil {
			t.Fatal(err)
		}
		defer stranger.Wait()
		defer stranger.Process.Kill()
		st, err := program.ReadStat(stranger.Process.Pid)
		if err != nil {
			t.Fatal(err)
		}
		for name, change := range map[string]func(*run){
			"start time": func(r *run) { r.Pid, r.StartTime = stranger.Process.Pid, st.Start-1 },
			"boot":       func(r *run) { r.Pid, r.StartTime, r.Boot = stranger.Process.Pid, st.Start, "another" },
			"negative":   func(r *run) { r.Pid = -1 },
		} {
			rewrite(t, d, s.ID, func(r *run) { r.Boot = d.boot; change(r) })
			d := open(t, cfg)
			if hs := adopt(t, d); len(hs) != 0 {
				t.Errorf("%s: adopted %+v", name, hs[0].inst)
			}
			stop(t, start(t, d, s, 2), 0)
			d.Close()
			if !alive(stranger.Process.Pid) {
				t.Fatalf("%s: the stranger was killed", name)
			}
		}
	})
}

// Records that are torn or lost do not lose the copy: it carries its mark.
func TestRecordLost(t *testing.T) {
	for name, harm := range map[string]func(dir string) error{
		"torn":  func(dir string) error { return os.Truncate(filepath.Join(dir, runFile), 40) },
		"empty": func(dir string) error { return os.Truncate(filepath.Join(dir, runFile), 0) },
		"gone":  os.RemoveAll,
		"spec gone": func(dir string) error {
			names, _ := filepath.Glob(filepath.Join(dir, specPrefix+"*"))
			return os.Remove(names[0])
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := fresh(t, Config{})
			s := shell(1, "exec sleep 1000")
			s.Env = map[string]string{"PORT_HTTP": "20001"}
			h := start(t, d, s, 4)
			d.Close()
			if err := harm(d.recordDir(s.ID)); err != nil {
				t.Fatal(err)
			}
			for life := range 2 {
				d = open(t, d.cfg)
				hs := adopt(t, d)
				if len(hs) != 1 {
					t.Fatalf("life %d: %d copies adopted", life, len(hs))
				}
				in := hs[0].inst
				if in.Pid != h.inst.Pid || in.Start != 4 || in.Spec.ID != s.ID || in.Spec.Version != "v" ||
					in.Spec.Env["PORT_HTTP"] != "20001" || len(in.Spec.Command) == 0 {
					t.Errorf("life %d: adopted %+v", life, in)
				}
				if life == 1 {
					stop(t, hs[0], 0)
				}
				d.Close()
			}
		})
	}
}

// An app cannot pass a process of its own for a copy of another.
func TestForgedMark(t *testing.T) {
	needRoot(t)
	d := fresh(t, Config{})
	victim := shell(1, "exec sleep 1000")
	victim.ID.App = "victim"
	stop(t, start(t, d, victim, 1), 0)
	if err := os.RemoveAll(d.recordDir(victim.ID)); err != nil {
		t.Fatal(err)
	}
	evil := shell(1, fmt.Sprintf(`%s=%s-00 GANGLION_APP=victim setsid sleep 1001 & exec sleep 1002`, NonceVar, d.tag))
	evil.ID.App = "evil"
	h := start(t, d, evil, 1)
	until(t, "the forger", func() bool { return len(marks(t, d)) == 2 })
	d.Close()
	d = open(t, d.cfg)
	hs := adopt(t, d)
	if len(hs) != 1 || hs[0].inst.Pid != h.inst.Pid {
		t.Fatalf("adopted %d copies, want the one of evil", len(hs))
	}
	stop(t, start(t, d, victim, 2), 0)
	stop(t, hs[0], 0)
}

// What a copy left when it died while no agent was there goes before it is
// started again, and not before.
func TestRemnants(t *testing.T) {
	modes(t, func(t *testing.T, cfg Config) {
		d := fresh(t, cfg)
		s := shell(1, twiceForked+"exec sleep 1000")
		h := start(t, d, s, 1)
		until(t, "the daemon", func() bool { return len(marks(t, d)) == 3 })
		d.Close()
		if err := syscall.Kill(h.inst.Pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		d = open(t, cfg)
		until(t, "the end", func() bool { return !alive(h.inst.Pid) })
		if hs := adopt(t, d); len(hs) != 0 {
			t.Fatalf("adopted the dead or its rest: %+v", hs[0].inst)
		}
		if left := marks(t, d); len(left) != 2 {
			t.Errorf("adopting has ended something: %v are left of two", left)
		}
		next := start(t, d, shell(1, "exec sleep 1000"), 2)
		if left := marks(t, d); len(left) != 1 || left[0] != next.inst.Pid {
			t.Errorf("%v run, want %d alone", left, next.inst.Pid)
		}
		stop(t, next, 0)
	})
}

// How exits are told without PIDFD_GET_INFO.
func TestExitOnOldKernels(t *testing.T) {
	old := exitReader{}
	// A zombie of another's: sleep does not wait for the child it was left.
	parent := exec.Command("/bin/sh", "-c", `sh -c 'echo $$; exec sleep 0.05' & exec sleep 1000`)
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	defer parent.Wait()
	defer parent.Process.Kill()
	var pid int
	if _, err := fmt.Fscan(out, &pid); err != nil {
		t.Fatal(err)
	}
	st, err := program.ReadStat(pid)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	until(t, "the end", func() bool { return ended(fd) })
	if e, child := old.read(fd, pid, st.Start); !e.Known || e.Code != 0 || child {
		t.Errorf("a zombie's exit: %+v, child %v", e, child)
	}
	if e, _ := old.read(fd, pid, st.Start+1); e.Known {
		t.Errorf("the exit of a process with a reused number is known: %+v", e)
	}
	_ = parent.Process.Kill()
	until(t, "the reaping", func() bool { _, err := program.ReadStat(pid); return err != nil })
	if e, _ := old.read(fd, pid, st.Start); e.Known {
		t.Errorf("the exit of a reaped process is known: %+v", e)
	}
	if e, _ := (exitReader{info: true}).read(fd, pid, st.Start); hasPidfdInfo(t) && (!e.Known || e.Code != 0) {
		t.Errorf("the exit of a reaped process by its pidfd: %+v", e)
	}
}
