package gossip

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// Everything in this file uses real sockets and real time.

// patience bounds what has to come about in real time, on a machine that may be
// starved. How soon it does is for the tests in virtual time to say.
const patience = 30 * time.Second

// A probe under way outlives memberlist's Shutdown, its own and one made for
// another host, by a probe interval or so. That is waited for.
func TestMain(m *testing.M) {
	code := m.Run()
	if code == 0 {
		begun, err := time.Now(), goleak.Find()
		for err != nil && time.Since(begun) < patience {
			err = goleak.Find()
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "goroutines are left:", err)
			code = 1
		}
	}
	os.Exit(code)
}

func loopback(name string, seeds ...*host) Config {
	cfg := Config{Name: name, MeshID: "mesh-a", Key: testKey, Bind: "127.0.0.1"}
	for _, s := range seeds {
		cfg.Seeds = append(cfg.Seeds, s.self.String())
	}
	return cfg
}

// realMesh runs n hosts on loopback, joined by the first, until the test ends.
func realMesh(t testing.TB, n int) []*host {
	t.Helper()
	var hosts []*host
	for i := range n {
		h := run(t, loopback(fmt.Sprintf("h%d", i+1), hosts[:min(i, 1)]...))
		t.Cleanup(h.stop)
		hosts = append(hosts, h)
	}
	within(t, patience, "all see all", func() bool {
		for _, h := range hosts {
			if len(h.names(StatusAlive)) != n {
				return false
			}
		}
		return true
	})
	return hosts
}

func TestRealSocketsJoinVitalsAndDeath(t *testing.T) {
	t.Parallel()
	hosts := realMesh(t, 5)
	for i, h := range hosts {
		h.PublishVitals(Vitals{Bits: uint32(i)})
	}
	within(t, patience, "all know all", func() bool { return knowAll(hosts, hosts) })
	late := run(t, loopback("h6", hosts[3]))
	within(t, patience, "the late one is in", func() bool { joined, _ := late.JoinState(); return joined })
	if !knowAll([]*host{late}, hosts) {
		t.Error("joined without everyone's vitals")
	}
	within(t, patience, "h1 sees it", func() bool { return len(hosts[0].names(StatusAlive)) == 6 })
	late.stop()
	took := within(t, patience, "its death is seen", func() bool { return allSee(hosts, StatusFailed, "h6") })
	t.Logf("death seen by all in %v", took)
}

func TestRealSocketsRefuseAnotherMeshAndANameTaken(t *testing.T) {
	t.Parallel()
	hosts := realMesh(t, 2)
	other := loopback("h3", hosts...)
	other.MeshID = "mesh-b"
	stranger := run(t, other)
	defer stranger.stop()
	twin := run(t, loopback("h2", hosts[0]))
	defer twin.stop()
	within(t, patience, "both learn why", func() bool {
		_, err1 := stranger.JoinState()
		_, err2 := twin.JoinState()
		var c *ConflictError
		return err1 != nil && strings.Contains(err1.Error(), "another mesh") && errors.As(err2, &c)
	})
	if len(hosts[0].names(StatusAlive)) != 2 || len(stranger.Members()) > 1 || len(twin.Members()) > 1 {
		t.Error("someone was let in")
	}
}

func TestPortTaken(t *testing.T) {
	for _, network := range []string{"tcp", "udp"} {
		var port int
		if network == "tcp" {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = l.Close() }()
			port = l.Addr().(*net.TCPAddr).Port
		} else {
			l, err := net.ListenPacket("udp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = l.Close() }()
			port = l.LocalAddr().(*net.UDPAddr).Port
		}
		cfg := loopback("h1")
		cfg.Port = port
		if _, err := New(cfg); !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), fmt.Sprint(port)) {
			t.Errorf("%s port taken: %v", network, err)
		}
	}
}

func TestNewStartsNothingAndCloseFreesThePort(t *testing.T) {
	before := runtime.NumGoroutine()
	p, err := New(loopback("h1"))
	if err != nil {
		t.Fatal(err)
	}
	if runtime.NumGoroutine() > before {
		t.Error("New started a goroutine")
	}
	_, port := p.LocalAddr()
	p.PublishVitals(Vitals{Bits: 1})
	if len(p.Members()) != 0 || p.HealthScore() != 0 || p.Freshness("h1") != Unknown {
		t.Error("a pool that does not run knows something")
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	cfg := loopback("h1")
	cfg.Port = port
	again, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}

// Strangers that connect and say nothing cannot exhaust a host, and its end does
// not wait for them.
func TestSilentStreamsAreBounded(t *testing.T) {
	t.Parallel()
	hosts := realMesh(t, 1)
	var conns []net.Conn
	for range maxStreams + 50 {
		c, err := net.DialTimeout("tcp", hosts[0].self.String(), time.Second)
		if err != nil {
			break
		}
		conns = append(conns, c)
	}
	tr := hosts[0].transport.(*netTransport)
	within(t, patience, "the slots are taken", func() bool { return len(tr.slots) == maxStreams })
	start := time.Now()
	hosts[0].stop()
	if took := time.Since(start); took > 8*time.Second { // memberlist gives a silent stream 10
		t.Errorf("the end took %v", took)
	}
	for _, c := range conns {
		_ = c.Close()
	}
	within(t, patience, "the slots are free", func() bool { return len(tr.slots) == 0 })
}

// Noise on the ports changes nothing.
func TestNoiseOnThePorts(t *testing.T) {
	t.Parallel()
	hosts := realMesh(t, 2)
	target := hosts[0].self.String()
	udp, err := net.Dial("udp", target)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = udp.Close() }()
	for i := range 300 {
		b := make([]byte, i*3)
		for j := range b {
			b[j] = byte(j*i + i)
		}
		_, _ = udp.Write(b)
		label := append([]byte{244, 6}, "mesh-a"...)
		_, _ = udp.Write(append(label, b...))
	}
	for i := range 20 {
		tcp, err := net.Dial("tcp", target)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = tcp.Write(append([]byte{244, 6}, []byte(strings.Repeat("mesh-a", i+1))...))
		_ = tcp.Close()
	}
	hosts[1].PublishVitals(Vitals{Bits: 77})
	within(t, patience, "gossip goes on", func() bool { v, _, _ := hosts[0].Vitals("h2"); return v.Bits == 77 })
}

func TestAdvertise(t *testing.T) {
	for _, c := range []struct {
		bind, advertise, want string
		fails                 bool
	}{
		{"127.0.0.1", "", "127.0.0.1", false},
		{"127.0.0.1", "192.0.2.7", "192.0.2.7", false},
		{"0.0.0.0", "192.0.2.7:99", "192.0.2.7:99", false},
		{"0.0.0.0", "not an address", "", true},
		{"0.0.0.0", "host.example:7946", "", true},
	} {
		cfg := loopback("h1")
		cfg.Bind, cfg.Advertise = c.bind, c.advertise
		p, err := New(cfg)
		if (err != nil) != c.fails {
			t.Errorf("%+v: %v", c, err)
		}
		if err != nil {
			continue
		}
		ip, port := p.LocalAddr()
		if got := fmt.Sprintf("%s:%d", ip, port); got != c.want && ip != c.want {
			t.Errorf("%+v: advertises %s", c, got)
		}
		_ = p.Close()
	}
	if ip, err := outboundIP(); err == nil && (!ip.IsValid() || ip.IsLoopback() || ip.IsUnspecified()) {
		t.Errorf("found address %v", ip)
	}
}

// BenchmarkIdle reports what one idle host of five costs, refreshing its vitals
// as it should. Run it with -benchtime=1x.
func BenchmarkIdle(b *testing.B) {
	hosts := realMesh(b, 5)
	sampler := NewSampler(b.TempDir())
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	refresh := func() {
		for _, h := range hosts {
			h.PublishVitals(sampler.Sample(ctx))
		}
	}
	for b.Loop() {
		var before, after syscall.Rusage
		_ = syscall.Getrusage(syscall.RUSAGE_SELF, &before)
		start := time.Now()
		for range 4 {
			refresh()
			<-time.After(hosts[0].RefreshInterval())
		}
		_ = syscall.Getrusage(syscall.RUSAGE_SELF, &after)
		cpu := time.Duration(after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano())
		b.ReportMetric(100*float64(cpu)/float64(time.Since(start))/5, "%core/host")
		var mem runtime.MemStats
		runtime.ReadMemStats(&mem)
		b.ReportMetric(float64(mem.HeapAlloc)/1e6/5, "MB-heap/host")
		if page, err := os.ReadFile("/proc/self/statm"); err == nil {
			var size, rss float64
			if _, err := fmt.Sscan(string(page), &size, &rss); err == nil {
				b.ReportMetric(rss*float64(os.Getpagesize())/1e6, "MB-rss/5-hosts")
			}
		}
	}
}
