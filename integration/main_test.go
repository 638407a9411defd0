// Package integration proves promises on real binaries: meshes of agents on
// network namespaces of this machine, with partitions, kills and crashes.
package integration

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/integration/rig"
)

func TestMain(m *testing.M) {
	if helper := helpers[os.Getenv("GANGLION_TEST_HELPER")]; helper != nil {
		helper()
		return
	}
	code := m.Run()
	rig.RemoveBinary()
	os.Exit(code)
}

// witness makes a directory in which copies prove that they are not doubled:
// each takes a lock of its own name, and who does not get it writes so.
type witness struct{ dir string }

func newWitness(t *testing.T) witness {
	t.Helper()
	dir, err := os.MkdirTemp("", "witness-")
	if err != nil {
		t.Fatal(err)
	}
	os.Chmod(dir, 0o777)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return witness{dir}
}

// app declares copies that take their lock.
func (w witness) app(name string, count int) string {
	script := fmt.Sprintf(`umask 0; exec 9>>%[1]s/$GANGLION_APP-$GANGLION_COPY.lock; flock -n 9 || echo "$GANGLION_APP/$GANGLION_COPY on $GANGLION_HOST" >>%[1]s/doubled; exec sleep 100000`, w.dir)
	return fmt.Sprintf("app %q {\n  count = %d\n  run {\n    command = [\"/bin/sh\", \"-c\", %q]\n  }\n}\n", name, count, script)
}

func (w witness) check(t *testing.T) {
	t.Helper()
	if b, err := os.ReadFile(filepath.Join(w.dir, "doubled")); err == nil {
		t.Errorf("copies ran twice at once:\n%s", b)
	}
}

// status reads an app's status through a host.
func status(h *rig.Host, app string) (topology.AppStatus, error) {
	var st topology.AppStatus
	ctx, cancel := context.WithTimeout(context.Background(), 9*time.Second)
	defer cancel()
	c := h.Client()
	defer c.CloseIdle()
	return st, c.Get(ctx, "/v1/status", url.Values{"app": {app}}, &st)
}

// awaitReady waits until an app has so many ready copies and no others, none of
// them on the hosts in not.
func awaitReady(t *testing.T, h *rig.Host, app string, ready int, within time.Duration, not ...string) (topology.AppStatus, time.Duration) {
	t.Helper()
	var st topology.AppStatus
	took := rig.Await(t, within, func() (err error) {
		if st, err = status(h, app); err != nil {
			return err
		}
		if st.Ready != ready || len(st.Copies) != ready {
			return fmt.Errorf("%d of %d ready: %+v", st.Ready, ready, st.Copies)
		}
		for _, c := range st.Copies {
			for _, n := range not {
				if c.Host == n {
					return fmt.Errorf("copy %s is on %s", c.ID, n)
				}
			}
		}
		return nil
	})
	return st, took
}

// pids maps each copy that is on host to its pid.
func pids(st topology.AppStatus, host string) map[string]int {
	out := map[string]int{}
	for _, c := range st.Copies {
		if c.Host == host {
			out[c.ID] = c.Pid
		}
	}
	return out
}

func alive(pid int) bool { return syscall.Kill(pid, 0) == nil }

func sleepers(name string, count int) string {
	return "app " + strconv.Quote(name) + " {\n  count = " + strconv.Itoa(count) + "\n  run {\n    command = [\"/bin/sleep\", \"100000\"]\n  }\n}\n"
}
