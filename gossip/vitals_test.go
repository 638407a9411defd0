package gossip

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"
)

func knowAll(hosts, of []*host) bool {
	return !slices.ContainsFunc(hosts, func(h *host) bool {
		return slices.ContainsFunc(of, func(o *host) bool { _, _, ok := h.Vitals(o.cfg.Name); return !ok })
	})
}

func TestVitalsReachAll(t *testing.T) {
	inMesh(t, func(m *mesh) {
		hosts := m.five()
		for i, h := range hosts {
			h.PublishVitals(Vitals{Bits: uint32(i), CPU: 0.5, Memory: 1, Pressure: Unmeasured, Detail: uint64(i)})
		}
		took := m.within(2*time.Second, "all know all", func() bool { return knowAll(hosts, hosts) })
		pass(4 * time.Second)
		v, age, _ := hosts[0].Vitals("h4")
		if want := took + 4*time.Second; age < want-500*time.Millisecond || age > want+500*time.Millisecond {
			t.Errorf("age is %v, want about %v", age, want)
		}
		if v.Bits != 3 || v.Detail != 3 || v.CPU != 0.5 || v.Memory != 1 || v.Disk != 0 || v.Pressure != Unmeasured {
			t.Errorf("vitals are %+v", v)
		}

		// Newer replaces older everywhere, and a change of bits wakes who waits.
		changed := hosts[0].Changed()
		hosts[3].PublishVitals(Vitals{Bits: 8})
		<-changed
		m.within(2*time.Second, "all have the newer", func() bool {
			return !slices.ContainsFunc(hosts, func(h *host) bool { v, _, _ := h.Vitals("h4"); return v.Bits != 8 || v.Seq != 2 })
		})
	})
}

// A refresh of gauges alone wakes nobody.
func TestRefreshIsQuiet(t *testing.T) {
	inMesh(t, func(m *mesh) {
		hosts := m.five()
		hosts[1].PublishVitals(Vitals{Bits: 1})
		m.within(2*time.Second, "known", func() bool { return knowAll(hosts, hosts[1:2]) })
		changed := hosts[0].Changed()
		hosts[1].PublishVitals(Vitals{Bits: 1, CPU: 0.9})
		m.within(2*time.Second, "refreshed", func() bool { v, _, _ := hosts[0].Vitals("h2"); return v.CPU > 0.8 })
		select {
		case <-changed:
			t.Error("a refresh woke those who wait for changes")
		default:
		}
	})
}

// In a small mesh the answers to probes carry refreshes; gossip carries changes.
func TestFewHostsHearRefreshesByProbes(t *testing.T) {
	inMesh(t, func(m *mesh) {
		hosts := m.five()
		hosts[1].PublishVitals(Vitals{CPU: 0.5})
		m.within(2*time.Second, "known", func() bool { return knowAll(hosts, hosts[1:2]) })
		pass(10 * time.Second) // what was urgent has gone out
		for round := range 20 {
			cpu := float64(round % 2)
			hosts[1].PublishVitals(Vitals{CPU: cpu})
			m.within(7*time.Second, "the refresh is known", func() bool {
				waiting := 0
				for _, h := range hosts {
					waiting += h.table.routine.NumQueued() + h.table.urgent.NumQueued()
				}
				if waiting > 0 {
					t.Fatalf("%d refreshes wait to be gossiped", waiting)
				}
				return !slices.ContainsFunc(hosts, func(h *host) bool {
					v, _, _ := h.Vitals("h2")
					return v.CPU != cpu
				})
			})
		}
	})
}

func TestVitalsGoStaleThenUnknown(t *testing.T) {
	inMesh(t, func(m *mesh) {
		hosts := m.five()
		hosts[1].PublishVitals(Vitals{})
		m.within(2*time.Second, "known", func() bool { return knowAll(hosts, hosts[1:2]) })
		want := map[time.Duration]Freshness{14 * time.Second: Fresh, 16 * time.Second: Stale, 29 * time.Second: Stale, 31 * time.Second: Unknown}
		start := time.Now()
		for _, at := range []time.Duration{14 * time.Second, 16 * time.Second, 29 * time.Second, 31 * time.Second} {
			pass(at - time.Since(start))
			if got := hosts[4].Freshness("h2"); got != want[at] {
				t.Errorf("after %v they are %v", at, got)
			}
		}
		hosts[1].PublishVitals(Vitals{})
		m.within(7*time.Second, "fresh again, by the answers to probes", func() bool { return hosts[4].Freshness("h2") == Fresh })
		hosts[1].stop()
		m.within(10*time.Second, "the dead are unknown", func() bool { return hosts[4].Freshness("h2") == Unknown })
		if hosts[4].Freshness("nobody") != Unknown {
			t.Error("the vitals of nobody are known")
		}
	})
}

// The one exchange of joining brings the vitals of all, with their ages.
func TestLateJoinerHasAllVitalsWhenJoined(t *testing.T) {
	inMesh(t, func(m *mesh) {
		const n = 15
		hosts := []*host{m.start(m.config(1))}
		for i := 2; i <= n; i++ {
			hosts = append(hosts, m.start(m.config(i, 1)))
		}
		for i, h := range hosts {
			h.PublishVitals(Vitals{Bits: uint32(i)})
		}
		m.within(20*time.Second, "h1 knows all", func() bool { return knowAll(hosts[:1], hosts) })
		pass(20 * time.Second)

		late := m.start(m.config(99, 1))
		late.PublishVitals(Vitals{Bits: 99})
		for {
			changed := late.Changed()
			if joined, _ := late.JoinState(); joined {
				break
			}
			<-changed
		}
		if got := len(late.names(StatusAlive)); got != n+1 {
			t.Errorf("sees %d hosts when joined", got)
		}
		m.within(100*time.Millisecond, "the late one knows all at once", func() bool { return knowAll([]*host{late}, hosts) })
		if _, age, _ := late.Vitals("h2"); age < 19*time.Second || age > 41*time.Second {
			t.Errorf("age of vitals heard on joining: %v", age)
		}
		m.within(3*time.Second, "all know the late one", func() bool { return knowAll(hosts, []*host{late}) })
	})
}

// A restarted host numbers its vitals from the start; it must be believed.
func TestRestartedHostIsBelieved(t *testing.T) {
	inMesh(t, func(m *mesh) {
		hosts := m.five()
		for i := range 50 {
			hosts[4].PublishVitals(Vitals{Bits: uint32(i)})
		}
		m.within(2*time.Second, "known", func() bool { return knowAll(hosts, hosts[4:]) })
		hosts[4].stop()
		again := m.start(m.config(5, 1))
		again.PublishVitals(Vitals{Bits: 1000})
		m.within(5*time.Second, "its new vitals are everywhere", func() bool {
			return !slices.ContainsFunc(hosts[:4], func(h *host) bool { v, _, _ := h.Vitals("h5"); return v.Bits != 1000 })
		})
		if v, _, _ := again.Vitals("h5"); v.Epoch != 2 {
			t.Errorf("epoch %d", v.Epoch)
		}
	})
}

// Gossip may lose anything; probes and whole-state exchanges fill the gaps.
func TestVitalsSurviveLoss(t *testing.T) {
	inMesh(t, func(m *mesh) {
		hosts := m.five()
		m.net.Loss(0.5)
		for i, h := range hosts {
			h.PublishVitals(Vitals{Bits: uint32(i + 1)})
		}
		took := m.within(time.Minute, "all know all", func() bool { return knowAll(hosts, hosts) })
		t.Logf("took %v at 50 %% loss", took)
	})
}

func TestRefreshInterval(t *testing.T) {
	last := time.Duration(0)
	for n := range 6000 {
		d := RefreshInterval(n)
		if d < last {
			t.Fatalf("%d hosts refresh faster than %d", n, n-1)
		}
		last = d
	}
	for n, want := range map[int]time.Duration{0: 5, 100: 5, 1000: 10, 3000: 35, 5000: 60, 50000: 60} {
		if got := RefreshInterval(n); got != want*time.Second {
			t.Errorf("%d hosts: %v", n, got)
		}
	}
}

func TestQuantise(t *testing.T) {
	for v, want := range map[float64]float64{0: 0, 1: 1, 7: 1, 0.5: 0.5, -1: Unmeasured, math.Inf(1): 1, math.Inf(-1): Unmeasured} {
		if got := unquantise(quantise(v)); got != want {
			t.Errorf("%v becomes %v", v, got)
		}
	}
	if unquantise(quantise(math.NaN())) != Unmeasured {
		t.Error("NaN was measured")
	}
	for i := range 1001 {
		v := float64(i) / 1000
		if got := unquantise(quantise(v)); math.Abs(got-v) > 0.5/gaugeTop+1e-9 {
			t.Errorf("%v becomes %v", v, got)
		}
	}
}

func ExampleRefreshInterval() {
	fmt.Println(RefreshInterval(5), RefreshInterval(1000), RefreshInterval(5000))
	// Output: 5s 10s 1m0s
}

// The round trip to each host is known once it was probed, is that of the last
// probe, and is forgotten with the host.
func TestRoundTrips(t *testing.T) {
	inMesh(t, func(m *mesh) {
		hosts := m.five()
		m.within(10*time.Second, "the way to all is known", func() bool {
			return !slices.ContainsFunc(hosts[1:], func(h *host) bool { _, age, ok := hosts[0].RTT(h.cfg.Name); return !ok || age > 10*time.Second })
		})
		if _, _, ok := hosts[0].RTT("h1"); ok {
			t.Error("a host knows the way to itself")
		}
	})
	var known trips
	at := time.Now()
	known.note("a", 5*time.Millisecond, at)
	known.note("b", 6*time.Millisecond, at)
	known.note("a", 7*time.Millisecond, at.Add(time.Minute))
	if took, age, ok := known.get("a", at.Add(2*time.Minute)); took != 7*time.Millisecond || age != time.Minute || !ok {
		t.Errorf("%s, %s ago, %t", took, age, ok)
	}
	known.forget(at.Add(forgetAfter))
	if _, _, ok := known.get("b", at); ok || len(known.last) != 1 {
		t.Errorf("kept %v", known.last)
	}
}
