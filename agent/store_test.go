package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestLockOutlivesItsAgent: what a killed agent was about to execute holds the
// lock for a moment more; an agent that lives holds it for good.
func TestLockOutlivesItsAgent(t *testing.T) {
	dir := t.TempDir()
	held, err := os.Create(filepath.Join(dir, "lock"))
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(held.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if _, err := openStore(dir); err == nil || !strings.Contains(err.Error(), "another agent") {
		t.Errorf("open a directory that is held: %v", err)
	}
	time.AfterFunc(50*time.Millisecond, func() { held.Close() })
	s, err := openStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	s.close()
}
