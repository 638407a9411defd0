package gossip

import (
	"context"
	"os"
	"path/filepath"
	"testing"
)

func TestSamplerReadsThisHost(t *testing.T) {
	s := NewSampler(t.TempDir())
	v := s.Sample(context.Background())
	for name, g := range map[string]float64{"memory": v.Memory, "disk": v.Disk, "cpu": v.CPU} {
		if g <= 0 || g > 1 {
			t.Errorf("%s is %v", name, g)
		}
	}
	if _, err := os.Stat("/proc/pressure/cpu"); err == nil && (v.Pressure < 0 || v.Pressure > 1) {
		t.Errorf("pressure is %v", v.Pressure)
	}
}

func TestSamplerCPUIsTheShareSinceTheLastSample(t *testing.T) {
	s := NewSampler("/")
	for i, c := range []struct{ busy, total, want float64 }{
		{250, 1000, 0.25},       // since boot
		{300, 1100, 0.5},        // 50 of 100 since
		{300, 1100, Unmeasured}, // no time has passed
		{299, 1200, 0},          // the counters stepped back
		{499, 1300, 1},          // more than all: rounding
		{500, 1000, Unmeasured}, // time went back
		{600, 1200, 0.5},        // and it recovers
	} {
		if got := s.share(c.busy, c.total); got != c.want {
			t.Errorf("step %d: %v", i, got)
		}
	}
}

func TestSamplerPressure(t *testing.T) {
	dir := t.TempDir()
	s := &Sampler{pressureDir: dir}
	if got := s.pressure(); got != Unmeasured {
		t.Errorf("without /proc/pressure: %v", got)
	}
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("cpu", "some avg10=1.50 avg60=90.00 avg300=0.00 total=1\n") // kernels before 5.13 have no "full" here
	if got := s.pressure(); got != 0.015 {
		t.Errorf("cpu alone: %v", got)
	}
	write("io", "some avg10=40.00 avg60=0.00 avg300=0.00 total=1\nfull avg10=99.00 avg60=0.00 avg300=0.00 total=1\n")
	write("memory", "garbage\n")
	if got := s.pressure(); got != 0.4 {
		t.Errorf("the worst: %v", got)
	}
	for _, text := range []string{"", "some", "some avg10=", "some avg10=x", "some avg10=-1", "some avg10=101", "some avg10=NaN", "full avg10=1", "some avg60=1"} {
		if v, ok := someAvg10([]byte(text)); ok {
			t.Errorf("%q gives %v", text, v)
		}
	}
}

// A data directory that is gone, and a context that has ended, leave gaps only.
func TestSamplerToleratesWhatIsMissing(t *testing.T) {
	s := NewSampler(filepath.Join(t.TempDir(), "gone"))
	v := s.Sample(context.Background())
	if v.Disk != Unmeasured || v.Memory <= 0 {
		t.Errorf("%+v", v)
	}
}
