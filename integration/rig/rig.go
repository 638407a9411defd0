// Package rig runs meshes of real agents on one machine: each host is a network
// namespace with the built binary in it, and tests cut, pause, kill and crash
// them. It is what the proofs of promises about several hosts build on.
//
// A rig needs root and the ip, nsenter and nft commands; elsewhere New skips the
// test by name. Its namespaces are joined by a bridge in a namespace of its own,
// so nothing of the machine's own network is touched. Everything is gone when
// the test ends, and what the agents logged is shown if it failed.
package rig

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
)

// Rig is a set of hosts on one switch.
type Rig struct {
	Hosts []*Host
	Env   []string // of agents, beside that of the test

	t   testing.TB
	bin string
	dir string
	sw  string // namespace of the switch
}

var (
	buildOnce sync.Once
	builtBin  string
	buildErr  error
)

// Binary builds the ganglion binary once per test process and returns its path,
// which unprivileged copies can execute too. GANGLION_TEST_BINARY names one to
// test instead.
func Binary(t testing.TB) string {
	t.Helper()
	if given := os.Getenv("GANGLION_TEST_BINARY"); given != "" {
		return given
	}
	buildOnce.Do(func() {
		dir, err := os.MkdirTemp("", "ganglion-bin-")
		if err != nil {
			buildErr = err
			return
		}
		os.Chmod(dir, 0o755)
		builtBin = filepath.Join(dir, "ganglion")
		cmd := exec.Command("go", "build", "-o", builtBin, "github.com/ganglion-mesh/ganglion/cmd/ganglion")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			buildErr = fmt.Errorf("build ganglion: %w\n%s", err, out)
		}
	})
	if buildErr != nil {
		t.Fatal(buildErr)
	}
	return builtBin
}

// RemoveBinary removes what Binary built; call it from TestMain.
func RemoveBinary() {
	if builtBin != "" {
		os.RemoveAll(filepath.Dir(builtBin))
	}
}

// New makes n hosts, h1 to hn, with a network and no agents.
func New(t testing.TB, n int) *Rig {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: hosts are network namespaces")
	}
	for _, tool := range []string{"ip", "nsenter", "nft"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs the %s command", tool)
		}
	}
	dir, err := os.MkdirTemp("", "rig-")
	if err != nil {
		t.Fatal(err)
	}
	os.Chmod(dir, 0o755)
	r := &Rig{t: t, bin: Binary(t), dir: dir, sw: "gsw" + filepath.Base(dir)[4:]}
	t.Cleanup(r.close)
	r.ip("netns", "add", r.sw)
	r.ip("-n", r.sw, "link", "add", "br0", "type", "bridge")
	r.ip("-n", r.sw, "link", "set", "br0", "up")
	for i := range n {
		r.Hosts = append(r.Hosts, r.addHost(i+1))
	}
	return r
}

func (r *Rig) addHost(i int) *Host {
	r.t.Helper()
	h := &Host{
		Name: fmt.Sprintf("h%d", i), Addr: fmt.Sprintf("10.88.0.%d", i), rig: r,
		ns: fmt.Sprintf("g%dx%s", i, r.sw[3:]), Dir: filepath.Join(r.dir, fmt.Sprintf("h%d", i)),
	}
	if err := os.MkdirAll(h.Dir, 0o755); err != nil {
		r.t.Fatal(err)
	}
	port := fmt.Sprintf("p%d", i)
	r.ip("netns", "add", h.ns)
	r.ip("-n", r.sw, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", h.ns)
	r.ip("-n", r.sw, "link", "set", port, "master", "br0", "up")
	r.ip("-n", h.ns, "addr", "add", h.Addr+"/24", "dev", "eth0")
	r.ip("-n", h.ns, "link", "set", "eth0", "up")
	r.ip("-n", h.ns, "link", "set", "lo", "up")
	return h
}

func (r *Rig) ip(args ...string) {
	r.t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		r.t.Fatalf("ip %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// close ends everything that runs in the namespaces and removes them.
func (r *Rig) close() {
	for _, h := range r.Hosts {
		h.killAll()
		if h.cmd != nil {
			<-h.done
		}
		if r.t.Failed() {
			r.t.Logf("agent of %s logged (the end):\n%s", h.Name, tail(h.logPath(), 12<<10))
		}
		exec.Command("ip", "netns", "del", h.ns).Run()
	}
	exec.Command("ip", "netns", "del", r.sw).Run()
	os.RemoveAll(r.dir)
}

// Start starts an agent on every host, with more flags if given, and makes one
// mesh of them: the first host creates it, the others join through it.
func (r *Rig) Start(flags ...string) {
	r.t.Helper()
	first := r.Hosts[0]
	first.StartAgent(flags...)
	first.Must("init", "--name", "test")
	token := r.Token()
	for _, h := range r.Hosts[1:] {
		h.StartAgent(flags...)
		h.Must("join", first.Addr, "--token", token)
	}
	r.AwaitHosts(len(r.Hosts), 30*time.Second)
}

// Token makes a join token through the first host.
func (r *Rig) Token() string {
	r.t.Helper()
	return strings.TrimSpace(r.Hosts[0].Must("token", "create"))
}

// AwaitHosts waits until every running host sees n hosts alive.
func (r *Rig) AwaitHosts(n int, within time.Duration) {
	r.t.Helper()
	for _, h := range r.Hosts {
		if !h.Running() {
			continue
		}
		Await(r.t, within, func() error {
			var hosts []api.Host
			if err := h.Get("/v1/hosts", &hosts); err != nil {
				return err
			}
			alive := 0
			for _, x := range hosts {
				if x.Status == "alive" {
					alive++
				}
			}
			if alive != n {
				return fmt.Errorf("%s sees %d hosts alive, want %d", h.Name, alive, n)
			}
			return nil
		})
	}
}

// Leader returns the host that leads, as seen from any other running host.
func (r *Rig) Leader() *Host {
	r.t.Helper()
	var leader *Host
	Await(r.t, 15*time.Second, func() error {
		for _, h := range r.Hosts {
			var m api.Mesh
			if !h.Running() || h.Get("/v1/mesh", &m) != nil {
				continue
			}
			for _, x := range r.Hosts {
				if x.Name == m.Leader {
					leader = x
					return nil
				}
			}
		}
		return errors.New("no leader")
	})
	return leader
}

// Partition cuts every link between hosts of different groups. Hosts in no group
// keep all their links.
func (r *Rig) Partition(groups ...[]*Host) {
	r.t.Helper()
	for i, group := range groups {
		var others []string
		for j, other := range groups {
			for _, h := range other {
				if i != j {
					others = append(others, h.Addr)
				}
			}
		}
		for _, h := range group {
			h.drop(others)
		}
	}
}

// Heal restores every link.
func (r *Rig) Heal() {
	r.t.Helper()
	for _, h := range r.Hosts {
		h.drop(nil)
	}
}

// Await polls cond until it returns nil, and fails the test with its last error
// when within has passed.
func Await(t testing.TB, within time.Duration, cond func() error) time.Duration {
	t.Helper()
	begun := time.Now()
	for {
		err := cond()
		if err == nil {
			return time.Since(begun)
		}
		if time.Since(begun) > within {
			t.Fatalf("not within %s: %v", within, err)
		}
		time.Sleep(20 * time.Millisecond) // the poll's pace, not a synchronisation
	}
}

func tail(path string, n int) []byte {
	b, _ := os.ReadFile(path)
	if len(b) > n {
		b = b[len(b)-n:]
	}
	return b
}

// Host is one host of a rig.
type Host struct {
	Name, Addr string
	Dir        string // its files: data, socket, agent log

	rig  *Rig
	ns   string
	cmd  *exec.Cmd
	done chan struct{}
}

func (h *Host) logPath() string { return filepath.Join(h.Dir, "agent.log") }

// Socket is the path of the agent's local API.
func (h *Host) Socket() string { return filepath.Join(h.Dir, "agent.sock") }

// DataDir is the agent's data directory.
func (h *Host) DataDir() string { return filepath.Join(h.Dir, "data") }

// inside makes a command that runs on the host. It keeps the machine's mounts,
// which ip netns exec would hide cgroups of.
func (h *Host) inside(name string, args ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{"--net=" + h.Netns(), "--", name}, args...)...)
}

// Netns is the path of the host's network namespace.
func (h *Host) Netns() string { return "/run/netns/" + h.ns }

// IP runs ip(8) on the host's network.
func (h *Host) IP(args ...string) {
	h.rig.t.Helper()
	h.rig.ip(append([]string{"-n", h.ns}, args...)...)
}

// StartAgent starts the host's agent, with more flags if given, and waits until
// it answers.
func (h *Host) StartAgent(flags ...string) {
	t := h.rig.t
	t.Helper()
	log, err := os.OpenFile(h.logPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	args := []string{"agent", "--name", h.Name, "--data-dir", h.DataDir(), "--socket", h.Socket(),
		"--advertise", h.Addr, "--driver", "process"}
	h.cmd = h.inside(h.rig.bin, append(args, flags...)...)
	h.cmd.Env = append(os.Environ(), h.rig.Env...)
	h.cmd.Stdout, h.cmd.Stderr = log, log
	h.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := h.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	h.done = make(chan struct{})
	go func(cmd *exec.Cmd, done chan struct{}) {
		cmd.Wait()
		close(done)
	}(h.cmd, h.done)
	Await(t, 15*time.Second, func() error {
		select {
		case <-h.done:
			t.Fatalf("agent of %s ended: %s", h.Name, tail(h.logPath(), 2000))
		default:
		}
		return h.Get("/v1/version", &api.Version{})
	})
}

// Running tells whether the host's agent process exists (also if paused).
func (h *Host) Running() bool {
	if h.cmd == nil {
		return false
	}
	select {
	case <-h.done:
		return false
	default:
		return true
	}
}

// Pid is the agent's process id: nsenter executes the agent in its own place.
func (h *Host) Pid() int { return h.cmd.Process.Pid }

// Signal sends a signal to the agent alone.
func (h *Host) Signal(sig syscall.Signal) {
	h.rig.t.Helper()
	if err := h.cmd.Process.Signal(sig); err != nil {
		h.rig.t.Fatalf("signal agent of %s: %v", h.Name, err)
	}
}

// SignalAll sends a signal to every process of the host: agent, keepers and
// copies. One that has just ended is no error.
func (h *Host) SignalAll(sig syscall.Signal) {
	for _, pid := range h.Pids() {
		_ = syscall.Kill(pid, sig)
	}
}

// Isolate cuts the host off from all others; Rejoin restores its links to those
// that are not cut off themselves.
func (h *Host) Isolate() {
	h.rig.t.Helper()
	h.drop([]string{"10.88.0.0/24"})
}

// Rejoin ends Isolate.
func (h *Host) Rejoin() {
	h.rig.t.Helper()
	h.drop(nil)
}

// Kill kills the agent (SIGKILL); its copies live on.
func (h *Host) Kill() {
	h.rig.t.Helper()
	h.Signal(syscall.SIGKILL)
	<-h.done
}

// StopAgent ends the agent as systemd does (SIGTERM) and waits for it.
func (h *Host) StopAgent() {
	h.rig.t.Helper()
	h.Signal(syscall.SIGTERM)
	select {
	case <-h.done:
	case <-time.After(20 * time.Second):
		h.rig.t.Fatalf("agent of %s does not end after SIGTERM", h.Name)
	}
}

// Crash takes the whole host away at once: its link, its agent and its copies.
func (h *Host) Crash() {
	h.rig.t.Helper()
	h.rig.ip("-n", h.ns, "link", "set", "eth0", "down")
	h.killAll()
	if h.cmd != nil {
		<-h.done
	}
}

// Reboot brings a crashed host's link back. Start the agent to go on.
func (h *Host) Reboot() {
	h.rig.t.Helper()
	h.rig.ip("-n", h.ns, "link", "set", "eth0", "up")
}

// KillCopies kills every process of a host whose agent does not run, as a power
// cut does.
func (h *Host) KillCopies() {
	h.rig.t.Helper()
	if h.Running() {
		h.rig.t.Fatalf("the agent of %s runs: it would start them again", h.Name)
	}
	h.killAll()
}

// killAll kills every process of the host until none is left. All are stopped
// first: an agent that gets the CPU between two kills would start a copy again.
func (h *Host) killAll() {
	h.SignalAll(syscall.SIGSTOP)
	for range 50 {
		pids := h.Pids()
		if len(pids) == 0 {
			return
		}
		for _, pid := range pids {
			syscall.Kill(pid, syscall.SIGKILL)
		}
		time.Sleep(10 * time.Millisecond) // until the kernel has ended them
	}
}

// Pids lists every process on the host, the agent included: what is in its
// network. It reads /proc itself, because faults ask many times a second.
func (h *Host) Pids() (pids []int) {
	var own, other syscall.Stat_t
	if syscall.Stat(h.Netns(), &own) != nil {
		return nil
	}
	all, _ := os.ReadDir("/proc")
	for _, e := range all {
		pid, err := strconv.Atoi(e.Name())
		if err == nil && syscall.Stat(fmt.Sprintf("/proc/%d/ns/net", pid), &other) == nil && other.Ino == own.Ino && other.Dev == own.Dev {
			pids = append(pids, pid)
		}
	}
	return pids
}

// drop makes the host drop all traffic from and to the addresses; nil drops
// nothing any more.
func (h *Host) drop(addrs []string) {
	h.rig.t.Helper()
	rules := "table ip cut\ndelete table ip cut\n"
	if len(addrs) > 0 {
		set := strings.Join(addrs, ", ")
		rules += fmt.Sprintf("table ip cut {\n"+
			"chain in { type filter hook input priority 0; ip saddr { %s } drop; }\n"+
			"chain out { type filter hook output priority 0; ip daddr { %s } drop; }\n}\n", set, set)
	}
	cmd := h.inside("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(rules)
	if out, err := cmd.CombinedOutput(); err != nil {
		h.rig.t.Fatalf("nft on %s: %v\n%s", h.Name, err, out)
	}
}

// CLI runs a ganglion command on the host and returns its output and exit code.
func (h *Host) CLI(args ...string) (stdout, stderr string, code int) {
	h.rig.t.Helper()
	cmd := h.inside(h.rig.bin, args...)
	cmd.Env = append(os.Environ(), "GANGLION_ADDR=unix:"+h.Socket(), "NO_COLOR=1")
	cmd.Dir = h.rig.dir
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		h.rig.t.Fatalf("run ganglion %s: %v", strings.Join(args, " "), err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// Start starts a program of the test's own on the host, with more environment,
// and its output in a file of the host. It is killed with the rig.
func (h *Host) Start(env []string, logName, program string, args ...string) *exec.Cmd {
	h.rig.t.Helper()
	out, err := os.OpenFile(filepath.Join(h.Dir, logName), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		h.rig.t.Fatal(err)
	}
	defer out.Close()
	cmd := h.inside(program, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		h.rig.t.Fatal(err)
	}
	h.rig.t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return cmd
}

// Must runs a command that has to succeed and returns what it printed.
func (h *Host) Must(args ...string) string {
	h.rig.t.Helper()
	out, errs, code := h.CLI(args...)
	if code != 0 {
		h.rig.t.Fatalf("on %s: ganglion %s: exit %d\n%s%s", h.Name, strings.Join(args, " "), code, out, errs)
	}
	return out
}

// File writes a file on the host and returns its path.
func (h *Host) File(name, content string) string {
	h.rig.t.Helper()
	path := filepath.Join(h.Dir, name)
	if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
		h.rig.t.Fatal(err)
	}
	return path
}

// Client is a client of the host's agent.
func (h *Host) Client() *api.Client {
	c, err := api.Dial("unix:"+h.Socket(), nil)
	if err != nil {
		h.rig.t.Fatal(err)
	}
	return c
}

// Get reads one path of the agent's API.
func (h *Host) Get(path string, out any) error {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	c := h.Client()
	defer c.CloseIdle()
	return c.Get(ctx, path, nil, out)
}
