//go:build linux

package main

import (
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The monitor is the thread that naps while the program is at work; this holds
// the way in which it is found against new versions of Go and of the kernel.
func TestMonitorIsFound(t *testing.T) {
	tid, err := monitorThread()
	if err != nil {
		t.Fatal(err)
	}
	path := fmt.Sprintf("/proc/self/task/%d/syscall", tid)
	if _, err := os.ReadFile(path); err != nil {
		t.Skipf("needs the right to see what threads do: %v", err)
	}
	nap, last := fmt.Sprintf("%d ", unix.SYS_NANOSLEEP), ""
	for begun := time.Now(); time.Since(begun) < 20*time.Second; { // at work all the time
		b, _ := os.ReadFile(path)
		if last = string(b); strings.HasPrefix(last, nap) {
			return
		}
	}
	t.Fatalf("thread %d never napped: %s", tid, last)
}

func TestMonitorIsCalmed(t *testing.T) {
	tid, err := monitorThread()
	if err != nil {
		t.Fatal(err)
	}
	path := fmt.Sprintf("/proc/%d/timerslack_ns", tid)
	before, err := os.ReadFile(path)
	if err != nil {
		t.Skipf("needs the right to set the slack of a thread: %v", err)
	}
	defer os.WriteFile(path, before, 0)
	calmMonitor(slog.New(slog.DiscardHandler))
	if b, err := os.ReadFile(path); err != nil || strings.TrimSpace(string(b)) != fmt.Sprint(monitorSlack) {
		t.Errorf("its slack is %q, %v", b, err)
	}
}
