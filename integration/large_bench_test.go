package integration

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/agent"
	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/integration/rig"
)

// BenchmarkReflexOnExitInLargeProcess measures what an exit costs that a reflex answers,
// and one that is answered by what is built in, where the agent has a thousand rules
// and is part of a process that has 300 MB of pointers, whose garbage is collected every
// other second: beside the same with neither, turn by turn. All are from the SIGKILL to
// the replacement executing.
func BenchmarkReflexOnExitInLargeProcess(b *testing.B) {
	const copies, rules, heap = 200, 1000, 300 << 20
	stamp := compileC(b, "stamp")
	r := rig.New(b, 2)
	small, large := r.Hosts[0], r.Hosts[1]
	startEmbedded(b, small, 0)
	startEmbedded(b, large, heap)
	for h, others := range map[*rig.Host]int{small: 0, large: rules - 1} {
		h.Must("apply", h.File("bench.hcl", fmt.Sprintf(`app "bench" {
  count = %d
  run { command = [%q] }
  restart { limit = 1 }
  reflex "again" {
    when = "exit.signal == 'SIGKILL' && exit.count_1m >= 2"
    act  = [restart()]
  }
}
`, copies, stamp)+watchful(others)))
		rig.Await(b, time.Minute, func() error { return rulesBegun(h, others+1) })
	}
	var built, rule [2][]time.Duration
	for b.Loop() {
		for n := range copies {
			for i, h := range []*rig.Host{small, large} {
				path := filepath.Join(h.DataDir(), "output", "bench", strconv.Itoa(n), "stdout.log")
				built[i] = append(built[i], killAndTime(b, path))
				rule[i] = append(rule[i], killAndTime(b, path))
			}
		}
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(len(rule[0])), "kills")
	for i, who := range []string{"small", "large"} {
		for what, took := range map[string][]time.Duration{"built-in": built[i], "rule": rule[i]} {
			slices.Sort(took)
			b.ReportMetric(micros(took, .5), who+"-"+what+"-p50-µs")
			b.ReportMetric(micros(took, .99), who+"-"+what+"-p99-µs")
		}
	}
}

// watchful declares so many reflexes that read what changes all the time.
func watchful(n int) string {
	conditions := []string{
		"host.memory.available_ratio < 0.0001 && host.cpu.busy_ratio > 0.9",
		"host.psi.cpu.some_1s > 0.9 && host.psi.memory.full_1s > 0.9",
		"host.load.per_core > 1000.0 || host.psi.io.full_1s > 0.99",
	}
	var text strings.Builder
	for i := range n {
		fmt.Fprintf(&text, "reflex \"watch%d\" {\n  when = %q\n  act = [emit(\"seen\")]\n}\n", i, conditions[i%len(conditions)])
	}
	return text.String()
}

// rulesBegun tells whether so many rules of a host have something to be about.
func rulesBegun(h *rig.Host, want int) error {
	var rules []api.LocalReflex
	if err := h.Get("/v1/local/reflexes", &rules); err != nil {
		return err
	}
	n := 0
	for _, l := range rules {
		if len(l.Targets) > 0 {
			n++
		}
	}
	if n != want {
		return fmt.Errorf("%d of %d rules are about something on %s", n, want, h.Name)
	}
	return nil
}

// startEmbedded makes a host a mesh, with an agent that is part of a process that has
// so many bytes of its own in memory.
func startEmbedded(b *testing.B, h *rig.Host, heap int) {
	b.Helper()
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	h.Start([]string{
		"GANGLION_TEST_HELPER=agent", "GANGLION_TEST_NAME=" + h.Name, "GANGLION_TEST_ADDR=" + h.Addr, "GANGLION_TEST_DIR=" + h.DataDir(),
		"GANGLION_TEST_SOCKET=" + h.Socket(), "GANGLION_TEST_HEAP=" + strconv.Itoa(heap),
	}, "agent.log", "nice", "-n", "-20", self) // the priority that an agent has
	rig.Await(b, time.Minute, func() error { return h.Get("/v1/mesh", &api.Mesh{}) })
}

// serveAgent is a program that embeds an agent, and has memory of its own.
func serveAgent() {
	heap, _ := strconv.Atoi(os.Getenv("GANGLION_TEST_HEAP"))
	kept := pointers(heap)
	a, err := agent.New(agent.Config{
		Name: os.Getenv("GANGLION_TEST_NAME"), Advertise: os.Getenv("GANGLION_TEST_ADDR"), DataDir: os.Getenv("GANGLION_TEST_DIR"),
		Socket: os.Getenv("GANGLION_TEST_SOCKET"), Driver: "process", Init: true, MeshName: "bench", Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if heap > 0 {
		go func() {
			for range time.Tick(2 * time.Second) {
				runtime.GC()
			}
		}()
	}
	if err := a.Run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	runtime.KeepAlive(kept)
}

// node is as small as a thing with pointers is, so that there are many.
type node struct{ left, right *node }

// pointers makes a tree of so many bytes, which collectors can go through together.
func pointers(bytes int) *node {
	n := bytes / 16
	if n == 0 {
		return nil
	}
	left := (n - 1) / 2
	return &node{pointers(16 * left), pointers(16 * (n - 1 - left))}
}
