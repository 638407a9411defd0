package integration

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ganglion-mesh/ganglion/integration/rig"
)

const (
	peerKills = 220 // of each

	// calm is how long a copy is left alone before it is killed: runit pauses a
	// service that ends within a second of its start, and s6 one that became ready
	// within it. The point is how fast a first restart is.
	calm = 1300 * time.Millisecond

	// ownCopies are killed in turn, so that to the agent each end is a first one.
	ownCopies = 20
)

// BenchmarkRestartBesidePeers measures from the SIGKILL of a process to its
// replacement executing: by a whole agent, by the C floor, and by the supervisors
// of other houses at the best settings they have, each as Debian packages it. All
// keep the same program, are killed at random phases in the same minutes, and have
// ordinary priority, but for the agent, which raises its own. "saturated" has two
// busy loops to each core beside them.
//
// The Unix ones count from the directory or the file that says what to run; systemd
// has a benchmark of its own, under nspawn.
func BenchmarkRestartBesidePeers(b *testing.B) {
	b.Run("idle", func(b *testing.B) { benchPeers(b, 0) })
	b.Run("saturated", func(b *testing.B) { benchPeers(b, 2*runtime.NumCPU()) })
}

// peer is what keeps a program running, and where that prints its stamps.
type peer struct {
	name   string
	stamps []string // of each of its copies
	reap   bool     // its copies are left to the nearest subreaper, which is this process
}

func benchPeers(b *testing.B, hogs int) {
	stamp := compileC(b, "stamp")
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		b.Fatal(err)
	}
	defer func() { _ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0) }()
	peers := []peer{{name: "floor", stamps: []string{startFloor(b, compileC(b, "floor"), stamp)}}, startAgentPeer(b, stamp)}
	for _, start := range []func(*testing.B, string) (peer, error){startRunit, startS6, startS6Ready, startSupervisord, startMonit} {
		p, err := start(b, stamp)
		if err != nil {
			b.Logf("not beside %s: %v", p.name, err)
			continue
		}
		peers = append(peers, p)
	}
	for range hogs {
		spawn(b, exec.Command("sh", "-c", "while :; do :; done"))
	}
	took := make([][]time.Duration, len(peers))
	for b.Loop() {
		var all sync.WaitGroup
		for i, p := range peers {
			all.Go(func() { took[i] = append(took[i], p.kills(b)...) })
		}
		all.Wait()
	}
	b.ReportMetric(0, "ns/op")
	for i, p := range peers {
		slices.Sort(took[i])
		at := func(q float64) float64 { return float64(took[i][int(q*float64(len(took[i])-1))].Microseconds()) / 1e3 }
		b.ReportMetric(at(.5), p.name+"-p50-ms")
		b.ReportMetric(at(.99), p.name+"-p99-ms")
	}
}

// kills kills the copies of a peer in turn.
func (p peer) kills(b *testing.B) (took []time.Duration) {
	for n := range peerKills {
		time.Sleep(calm + time.Duration(rand.IntN(20000))*time.Microsecond) //nolint:forbidigo // the pause is the set-up
		path := p.stamps[n%len(p.stamps)]
		pid, _, size := lastStamp(b, path, 0)
		begun := monotonic()
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			b.Error(err)
			return took
		}
		if p.reap { // else it is a zombie, and to monit it lives
			_, _ = syscall.Wait4(pid, nil, 0, nil)
		}
		_, at, _ := lastStamp(b, path, size)
		took = append(took, time.Duration(at-begun))
	}
	return took
}

func monotonic() int64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return ts.Nano()
}

func startAgentPeer(b *testing.B, stamp string) peer {
	r := rig.New(b, 1)
	h := r.Hosts[0]
	h.StartAgent()
	h.Must("init", "--name", "bench")
	h.Must("apply", h.File("bench.hcl", fmt.Sprintf("app \"bench\" {\n count = %d\n run { command = [%q] }\n restart { limit = 1000 }\n}\n", ownCopies, stamp)))
	p := peer{name: "ganglion"}
	for n := range ownCopies {
		p.stamps = append(p.stamps, filepath.Join(h.DataDir(), "output", "bench", strconv.Itoa(n), "stdout.log"))
	}
	return p
}

// startRunit has the program itself as the run file: a shell would cost a
// millisecond.
func startRunit(b *testing.B, stamp string) (peer, error) {
	p := peer{name: "runit"}
	dir := serviceDir(b, stamp)
	return p, superviseInto(b, &p, dir, "runsv", dir)
}

// startS6 is s6 as most have it: without a notification of readiness it pauses a
// second before each restart.
func startS6(b *testing.B, stamp string) (peer, error) {
	p := peer{name: "s6"}
	dir := serviceDir(b, stamp)
	return p, superviseInto(b, &p, dir, "s6-supervise", dir)
}

func startS6Ready(b *testing.B, _ string) (peer, error) {
	p := peer{name: "s6-ready"}
	dir := serviceDir(b, compileC(b, "stamp", "-DREADY_FD=3"))
	if err := os.WriteFile(filepath.Join(dir, "notification-fd"), []byte("3\n"), 0o600); err != nil {
		return p, err
	}
	return p, superviseInto(b, &p, dir, "s6-supervise", dir)
}

func serviceDir(b *testing.B, stamp string) string {
	dir := filepath.Join(b.TempDir(), "service")
	if err := os.Mkdir(dir, 0o700); err != nil {
		b.Fatal(err)
	}
	if err := os.Symlink(stamp, filepath.Join(dir, "run")); err != nil {
		b.Fatal(err)
	}
	return dir
}

func startSupervisord(b *testing.B, stamp string) (peer, error) {
	p := peer{name: "supervisord"}
	dir := b.TempDir()
	p.stamps = []string{filepath.Join(dir, "stamps")}
	conf := filepath.Join(dir, "supervisord.conf")
	text := fmt.Sprintf("[supervisord]\nnodaemon=true\nlogfile=/dev/null\nlogfile_maxbytes=0\npidfile=%s/pid\nchildlogdir=%s\n"+
		"[program:stamp]\ncommand=%s\nautorestart=true\nstartretries=1000\nstdout_logfile=%s\nstdout_logfile_maxbytes=0\n",
		dir, dir, stamp, p.stamps[0])
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return p, err
	}
	return p, superviseInto(b, nil, dir, "supervisord", "-c", conf)
}

// startMonit polls every second, the least it can; Debian's setting is 120.
func startMonit(b *testing.B, stamp string) (peer, error) {
	p := peer{name: "monit", reap: true}
	dir := b.TempDir()
	p.stamps = []string{filepath.Join(dir, "stamps")}
	start, conf := filepath.Join(dir, "start"), filepath.Join(dir, "monitrc")
	script := fmt.Sprintf("#!/bin/sh\n%s >>%s </dev/null &\necho $! >%s/pid\n", stamp, p.stamps[0], dir)
	if err := os.WriteFile(start, []byte(script), 0o700); err != nil { //nolint:gosec // it is to be executed
		return p, err
	}
	text := fmt.Sprintf("set daemon 1\nset pidfile %[1]s/monit.pid\nset idfile %[1]s/id\nset statefile %[1]s/state\n"+
		"check process stamp with pidfile %[1]s/pid\n  start program = \"%[2]s\"\n  stop program = \"/bin/true\"\n", dir, start)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return p, err
	}
	if err := superviseInto(b, nil, dir, "monit", "-I", "-c", conf); err != nil {
		return p, err
	}
	b.Cleanup(func() { // monit leaves it behind
		if pid, _, _ := lastStamp(b, p.stamps[0], 0); pid > 0 {
			_ = syscall.Kill(pid, syscall.SIGKILL)
			_, _ = syscall.Wait4(pid, nil, 0, nil)
		}
	})
	return p, nil
}

// superviseInto starts a supervisor. With p, what it runs prints into a file of
// p's.
func superviseInto(b *testing.B, p *peer, dir, name string, args ...string) error {
	path, err := exec.LookPath(name)
	if err != nil {
		return err
	}
	cmd := exec.Command(path, args...)
	cmd.Dir = dir
	if p != nil {
		p.stamps = []string{filepath.Join(b.TempDir(), "stamps")}
		out, err := os.OpenFile(p.stamps[0], os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		if err != nil {
			return err
		}
		defer out.Close()
		cmd.Stdout = out
	}
	spawn(b, cmd)
	return nil
}

// spawn starts a command in a session of its own, and ends all of that with the
// benchmark.
func spawn(b *testing.B, cmd *exec.Cmd) {
	b.Helper()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		late := time.AfterFunc(3*time.Second, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
		_ = cmd.Wait()
		late.Stop()
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	})
}
