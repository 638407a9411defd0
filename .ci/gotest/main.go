// Command gotest reads `go test -json` and prints what `go test` prints: the
// output of tests that failed and a line for each package. At the end it lists
// the tests that were skipped, and fails if GANGLION_TEST_REQUIRE is all and one
// of them is not in the table of those that may be.
//
// A test that skips where it cannot run is a promise that it runs somewhere;
// this is where that is held.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
)

// maySkip are the tests that no one machine can run all of, by package and the
// beginning of their names.
var maySkip = []struct{ pkg, test, why string }{
	{"workload/systemd", "", "needs systemd as PID 1: integration/nspawn runs these tests on a booted host"},
	{"workload/process", "TestLimitsV1", "needs cgroup v1 and no swap"},
	{"workload/process", "TestThrottle", "needs the cpu controller of cgroups"},
	{"workload/hook", "TestTimeout", "needs a cgroup v2 in which groups can be made"},
	{"workload/hook", "TestSweep", "needs a cgroup v2 in which groups can be made"},
	{"integration/nspawn", "TestReflexThrottlesAUnit", "needs the cpu controller of cgroup version 1"},
	{"agent", "TestReflexThrottles", "needs the cpu controller of cgroups"},
	{"agent", "TestThrottleEnds", "needs the cpu controller of cgroups"},
	{"workload/signature", "TestMinisign", "needs minisign: testdata holds signatures that it made"},
	{"consensus/topology", "TestSeededBugsAreCaught", "builds the package once for each of them: make mutants runs it"},
	{"agent/addresses", "TestSeededBugsAreCaught", "builds the package once for each of them: make mutants runs it"},
	{"workload/output", "TestRotateWithoutRoom", "needs an ordinary user"},
	{"reflexes/senses", "TestUnits", "needs systemd as PID 1: integration/nspawn runs these tests on a booted host"},
	{"reflexes/senses", "TestPressureOfTheCPU", "needs a kernel that knows pressure, and one that tells of it"},
	{"reflexes/senses/procfs", "TestThisKernel", "needs a kernel that knows pressure"},
	{"reflexes/senses", "TestKernelLog", "needs a kernel log that may be read: containers have none"},
	{"reflexes/senses", "TestOOMByTheLog", "needs a kernel log that may be read: containers have none"},
}

const module = "github.com/ganglion-mesh/ganglion/"

// event is one line of go test -json.
type event struct {
	Action, Package, Test, Output string
}

// skipped is a test that did not run, with what it said.
type skipped struct{ pkg, test, why string }

func (s skipped) may() bool {
	for _, m := range maySkip {
		if s.pkg == m.pkg && strings.HasPrefix(s.test, m.test) {
			return true
		}
	}
	return false
}

func main() {
	skips, failed := read(os.Stdin, os.Stdout)
	if report(os.Stdout, skips, os.Getenv("GANGLION_TEST_REQUIRE") == "all") || failed {
		os.Exit(1)
	}
}

// read passes on what people should see, and returns the skipped tests.
func read(in io.Reader, out io.Writer) (skips []skipped, failed bool) {
	said := map[[2]string]string{} // output of tests that have not ended, by package and test
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadString('\n')
		if err != nil && line == "" {
			return skips, failed
		}
		var e event
		if json.Unmarshal([]byte(line), &e) != nil {
			fmt.Fprint(out, line) // make's own words
			continue
		}
		key := [2]string{e.Package, e.Test}
		switch {
		case e.Action == "build-output", e.Action == "output" && e.Test == "":
			if e.Output != "PASS\n" {
				fmt.Fprint(out, e.Output)
			}
		case e.Action == "output":
			if !strings.HasPrefix(e.Output, "=== ") {
				said[key] += e.Output
			}
		case e.Action == "skip" && e.Test != "":
			skips = append(skips, skipped{strings.TrimPrefix(e.Package, module), e.Test, reason(said[key])})
			delete(said, key)
		case e.Action == "pass":
			delete(said, key)
		case e.Action == "fail":
			failed = true
			for k, text := range said { // of a package that ended: also tests that never did
				if k == key || e.Test == "" && k[0] == e.Package {
					fmt.Fprint(out, text)
					delete(said, k)
				}
			}
		}
	}
}

// reason is what a test said when it skipped, in one line.
func reason(said string) string {
	_, why, _ := strings.Cut(said, ".go:")
	_, why, _ = strings.Cut(why, ": ")
	why, _, _ = strings.Cut(why, "\n")
	return why
}

// report lists the skipped tests and tells whether one of them had to run.
func report(out io.Writer, skips []skipped, all bool) (missed bool) {
	for _, s := range skips {
		word := "skipped"
		switch {
		case s.may():
			word = "skipped, as it may"
		case all:
			word, missed = "MUST RUN, BUT WAS SKIPPED", true
		}
		fmt.Fprintf(out, "%s: %s %s: %s\n", word, s.pkg, s.test, s.why)
	}
	return missed
}
