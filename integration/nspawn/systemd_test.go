//go:build linux

package nspawn

import (
	"context"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var driverRun = flag.String("driver.run", "", "run only these tests of the systemd driver")

// TestSystemdDriver runs the tests of workload/systemd, which skip where systemd
// is not PID 1, on a host where it is.
func TestSystemdDriver(t *testing.T) {
	h := Boot(t, Options{})
	runTests(t, h, "workload/systemd", "TestConformance/StartStop", "-test.v", "-test.shuffle=on", "-test.run="+*driverRun)
}

// runTests compiles the tests of a package and runs them on h. The test named by
// ran must be among those that passed.
func runTests(t *testing.T, h *Host, pkg, ran string, args ...string) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "test")
	build := exec.Command("go", "test", "-c", "-o", bin, "github.com/ganglion-mesh/ganglion/"+pkg)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build tests of %s: %v\n%s", pkg, err, out)
	}
	h.CopyIn(t, bin, "/opt/test", 0o755)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	out, err := h.Command(ctx, append([]string{"/opt/test", "-test.timeout=9m"}, args...)...).CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Errorf("tests of %s on %s: %v", pkg, h.Name, err)
	}
	if *driverRun == "" && !strings.Contains(string(out), "--- PASS: "+ran) {
		t.Errorf("%s did not run", ran)
	}
	return string(out)
}
