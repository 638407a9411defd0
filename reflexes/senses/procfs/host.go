package procfs

import (
	"bytes"
	"errors"
	"fmt"
	"time"
)

// Pressure is a file of pressure stall information. Some is the time in which at
// least one task waited for the resource, Full that in which all did, since the
// kernel began to count.
type Pressure struct {
	Some, Full time.Duration
	HasFull    bool // old kernels say none for the CPU
}

// ParsePressure reads /proc/pressure/* or a cgroup's *.pressure.
func ParsePressure(b []byte) (Pressure, error) {
	var p Pressure
	some := false
	for len(b) > 0 {
		var line []byte
		line, b = cutLine(b)
		kind, _ := cutWord(line)
		i := bytes.LastIndex(line, []byte(" total="))
		if i < 0 {
			continue
		}
		us, err := number(line[i+len(" total="):])
		if err != nil || us > 1<<63/1000 {
			return Pressure{}, fmt.Errorf("parse pressure %.80q: %w", line, errNumber)
		}
		switch string(kind) {
		case "some":
			p.Some, some = time.Duration(us)*time.Microsecond, true
		case "full":
			p.Full, p.HasFull = time.Duration(us)*time.Microsecond, true
		}
	}
	if !some {
		return Pressure{}, errors.New("parse pressure: it says no total of some")
	}
	return p, nil
}

// Meminfo is the host's memory, in bytes.
type Meminfo struct {
	Total, Available    uint64
	SwapTotal, SwapFree uint64
}

// ParseMeminfo reads /proc/meminfo.
func ParseMeminfo(b []byte) (Meminfo, error) {
	var m Meminfo
	var ok [2]bool
	m.Total, ok[0] = kilobytes(b, "MemTotal")
	m.Available, ok[1] = kilobytes(b, "MemAvailable")
	if !ok[0] || !ok[1] || m.Total == 0 {
		return Meminfo{}, errors.New("parse meminfo: no MemTotal or MemAvailable")
	}
	m.SwapTotal, _ = kilobytes(b, "SwapTotal")
	m.SwapFree, _ = kilobytes(b, "SwapFree")
	m.Available = min(m.Available, m.Total)
	m.SwapFree = min(m.SwapFree, m.SwapTotal)
	return m, nil
}

func kilobytes(b []byte, key string) (uint64, bool) {
	n, ok := Field(b, key)
	if !ok || n > 1<<54 {
		return 0, false
	}
	return n << 10, true
}

// CPU is the time that the host's processors have spent, in ticks of which there
// are 100 a second and processor. IOWait counts as idle.
type CPU struct {
	Busy, IOWait, Steal, Total uint64
}

// ParseCPU reads the first line of /proc/stat. Bytes beyond it may be missing.
func ParseCPU(b []byte) (CPU, error) {
	line, _ := cutLine(b)
	word, rest := cutWord(line)
	if string(word) != "cpu" {
		return CPU{}, errors.New("parse stat: it does not begin with cpu")
	}
	// user nice system idle iowait irq softirq steal; guest time is in user already
	var f [8]uint64
	n := 0
	for ; n < len(f); n++ {
		word, rest = cutWord(rest)
		if len(word) == 0 {
			break
		}
		v, err := number(word)
		if err != nil || v > 1<<56 {
			return CPU{}, fmt.Errorf("parse stat %.80q: %w", line, errNumber)
		}
		f[n] = v
	}
	if n < 5 {
		return CPU{}, fmt.Errorf("parse stat: %d fields of cpu", n)
	}
	var c CPU
	for _, v := range f {
		c.Total += v
	}
	c.IOWait, c.Steal = f[4], f[7]
	c.Busy = c.Total - f[3] - f[4]
	return c, nil
}

// Load is the number of tasks that ran or waited, averaged over minutes.
type Load struct {
	One, Five, Fifteen float64
	Running, Tasks     uint64 // now
}

// ParseLoad reads /proc/loadavg.
func ParseLoad(b []byte) (Load, error) {
	line, _ := cutLine(b)
	var l Load
	var word []byte
	rest := line
	for _, to := range []*float64{&l.One, &l.Five, &l.Fifteen} {
		var err error
		word, rest = cutWord(rest)
		if *to, err = decimal(word); err != nil {
			return Load{}, fmt.Errorf("parse loadavg %.80q: %w", line, err)
		}
	}
	word, _ = cutWord(rest)
	i := bytes.IndexByte(word, '/')
	if i < 0 {
		return Load{}, fmt.Errorf("parse loadavg %.80q: no tasks", line)
	}
	var err1, err2 error
	l.Running, err1 = number(word[:i])
	l.Tasks, err2 = number(word[i+1:])
	if err := errors.Join(err1, err2); err != nil {
		return Load{}, fmt.Errorf("parse loadavg %.80q: %w", line, err)
	}
	return l, nil
}

// ParseFileNr reads /proc/sys/fs/file-nr: how many files are open on the host,
// and how many may be.
func ParseFileNr(b []byte) (used, most uint64, err error) {
	line, _ := cutLine(b)
	var f [3]uint64 // open, free (always 0 by now), most
	rest := line
	for i := range f {
		var word []byte
		word, rest = cutWord(rest)
		if f[i], err = number(word); err != nil {
			return 0, 0, fmt.Errorf("parse file-nr %.80q: %w", line, err)
		}
	}
	return f[0] - min(f[0], f[1]), f[2], nil
}
