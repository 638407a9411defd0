package main

import (
	"strings"
	"testing"
)

const run = `make: go test
{"Action":"output","Package":"github.com/ganglion-mesh/ganglion/a","Test":"TestGood","Output":"noise\n"}
{"Action":"pass","Package":"github.com/ganglion-mesh/ganglion/a","Test":"TestGood"}
{"Action":"output","Package":"github.com/ganglion-mesh/ganglion/a","Test":"TestRoot","Output":"    a_test.go:3: needs root\n"}
{"Action":"skip","Package":"github.com/ganglion-mesh/ganglion/a","Test":"TestRoot"}
{"Action":"output","Package":"github.com/ganglion-mesh/ganglion/a","Output":"PASS\n"}
{"Action":"output","Package":"github.com/ganglion-mesh/ganglion/a","Output":"ok  \ta\t0.1s\n"}
{"Action":"pass","Package":"github.com/ganglion-mesh/ganglion/a"}
{"Action":"skip","Package":"github.com/ganglion-mesh/ganglion/none"}
{"Action":"output","Package":"github.com/ganglion-mesh/ganglion/workload/systemd","Test":"TestUnit/x","Output":"    b_test.go:3: needs systemd\n"}
{"Action":"skip","Package":"github.com/ganglion-mesh/ganglion/workload/systemd","Test":"TestUnit/x"}
`

func TestSkips(t *testing.T) {
	var out strings.Builder
	skips, failed := read(strings.NewReader(run), &out)
	if failed || len(skips) != 2 || skips[0] != (skipped{"a", "TestRoot", "needs root"}) {
		t.Errorf("skips %v, failed %v", skips, failed)
	}
	if got, want := out.String(), "make: go test\nok  \ta\t0.1s\n"; got != want {
		t.Errorf("printed %q, want %q", got, want)
	}
	if report(&out, skips, false) {
		t.Error("a skip fails where skips are allowed")
	}
	if report(&out, skips[1:], true) {
		t.Error("a test fails that may be skipped")
	}
	if !report(&out, skips, true) || !strings.Contains(out.String(), "MUST RUN, BUT WAS SKIPPED: a TestRoot: needs root\n") {
		t.Errorf("a test that must run was skipped, and nobody minds:\n%s", &out)
	}
}

func TestFailures(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{`{"Action":"output","Package":"p","Test":"T","Output":"=== RUN T\n"}
{"Action":"output","Package":"p","Test":"T","Output":"    x\n--- FAIL: T\n"}
{"Action":"fail","Package":"p","Test":"T"}`, "    x\n--- FAIL: T\n"},
		{`{"Action":"output","Package":"p","Test":"T","Output":"panic: x\n"}
{"Action":"output","Package":"p","Output":"FAIL\tp\t1s\n"}
{"Action":"fail","Package":"p"}`, "FAIL\tp\t1s\npanic: x\n"},
		{`{"Action":"build-output","ImportPath":"p","Output":"x.go:1: no\n"}
{"Action":"fail","Package":"p"}`, "x.go:1: no\n"},
	} {
		var out strings.Builder
		if _, failed := read(strings.NewReader(c.in), &out); !failed || out.String() != c.want {
			t.Errorf("%s: failed %v, printed %q", c.in, failed, out.String())
		}
	}
}
