//go:build linux

package process

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ganglion-mesh/ganglion/workload"
	"github.com/ganglion-mesh/ganglion/workload/keeper"
)

// roleVar has the test binary play something else than the tests: an agent that
// can be killed, or a copy that tells what it sees.
const roleVar = "TEST_ROLE"

func play(role string) int {
	switch role {
	case "agent", "agent-dies-unrecorded":
		return playAgent(role)
	case "look":
		return playLook()
	case "eat":
		var all [][]byte
		for range 256 {
			b := make([]byte, 1<<20)
			for i := 0; i < len(b); i += 4096 {
				b[i] = 1
			}
			all = append(all, b)
		}
		return len(all) & 1
	case "stuffed":
		return playStuffed()
	}
	return 2
}

// playStuffed is a copy's daemon that has so many pages of memory that its end
// takes a while.
func playStuffed() int {
	all, err := unix.Mmap(-1, 0, 256<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return 1
	}
	_ = unix.Madvise(all, unix.MADV_NOHUGEPAGE)
	for i := 0; i < len(all); i += 4096 {
		all[i] = 1
	}
	file := os.Getenv("STATE_DIR") + "/pid"
	if os.WriteFile(file+".new", []byte(strconv.Itoa(os.Getpid())), 0o644) != nil || os.Rename(file+".new", file) != nil {
		return 1
	}
	_ = unix.Pause()
	return int(all[0])
}

// agentConfig is what an agent's process is told.
type agentConfig struct {
	Dir       string
	NoCgroups bool
	Start     []workload.Spec
}

// playAgent adopts, starts what it was told to and is not adopted, prints a line
// for each copy, and stays until it is killed.
func playAgent(role string) int {
	var cfg agentConfig
	if err := json.Unmarshal([]byte(os.Getenv("TEST_AGENT")), &cfg); err != nil {
		return 2
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	d, err := New(Config{Dir: cfg.Dir, Host: "h1", NoCgroups: cfg.NoCgroups, Keeper: []string{"/proc/self/exe", keeper.Command}, Logger: log})
	if err != nil {
		log.Error("open", "error", err)
		return 1
	}
	if role == "agent-dies-unrecorded" {
		d.afterFork = func() {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
	ctx := context.Background()
	hs, err := d.Adopt(ctx)
	if err != nil {
		log.Error("adopt", "error", err)
		return 1
	}
	known := map[workload.CopyID]bool{}
	for _, h := range hs {
		known[h.Instance().Spec.ID] = true
	}
	for _, s := range cfg.Start {
		if known[s.ID] {
			continue
		}
		h, err := d.Start(ctx, s, 1)
		if err != nil {
			log.Error("start", "error", err)
			return 1
		}
		hs = append(hs, h)
	}
	for _, h := range hs {
		fmt.Println(h.Instance().Spec.ID, h.Instance().Pid)
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
	select {}
}

// runAgent starts an agent, waits for its copies (or its death) and kills it -9.
func runAgent(t *testing.T, role string, cfg agentConfig) map[string]int {
	t.Helper()
	cmd, pids := startAgent(t, role, cfg)
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	return pids
}

// startAgent starts an agent and waits for its copies. It is killed when the test
// ends.
func startAgent(t *testing.T, role string, cfg agentConfig) (*exec.Cmd, map[string]int) {
	t.Helper()
	b, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{roleVar + "=" + role, "TEST_AGENT=" + string(b)}
	cmd.Stderr = t.Output()
	_, _ = cmd.StdinPipe() // open, for as long as we are here
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	pids := map[string]int{}
	for sc := bufio.NewScanner(out); len(pids) < len(cfg.Start) && sc.Scan(); {
		var id string
		var pid int
		if _, err := fmt.Sscan(sc.Text(), &id, &pid); err != nil {
			t.Fatal(err)
		}
		pids[id] = pid
	}
	return cmd, pids
}

// look is what a copy sees of itself.
type look struct {
	Fds    []int
	Status map[string]string // of /proc/self/status
	Env    []string
	Cwd    string
	Leader bool // of its session and process group
}

func playLook() int {
	var l look
	for fd := range 1024 {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil {
			l.Fds = append(l.Fds, fd)
		}
	}
	b, _ := os.ReadFile("/proc/self/status")
	l.Status = map[string]string{}
	for line := range strings.Lines(string(b)) {
		k, v, _ := strings.Cut(line, ":")
		l.Status[k] = strings.TrimSpace(v)
	}
	l.Env = os.Environ()
	l.Cwd, _ = os.Getwd()
	sid, _ := unix.Getsid(0)
	l.Leader = sid == os.Getpid() && unix.Getpgrp() == os.Getpid()
	_ = json.NewEncoder(os.Stdout).Encode(l)
	return 0
}

// self copies the test binary to where any user may execute it.
func self(t testing.TB) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dataDir(t), "self")
	if err := os.WriteFile(path, b, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestAsOrdinaryUser runs all of these tests again as nobody.
func TestAsOrdinaryUser(t *testing.T) {
	needRoot(t)
	tmp := dataDir(t)
	if err := os.Chmod(tmp, 0o1777); err != nil {
		t.Fatal(err)
	}
	args := []string{"-test.v", "-test.run=.", "-test.shuffle=on"}
	cmd := exec.Command(self(t), args...)
	cmd.Dir = tmp
	cmd.Env = []string{"TMPDIR=" + tmp, "PATH=" + workload.PlainPath}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534, Groups: []uint32{}}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, ran := range []string{"TestConforms/search/Adopt", "TestDaemonIsStoppedWhole/search", "TestAgentKilled/search"} {
		if !strings.Contains(string(out), "--- PASS: "+ran+" ") {
			t.Errorf("%s did not run", ran)
		}
	}
}
