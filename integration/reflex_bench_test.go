package integration

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/integration/rig"
)

// BenchmarkReflexOnExit measures what a rule of a user's costs beside what is built
// in, through a whole agent: each copy is killed twice, and what makes a new one is
// first the restart that every copy has, and then, as the supervisor now waits, a
// reflex on its exit. Both are from the SIGKILL to the replacement executing.
func BenchmarkReflexOnExit(b *testing.B) {
	const copies = 200
	stamp := compileC(b, "stamp")
	r := rig.New(b, 1)
	h := r.Hosts[0]
	h.StartAgent()
	h.Must("init", "--name", "bench")
	h.Must("apply", h.File("bench.hcl", fmt.Sprintf(`app "bench" {
  count = %d
  run { command = [%q] }
  restart { limit = 1 }
  reflex "again" {
    when = "exit.signal == 'SIGKILL' && exit.count_1m >= 2"
    act  = [restart()]
  }
}
`, copies, stamp)))
	var built, rule []time.Duration
	for b.Loop() {
		for n := range copies {
			path := filepath.Join(h.DataDir(), "output", "bench", strconv.Itoa(n), "stdout.log")
			built = append(built, killAndTime(b, path))
			rule = append(rule, killAndTime(b, path))
		}
	}
	slices.Sort(built)
	slices.Sort(rule)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(len(rule)), "kills")
	b.ReportMetric(micros(built, .5), "built-in-p50-µs")
	b.ReportMetric(micros(built, .99), "built-in-p99-µs")
	b.ReportMetric(micros(rule, .5), "rule-p50-µs")
	b.ReportMetric(micros(rule, .99), "rule-p99-µs")
	b.ReportMetric(micros(rule, .5)-micros(built, .5), "more-p50-µs")
}

// BenchmarkReflexOnLink measures what a fault of the host costs until the act on it
// has arrived: from the call that takes a link down to the handler of the signal
// that a reflex sends, through whole agents, one link and one copy for each act.
func BenchmarkReflexOnLink(b *testing.B) {
	const hosts, links = 5, 20 // no host does more acts in ten minutes
	stamp := compileC(b, "stamp")
	r := rig.New(b, hosts)
	var nets [hosts]*netlink.Handle
	for i, h := range r.Hosts {
		h.StartAgent()
		h.Must("init", "--name", "bench")
		intents := fmt.Sprintf("app \"hand\" {\n  count = %d\n  run { command = [%q] }\n}\n", links, stamp)
		for n := range links {
			link, peer := fmt.Sprintf("w%d", n), fmt.Sprintf("far%d", n)
			h.IP("link", "add", link, "type", "veth", "peer", "name", peer)
			h.IP("link", "set", peer, "up")
			h.IP("link", "set", link, "up")
			intents += fmt.Sprintf("reflex %q {\n  scope = \"link:%s\"\n  when = \"!link.up\"\n  act = [signal(\"hand/%d\", \"SIGUSR1\")]\n  cooldown = \"10m\"\n  limit = \"1/10m\"\n}\n", link, link, n)
		}
		h.Must("apply", h.File("bench.hcl", intents))
		nets[i] = openNet(b, h)
	}
	var took []time.Duration
	for b.Loop() {
		for i, h := range r.Hosts {
			rig.Await(b, 20*time.Second, func() error { return rulesReady(h, links) })
			for n := range links {
				path := filepath.Join(h.DataDir(), "output", "hand", strconv.Itoa(n), "stdout.log")
				_, _, size := lastStamp(b, path, 0)
				link, err := nets[i].LinkByName(fmt.Sprintf("w%d", n))
				if err != nil {
					b.Fatal(err)
				}
				begun := monotonic()
				if err := nets[i].LinkSetDown(link); err != nil {
					b.Fatal(err)
				}
				_, at, _ := lastStamp(b, path, size)
				took = append(took, time.Duration(at-begun))
			}
		}
	}
	slices.Sort(took)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(len(took)), "links")
	b.ReportMetric(micros(took, .5), "p50-µs")
	b.ReportMetric(micros(took, .99), "p99-µs")
	b.ReportMetric(micros(took, 1), "max-µs")
}

// openNet opens the network of a host to work on its links.
func openNet(b *testing.B, h *rig.Host) *netlink.Handle {
	b.Helper()
	ns, err := netns.GetFromPath(h.Netns())
	if err != nil {
		b.Fatal(err)
	}
	defer ns.Close()
	handle, err := netlink.NewHandleAt(ns)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(handle.Close)
	return handle
}

// rulesReady tells whether so many rules of a host have something to be about, and
// know how it is.
func rulesReady(h *rig.Host, want int) error {
	var rules []api.LocalReflex
	if err := h.Get("/v1/local/reflexes", &rules); err != nil {
		return err
	}
	n := 0
	for _, l := range rules {
		if len(l.Targets) == 1 && l.Targets[0].Truth == "false" {
			n++
		}
	}
	if n != want {
		return fmt.Errorf("%d of %d rules are ready on %s", n, want, h.Name)
	}
	return nil
}
