package integration

import (
	"errors"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/integration/rig"
)

// TestAPausedHostSaysSo: an agent that was stopped for a while, as a suspended
// machine is, tells how long it was away.
func TestAPausedHostSaysSo(t *testing.T) {
	t.Parallel()
	r := rig.New(t, 1)
	h := r.Hosts[0]
	h.StartAgent()
	h.Must("init", "--name", "test")
	h.Signal(syscall.SIGSTOP)
	time.Sleep(8 * time.Second) // longer than the host sleeps between two looks at its clock
	h.Signal(syscall.SIGCONT)
	rig.Await(t, 20*time.Second, func() error {
		if out, errs, code := h.CLI("events", "--since", "1m", "host.*.paused"); code != 0 || !strings.Contains(out, "gap_ms=") {
			return errors.New(out + errs)
		}
		return nil
	})
}
