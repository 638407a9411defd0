//go:build linux

package program

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
)

// TestCatchIgnored: a child of a process that was told to ignore SIGHUP does not
// ignore it.
func TestCatchIgnored(t *testing.T) {
	signal.Ignore(syscall.SIGHUP)
	defer signal.Reset(syscall.SIGHUP)
	if ignored := ignoredByChild(t); ignored&1 == 0 {
		t.Fatalf("SIGHUP was to be ignored; ignored are %x", ignored)
	}
	CatchIgnored()
	if ignored := ignoredByChild(t); ignored&0x7fffffff != 0 {
		t.Errorf("the child ignores %x", ignored)
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil { // and this process survives it still
		t.Error(err)
	}
}

func ignoredByChild(t *testing.T) (mask uint64) {
	t.Helper()
	out, err := exec.Command("grep", "SigIgn", "/proc/self/status").Output()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscanf(strings.TrimSpace(string(out)), "SigIgn:\t%x", &mask); err != nil {
		t.Fatalf("%q: %v", out, err)
	}
	return mask
}
