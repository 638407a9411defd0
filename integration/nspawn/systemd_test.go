//go:build linux

package nspawn

import (
	"context"
	"flag"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strconv"
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

// TestThrottles runs those of throttles on a host where the kernel heeds quotas.
func TestThrottles(t *testing.T) {
	t.Parallel() // it waits most of the time
	h := Boot(t, Options{Quotas: true})
	runTests(t, h, "workload/systemd", "TestThrottleUnit", "-test.v", "-test.run=^TestThrottle")
}

// TestUnitsSense does so with the tests of the sense of units.
func TestUnitsSense(t *testing.T) {
	h := Boot(t, Options{})
	h.CopyIn(t, "../../examples/reflexes/stuck-unit.hcl", "/opt/stuck-unit.hcl", 0o644) // beside the tests, which look for it there
	runTests(t, h, "reflexes/senses", "TestUnits", "-test.v", "-test.run=^TestUnits")
}

// touch opens all sources below dir: the result of a test is remembered (cached)
// for as long as the files that it opened are the same.
func touch(t testing.TB, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(p, ".go") {
			return err
		}
		_, err = os.ReadFile(p)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// runTests compiles the tests of a package and runs them on h. The test named by
// ran must be among those that passed.
func runTests(t testing.TB, h *Host, pkg, ran string, args ...string) string {
	t.Helper()
	touch(t, "../../"+path.Dir(pkg))
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
	if ran != "" && *driverRun == "" && !strings.Contains(string(out), "--- PASS: "+ran) {
		t.Errorf("%s did not run", ran)
	}
	return string(out)
}

// BenchmarkSystemdDriver runs the benchmarks of workload/systemd on a host.
func BenchmarkSystemdDriver(b *testing.B) { repeat(b, "workload/systemd", ".") }

// BenchmarkUnitsSense runs those of the sense of units.
func BenchmarkUnitsSense(b *testing.B) { repeat(b, "reflexes/senses", "^BenchmarkUnits") }

// repeat runs benchmarks of a package on a host and repeats what they report,
// each figure under the name of its benchmark.
func repeat(b *testing.B, pkg, which string) {
	b.Helper()
	h := Boot(b, Options{})
	out := runTests(b, h, pkg, "", "-test.run=^$", "-test.bench="+which, "-test.benchtime=1x")
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		if len(f) < 4 || !strings.HasPrefix(f[0], "Benchmark") {
			continue
		}
		name := strings.TrimPrefix(f[0], "Benchmark")
		for i := 2; i+1 < len(f); i += 2 {
			if v, err := strconv.ParseFloat(f[i], 64); err == nil {
				b.ReportMetric(v, name+"-"+f[i+1])
			}
		}
	}
	b.ReportMetric(0, "ns/op")
}
