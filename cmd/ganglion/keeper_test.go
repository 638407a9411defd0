//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/workload"
	"github.com/ganglion-mesh/ganglion/workload/bootclock"
	"github.com/ganglion-mesh/ganglion/workload/keeper"
)

// A keeper stands beside each singleton for as long as that runs: it must be
// small, and still.
func TestKeeperIsSmallAndStill(t *testing.T) {
	if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		t.Skip("the race detector takes more memory than the keeper")
	}
	path := filepath.Join(t.TempDir(), "orders")
	l, err := keeper.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	bin, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, keeperCommand)
	cmd.Stdin, cmd.SysProcAttr = l, &syscall.SysProcAttr{Setsid: true}
	begun := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	c := keeper.NewClient(path)
	p := keeper.Program{Path: "/bin/sleep", Argv: []string{"sleep", "1000"}, Dir: "/", Plain: os.Geteuid() == 0}
	lease := workload.Lease{Token: 1, Deadline: bootclock.Now() + time.Hour, Fence: time.Second, Signal: syscall.SIGTERM}
	_, err = c.Start(ctx, p, lease, 1)
	if err != nil {
		t.Fatal(err)
	}
	took := time.Since(begun)
	for range 20 { // as many renewals as a minute brings
		lease.Deadline += time.Second
		if _, err = c.Extend(ctx, 1, lease.Deadline); err != nil {
			t.Fatal(err)
		}
	}
	var rss int
	var cpu time.Duration
	for tick := time.Tick(20 * time.Millisecond); ; <-tick { // it gives memory back once it has settled
		if rss, cpu = footprint(t, cmd.Process.Pid); rss < 12<<10 {
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("RSS stays %d kB, want less than 12 MB", rss)
		}
	}
	<-time.After(time.Second) // what is measured is a second
	after, total := footprint(t, cmd.Process.Pid)
	t.Logf("its copy runs after %s; RSS %d kB, a second later %d; CPU of start and 20 renewals %s, of the second %s",
		took.Round(time.Millisecond), rss, after, cpu, total-cpu)
	if total-cpu > 20*time.Millisecond {
		t.Errorf("an idle keeper uses %s of CPU a second", total-cpu)
	}
}

// footprint reads a process's resident memory in kB and the CPU it has used.
func footprint(t *testing.T, pid int) (rss int, cpu time.Duration) {
	t.Helper()
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			fmt.Sscan(v, &rss)
		}
	}
	dirs, _ := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/task/*/schedstat")
	for _, d := range dirs {
		b, _ := os.ReadFile(d)
		var n int64
		fmt.Sscan(string(b), &n)
		cpu += time.Duration(n)
	}
	return rss, cpu
}
