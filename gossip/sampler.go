package gossip

import (
	"bufio"
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strconv"

	"github.com/shirou/gopsutil/v3/cpu"
	"github.com/shirou/gopsutil/v3/disk"
	"github.com/shirou/gopsutil/v3/mem"
)

// Sampler reads this host's gauges: a few small files of /proc and one statfs a
// sample. It belongs to one goroutine.
type Sampler struct {
	dataDir     string
	pressureDir string
	busy, total float64 // CPU seconds at the last sample, since boot
}

// NewSampler reads the disk that holds dataDir.
func NewSampler(dataDir string) *Sampler {
	return &Sampler{dataDir: dataDir, pressureDir: "/proc/pressure"}
}

// Sample fills the gauges. CPU is the share used since the last sample, the first
// time since boot. What cannot be read is Unmeasured: an old kernel, or one
// started without psi=1, has no pressure.
func (s *Sampler) Sample(ctx context.Context) Vitals {
	v := Vitals{CPU: s.cpu(ctx), Memory: Unmeasured, Disk: Unmeasured, Pressure: s.pressure()}
	if m, err := mem.VirtualMemoryWithContext(ctx); err == nil && m.Total > 0 {
		v.Memory = 1 - float64(m.Available)/float64(m.Total)
	}
	if d, err := disk.UsageWithContext(ctx, s.dataDir); err == nil {
		v.Disk = d.UsedPercent / 100
	}
	return v
}

func (s *Sampler) cpu(ctx context.Context) float64 {
	times, err := cpu.TimesWithContext(ctx, false)
	if err != nil || len(times) != 1 {
		return Unmeasured
	}
	t := times[0]
	idle := t.Idle + t.Iowait
	busy := t.User + t.System + t.Nice + t.Irq + t.Softirq + t.Steal
	return s.share(busy, busy+idle)
}

// share is the part that was busy since the last call.
func (s *Sampler) share(busy, total float64) float64 {
	dBusy, dTotal := busy-s.busy, total-s.total
	s.busy, s.total = busy, total
	if dTotal <= 0 {
		return Unmeasured
	}
	return min(max(dBusy/dTotal, 0), 1) // the kernel's counters may step back a little
}

// pressure is the worst of the shares of the last ten seconds in which some task
// waited for CPU, memory or I/O.
func (s *Sampler) pressure() float64 {
	worst := float64(Unmeasured)
	for _, name := range []string{"cpu", "memory", "io"} {
		b, err := os.ReadFile(filepath.Join(s.pressureDir, name))
		if err != nil {
			continue
		}
		if v, ok := someAvg10(b); ok {
			worst = max(worst, v)
		}
	}
	return worst
}

// someAvg10 finds "some avg10=1.23" and returns it as a share.
func someAvg10(b []byte) (float64, bool) {
	for sc := bufio.NewScanner(bytes.NewReader(b)); sc.Scan(); {
		fields := bytes.Fields(sc.Bytes())
		if len(fields) < 2 || string(fields[0]) != "some" {
			continue
		}
		text, ok := bytes.CutPrefix(fields[1], []byte("avg10="))
		v, err := strconv.ParseFloat(string(text), 64)
		return v / 100, ok && err == nil && v >= 0 && v <= 100
	}
	return 0, false
}
