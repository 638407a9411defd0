//go:build linux

package bootclock

import (
	"os"
	"strings"
	"testing"
	"time"
)

func TestID(t *testing.T) {
	want, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ID(); err != nil || got == "" || got != strings.TrimSpace(string(want)) {
		t.Errorf("boot %q, %v; the kernel says %q", got, err, want)
	}
}

// TestNow holds the clock against the kernel's own word for the time since boot,
// which has a resolution of 10 ms.
func TestNow(t *testing.T) {
	before := Now()
	raw, err := os.ReadFile("/proc/uptime")
	if err != nil {
		t.Fatal(err)
	}
	after := Now()
	up, err := time.ParseDuration(strings.Fields(string(raw))[0] + "s")
	if err != nil {
		t.Fatal(err)
	}
	if up < before-10*time.Millisecond || up > after+10*time.Millisecond {
		t.Errorf("%s since boot, and %s by the clock", up, before)
	}
}
