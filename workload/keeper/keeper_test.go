//go:build linux

package keeper

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ganglion-mesh/ganglion/workload"
	"github.com/ganglion-mesh/ganglion/workload/bootclock"
	"github.com/ganglion-mesh/ganglion/workload/program"
)

// roleVar has the test binary play a keeper, or somebody who has no business
// with one.
const roleVar = "TEST_ROLE"

const patience = 20 * time.Second

func TestMain(m *testing.M) {
	switch os.Getenv(roleVar) {
	case "keeper":
		if err := Run(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	case "intruder":
		_, err := NewClient(os.Args[1]).Status(context.Background())
		fmt.Println(err)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// rig is a keeper of the test's own, and a directory for what its copy writes.
type rig struct {
	t      *testing.T
	dir    string
	cmd    *exec.Cmd
	client *Client
	ended  chan struct{}
	take   func(Status) bool
	said   chan Status // the last that a started keeper said, at its end
}

func launch(t *testing.T, change ...func(*exec.Cmd)) *rig {
	t.Helper()
	dir, err := os.MkdirTemp("", "keeper-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "orders")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	r := &rig{t: t, dir: dir, client: NewClient(path), ended: make(chan struct{}), said: make(chan Status, 1)}
	r.cmd = exec.Command("/proc/self/exe")
	r.cmd.Env = []string{roleVar + "=keeper"}
	r.cmd.Stdin = l
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	for _, f := range change {
		f(r.cmd)
	}
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(r.ended)
		_ = r.cmd.Wait()
	}()
	t.Cleanup(func() {
		left := descendants(r.cmd.Process.Pid)
		_ = r.cmd.Process.Kill()
		<-r.ended
		for pid, start := range left {
			program.KillExact(pid, start)
		}
	})
	return r
}

func (r *rig) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	r.t.Cleanup(cancel)
	return ctx
}

// shell is a program whose first word is to write its pid into the directory.
func (r *rig) shell(script string) Program {
	return Program{
		Path: "/bin/sh", Argv: []string{"sh", "-c", "echo $$ >>" + r.dir + "/pids; " + script},
		Env: []string{"PATH=" + workload.PlainPath, "D=" + r.dir}, Dir: r.dir, Plain: os.Geteuid() == 0,
	}
}

// lease is one that ends in a while.
func lease(in, fence time.Duration) workload.Lease {
	return workload.Lease{Token: 7, Deadline: bootclock.Now() + in, Fence: fence, Signal: syscall.SIGTERM}
}

func (r *rig) start(p Program, l workload.Lease) Status {
	r.t.Helper()
	st, err := r.tryStart(p, l)
	if err != nil {
		r.t.Fatal(err)
	}
	return st
}

// tryStart is start for a lease that may be over too soon.
func (r *rig) tryStart(p Program, l workload.Lease) (Status, error) {
	r.t.Helper()
	w, st, err := r.client.Begin(r.ctx(), p, func() workload.Lease { return l }, 1)
	if err != nil {
		return st, err
	}
	if st.Phase != "running" || st.Pid == 0 || st.Start != 1 || st.Lease != l {
		r.t.Fatalf("started as %+v", st)
	}
	ctx := r.ctx()
	go func() {
		defer w.Close()
		last := st
		_ = w.Follow(ctx, func(st Status) bool {
			last = st
			return r.take != nil && r.take(st)
		})
		r.said <- last
	}()
	return st, nil
}

// inTime gives f leases that are short, and longer ones where the machine is too
// busy to do in them what f does first.
func inTime(t *testing.T, f func(r *rig, in time.Duration) bool) {
	t.Helper()
	for in := time.Second; !f(launch(t), in); in *= 2 {
		if in > time.Minute {
			t.Fatal("no lease is long enough")
		}
	}
}

// pids are all that processes of the copy have written down.
func (r *rig) pids() (pids []int) {
	b, _ := os.ReadFile(r.dir + "/pids")
	for f := range strings.FieldsSeq(string(b)) {
		if pid, err := strconv.Atoi(f); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

func running(pid int) bool {
	st, err := program.ReadStat(pid)
	return err == nil && st.Running()
}

func (r *rig) until(what string, cond func() bool) {
	r.t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for ctx := r.ctx(); !cond(); {
		select {
		case <-tick.C:
		case <-ctx.Done():
			r.t.Fatalf("waited in vain: %s", what)
		}
	}
}

// gone waits until nothing of the copy runs and returns when that was.
func (r *rig) gone() time.Duration {
	r.t.Helper()
	r.until("the copy's end", func() bool {
		for _, pid := range r.pids() {
			if running(pid) {
				return false
			}
		}
		return true
	})
	return bootclock.Now()
}

// endLeft ends by hand what a starved keeper has left of its copy.
func (r *rig) endLeft() {
	for _, pid := range r.pids() {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

// wrote tells whether the copy has made a file of that name.
func (r *rig) wrote(name string) bool {
	_, err := os.Stat(r.dir + "/" + name)
	return err == nil
}

// last waits for the keeper's end and returns the last it said.
func (r *rig) last() Status {
	r.t.Helper()
	select {
	case <-r.ended:
	case <-time.After(patience):
		r.t.Fatal("the keeper does not end")
	}
	return <-r.said
}

// swarm is a copy that heeds nothing, and has a child, a daemon with a session of
// its own and a daemon's daemon that nobody waits for.
const swarm = `trap "" TERM
daemon() { setsid sh -c 'trap "" TERM; echo $$ >>$D/pids; setsid sh -c "echo \$\$ >>$D/pids; exec sleep 1000" & sleep 1000' & }
sh -c 'echo $$ >>$D/pids; exec sleep 1000' &
(daemon)
exec sleep 1000`

func TestAllOfTheCopyDiesAtTheDeadline(t *testing.T) {
	inTime(t, func(r *rig, in time.Duration) bool {
		l := lease(in, 200*time.Millisecond)
		if _, err := r.tryStart(r.shell(swarm), l); err != nil {
			return false
		}
		r.until("four processes", func() bool { return len(r.pids()) == 4 || bootclock.Now() > l.Deadline })
		st := r.last()
		if len(r.pids()) < 4 || st.Phase != "over" { // killed by its own timer: it was starved
			r.endLeft()
			return false
		}
		if end := r.gone(); end < l.Deadline || end > l.Deadline+5*time.Second {
			t.Errorf("ended %s after the deadline", end-l.Deadline)
		}
		if !st.Last.Fenced || st.Last.Signal != syscall.SIGKILL || st.Last.Start != 1 {
			t.Errorf("last words %+v", st)
		}
		return true
	})
}

func TestFenceIsAsked(t *testing.T) {
	inTime(t, func(r *rig, in time.Duration) bool {
		l := lease(in+patience, patience)
		if _, err := r.tryStart(r.shell(`trap "exit 3" TERM; : >$D/ready; while :; do sleep 0.01; done`), l); err != nil {
			return false
		}
		r.until("the trap", func() bool { return r.wrote("ready") || bootclock.Now() > l.Deadline-l.Fence })
		trapped := bootclock.Now() < l.Deadline-l.Fence
		st := r.last()
		if trapped && (!st.Last.Fenced || st.Last.Code != 3 || st.Last.Signal != 0 || bootclock.Now() >= l.Deadline) {
			t.Errorf("last words %+v", st)
		}
		r.gone()
		return trapped
	})
}

func TestExtendMovesTheEnd(t *testing.T) {
	inTime(t, func(r *rig, in time.Duration) bool {
		l := lease(in, 100*time.Millisecond)
		st, err := r.tryStart(r.shell(`exec sleep 1000`), l)
		if err != nil {
			return false
		}
		pid, later := st.Pid, l.Deadline+700*time.Millisecond
		for _, bad := range []struct {
			token    uint64
			deadline time.Duration
		}{{8, later}, {6, later}, {7, l.Deadline - 1}} {
			if st, err := r.client.Extend(r.ctx(), bad.token, bad.deadline); err == nil {
				t.Errorf("token %d, deadline %s: taken as %+v", bad.token, bad.deadline-l.Deadline, st.Lease)
			}
		}
		st, err = r.client.Extend(r.ctx(), 7, later)
		if bootclock.Now() >= l.Deadline-l.Fence {
			return false
		}
		if err != nil || st.Lease.Deadline != later || st.Pid != pid {
			t.Fatalf("%+v, %v", st, err)
		}
		r.last()
		if end := r.gone(); end < later-l.Fence {
			t.Errorf("ended %s before the fence of the later deadline", later-l.Fence-end)
		}
		return true
	})
}

func TestNoStartWithoutALease(t *testing.T) {
	r := launch(t)
	if st, err := r.client.Start(r.ctx(), r.shell("exit 0"), lease(time.Second, time.Second), 1); err == nil || st.Pid != 0 {
		t.Errorf("%+v, %v", st, err)
	}
	if pids := r.pids(); pids != nil {
		t.Errorf("processes %v ran", pids)
	}
}

func TestRestartWithinTheLease(t *testing.T) {
	r := launch(t)
	p := r.shell(`echo $GANGLION_START >>$D/starts; exit 5`)
	r.take = func(st Status) bool { return st.Delayed }
	r.start(p, lease(time.Minute, time.Second))
	last := r.last() // at once the first time; then the agent takes the rest over
	if last.Phase != "over" || last.Start < 2 || last.Last.Code != 5 || last.Last.Start != last.Start || last.Last.Fenced {
		t.Errorf("last words %+v", last)
	}
	want := "1\n2\n"
	for n := 3; n <= last.Start; n++ { // the agent was starved while the keeper waited for it
		want += strconv.Itoa(n) + "\n"
	}
	if b, _ := os.ReadFile(r.dir + "/starts"); string(b) != want {
		t.Errorf("starts %q, want %q", b, want)
	}
}

// With no agent that takes it over, the keeper waits and restarts by itself.
func TestRestartWithNobodyThere(t *testing.T) {
	r := launch(t)
	r.start(r.shell(`test $GANGLION_START -gt 2 && exec sleep 1000; exit 5`), lease(time.Minute, time.Second))
	r.until("start 3", func() bool { st, err := r.client.Status(r.ctx()); return err == nil && st.Start == 3 && st.Pid != 0 })
}

func TestKilledKeeperTakesItsCopyAlong(t *testing.T) {
	r := launch(t)
	r.start(r.shell(`trap "" TERM; exec sleep 1000`), lease(time.Minute, time.Second))
	r.until("the copy", func() bool { return len(r.pids()) == 1 })
	if err := r.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	r.gone()
}

// A keeper that is stopped cannot kill. The kernel does it in its place.
func TestStoppedKeeperEndsAtTheDeadline(t *testing.T) {
	inTime(t, func(r *rig, in time.Duration) bool {
		l := lease(in, 100*time.Millisecond)
		if _, err := r.tryStart(r.shell(`trap "" TERM; exec sleep 1000`), l); err != nil {
			return false
		}
		r.until("the copy", func() bool { return len(r.pids()) == 1 || bootclock.Now() > l.Deadline-l.Fence })
		_ = r.cmd.Process.Signal(syscall.SIGSTOP)
		r.until("it is stopped", func() bool {
			st, err := program.ReadStat(r.cmd.Process.Pid)
			return err != nil || st.State == 'T' || !st.Running()
		})
		if len(r.pids()) == 0 || bootclock.Now() >= l.Deadline-l.Fence {
			return false
		}
		if end := r.gone(); end < l.Deadline || end > l.Deadline+5*time.Second {
			t.Errorf("ended %s after the deadline", end-l.Deadline)
		}
		<-r.ended
		return true
	})
}

func TestStopGoesThroughTheKeeper(t *testing.T) {
	for _, c := range []struct {
		name, script string
		grace        time.Duration
		code         int
		sig          syscall.Signal
	}{
		{"heeds", `trap "exit 4" USR1; : >$D/ready; while :; do sleep 0.01; done`, patience, 4, 0},
		{"stubborn", `trap "" USR1; : >$D/ready; exec sleep 1000`, 200 * time.Millisecond, 0, syscall.SIGKILL},
		{"at once", ": >$D/ready; " + swarm, 0, 0, syscall.SIGKILL},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := launch(t)
			r.start(r.shell(c.script), lease(time.Minute, time.Second))
			r.until("the trap", func() bool { return r.wrote("ready") })
			if _, err := r.client.Stop(r.ctx(), syscall.SIGUSR1, c.grace); err != nil {
				t.Fatal(err)
			}
			st := r.last()
			if st.Last.Fenced || st.Last.Signal != c.sig || st.Last.Code != c.code || st.Phase != "over" {
				t.Errorf("last words %+v", st)
			}
			r.gone()
		})
	}
}

// What the agent's terminal or PID 1 says: the first is not for the keeper, the
// second is a stop with the whole grace.
func TestSignalsToTheKeeper(t *testing.T) {
	r := launch(t)
	p := r.shell(`trap "exit 6" TERM; : >$D/ready; while :; do sleep 0.01; done`)
	p.Grace = patience
	r.start(p, lease(time.Minute, time.Second))
	r.until("the trap", func() bool { return r.wrote("ready") })
	for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGTSTP, syscall.SIGPIPE, syscall.SIGTERM} {
		if err := r.cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
	}
	if st := r.last(); st.Last.Code != 6 || st.Last.Fenced {
		t.Errorf("last words %+v", st)
	}
}

func TestStartThatFails(t *testing.T) {
	r := launch(t)
	p := r.shell("")
	p.Path = "/no/such/program"
	_, err := r.client.Start(r.ctx(), p, lease(time.Minute, time.Second), 1)
	var se *StartError
	if !errors.As(err, &se) || !errors.Is(err, syscall.ENOENT) {
		t.Errorf("error %v, want one of the exec", err)
	}
	select {
	case <-r.ended:
	case <-time.After(patience):
		t.Error("the keeper stays, for nothing")
	}
}

// Whatever is written into the socket, the keeper keeps.
func TestHostileOrders(t *testing.T) {
	r := launch(t)
	pid := r.start(r.shell("exec sleep 1000"), lease(time.Minute, time.Second)).Pid
	send := func(b []byte) {
		conn, err := net.Dial("unix", r.client.path)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_, _ = conn.Write(b)
		_ = conn.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
		_, _ = conn.Read(make([]byte, 1))
	}
	for _, b := range []string{"", "\n", "{}\n", "null\n", "[]\n", `{"op":"start"}` + "\n", `{"op":"start","program":{},"lease":{}}` + "\n", `{"op":"x"}` + "\n",
		`{"op":"extend","token":-1}` + "\n", `{"op":"extend","token":7,"deadline":-5}` + "\n", `{"op":"signal","signal":0}` + "\n",
		`{"op":"take","start":1}` + "\n", strings.Repeat("x", startBytes+10)} {
		send([]byte(b))
	}
	var idle []net.Conn
	for range 2 * maxConns {
		conn, err := net.Dial("unix", r.client.path)
		if err != nil {
			break
		}
		idle = append(idle, conn)
	}
	for _, c := range idle {
		c.Close()
	}
	r.until("an answer", func() bool { st, err := r.client.Status(r.ctx()); return err == nil && st.Pid == pid && st.Start == 1 })
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

func TestOnlyItsOwnUserMayOrder(t *testing.T) {
	needRoot(t)
	r := launch(t)
	r.start(r.shell("exec sleep 1000"), lease(time.Minute, time.Second))
	if err := os.Chmod(r.client.path, 0o777); err != nil {
		t.Fatal(err)
	}
	exe, err := os.ReadFile("/proc/self/exe")
	if err == nil {
		err = os.WriteFile(r.dir+"/intruder", exe, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(r.dir+"/intruder", r.client.path)
	cmd.Env = []string{roleVar + "=intruder"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65533, Gid: 65533}}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), " keeper: ") {
		t.Errorf("the keeper answers: %s, %v", out, err)
	}
}

// Where PID 1 starts the keeper as the copy's user, the keeper becomes another,
// and the copy has what an ordinary copy has: no right but its user's.
func TestKeeperIsOutOfItsCopysReach(t *testing.T) {
	needRoot(t)
	r := launch(t, func(cmd *exec.Cmd) {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: 65533, Gid: 65533}
		cmd.SysProcAttr.AmbientCaps = []uintptr{unix.CAP_SETUID, unix.CAP_SETGID, unix.CAP_SETPCAP, unix.CAP_KILL}
	})
	p := r.shell(`kill -STOP $PPID && echo reached >$D/reached; cat /proc/self/status >$D/status.new; mv $D/status.new $D/status; exec sleep 1000`)
	p.Plain = false
	r.start(p, lease(time.Minute, time.Second))
	r.until("the copy's report", func() bool { return r.wrote("status") })
	if r.wrote("reached") {
		t.Error("the copy may signal its keeper")
	}
	b, _ := os.ReadFile(r.dir + "/status")
	text := strings.ReplaceAll(string(b), "\t", " ")
	for _, want := range []string{"Uid: 65533 65533 65533 65533", "Gid: 65533 65533", "CapInh: 0000000000000000", "CapPrm: 0000000000000000", "CapEff: 0000000000000000", "CapBnd: 0000000000000000", "CapAmb: 0000000000000000", "NoNewPrivs: 1", "SigBlk: 0000000000000000"} {
		if !strings.Contains(text, want) {
			t.Errorf("the copy's status lacks %q:\n%s", want, text)
		}
	}
	// Signals 32 and up are the C library's; make, for one, leaves some ignored.
	if !regexp.MustCompile(`SigIgn: [0-9a-f]{8}[08]0000000\n`).MatchString(text) {
		t.Errorf("the copy ignores signals:\n%s", text)
	}
	b, _ = os.ReadFile("/proc/" + strconv.Itoa(r.cmd.Process.Pid) + "/status")
	if !strings.Contains(string(b), "Uid:\t0\t0\t0\t0") {
		t.Errorf("the keeper's status:\n%s", b)
	}
	if _, err := r.client.Stop(r.ctx(), 0, 0); err != nil {
		t.Fatal(err)
	}
	r.last()
	r.gone()
}

func TestLongPaths(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("x", 120))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "orders")
	for range 2 { // what an earlier keeper left is no hindrance
		f, err := Listen(path)
		if err != nil {
			t.Fatal(err)
		}
		l, err := net.FileListener(f)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			conn, err := l.Accept()
			if err == nil {
				_, _ = readRequest(newLines(conn, startBytes))
				_ = write(conn, reply{Status: Status{Phase: "running"}})
				conn.Close()
			}
		}()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		if st, err := NewClient(path).Status(ctx); err != nil || st.Phase != "running" {
			t.Errorf("%+v, %v", st, err)
		}
		cancel()
		l.Close()
		f.Close()
	}
}
