package senses

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ganglion-mesh/ganglion/reflexes"
	"github.com/ganglion-mesh/ganglion/reflexes/senses/procfs"
)

// HostConfig configures the senses that read a file of /proc at an interval:
// NewMemory, NewCPU, NewLoad and NewLimits.
type HostConfig struct {
	// Now is the boot clock; required.
	Now Clock
	// Interval between two looks. Default: 200 ms for memory, 1 s for the CPU,
	// 5 s for load and limits.
	Interval time.Duration
	// Proc is where proc is mounted. Default: /proc.
	Proc string
}

// validate sets what was left out, and refuses an interval above most, which
// leaves a late look half a second.
func (c *HostConfig) validate(interval, most time.Duration) error {
	if c.Interval == 0 {
		c.Interval = interval
	}
	if c.Proc == "" {
		c.Proc = "/proc"
	}
	if c.Now == nil {
		return errNoClock
	}
	if c.Interval < 10*time.Millisecond || c.Interval > most {
		return fmt.Errorf("interval %s: want 10ms to %s, or values are too old to be known", c.Interval, most)
	}
	return nil
}

// fileSense reads a few files of the host at an interval, through descriptors
// that it keeps. It allocates nothing in doing so.
type fileSense struct {
	cfg   HostConfig
	name  string
	vars  []reflexes.VarID
	paths []string // below Proc
	size  int      // of the files, roughly
	// look turns what the files say into facts. It belongs to one run.
	look func() func(at reflexes.Boot, files [][]byte, to []reflexes.Fact) ([]reflexes.Fact, error)
}

func (s *fileSense) Name() string           { return s.name }
func (s *fileSense) Vars() []reflexes.VarID { return s.vars }

func (s *fileSense) Run(ctx context.Context, emit Emit) error {
	files := make([]*procfs.File, 0, len(s.paths))
	defer func() {
		for _, f := range files {
			_ = f.Close()
		}
	}()
	for _, p := range s.paths {
		f, err := procfs.Open(s.cfg.Proc+"/"+p, s.size)
		if err != nil {
			return err
		}
		files = append(files, f)
	}
	r := fileReader{sense: s, files: files, texts: make([][]byte, len(files)), look: s.look()}
	return every(ctx, s.cfg.Now, s.cfg.Interval, func() error {
		facts, err := r.read()
		if err == nil {
			emit(facts)
		}
		return err
	})
}

// fileReader is one run of a fileSense.
type fileReader struct {
	sense *fileSense
	files []*procfs.File
	texts [][]byte
	facts []reflexes.Fact
	look  func(reflexes.Boot, [][]byte, []reflexes.Fact) ([]reflexes.Fact, error)
}

func (r *fileReader) read() (facts []reflexes.Fact, err error) {
	at := r.sense.cfg.Now()
	for i, f := range r.files {
		if r.texts[i], err = f.Read(); err != nil {
			return nil, err
		}
	}
	r.facts, err = r.look(at, r.texts, r.facts[:0])
	return r.facts, err
}

// NewMemory returns the sense of the host's memory and swap.
func NewMemory(cfg HostConfig) (Sense, error) {
	if err := cfg.validate(200*time.Millisecond, time.Second*3/2); err != nil {
		return nil, fmt.Errorf("set up the sense of memory: %w", err)
	}
	return &fileSense{
		cfg: cfg, name: "memory", paths: []string{"meminfo"}, size: 4 << 10,
		vars: []reflexes.VarID{reflexes.HostMemAvail, reflexes.HostMemAvailBytes, reflexes.HostSwapUsed},
		look: func() func(reflexes.Boot, [][]byte, []reflexes.Fact) ([]reflexes.Fact, error) { return lookMemory },
	}, nil
}

func lookMemory(at reflexes.Boot, files [][]byte, to []reflexes.Fact) ([]reflexes.Fact, error) {
	m, err := procfs.ParseMeminfo(files[0])
	if err != nil {
		return to, err
	}
	swap := 0.0
	if m.SwapTotal > 0 {
		swap = float64(m.SwapTotal-m.SwapFree) / float64(m.SwapTotal)
	}
	return append(to,
		hostFact(reflexes.HostMemAvail, reflexes.Float(float64(m.Available)/float64(m.Total)), at),
		hostFact(reflexes.HostMemAvailBytes, reflexes.Int(int64(m.Available)), at),
		hostFact(reflexes.HostSwapUsed, reflexes.Float(swap), at)), nil
}

// NewCPU returns the sense of how busy the host's processors are.
func NewCPU(cfg HostConfig) (Sense, error) {
	if err := cfg.validate(time.Second, time.Second*9/2); err != nil {
		return nil, fmt.Errorf("set up the sense of the CPU: %w", err)
	}
	return &fileSense{
		cfg: cfg, name: "cpu", paths: []string{"stat"}, size: 8 << 10,
		vars: []reflexes.VarID{reflexes.HostCPUBusy, reflexes.HostCPUCount},
		look: func() func(reflexes.Boot, [][]byte, []reflexes.Fact) ([]reflexes.Fact, error) {
			var busy busyRatio
			return busy.look
		},
	}, nil
}

// busyRatio tells how busy the processors were since the last look.
type busyRatio struct {
	last  procfs.CPU
	began bool
}

func (b *busyRatio) look(at reflexes.Boot, files [][]byte, to []reflexes.Fact) ([]reflexes.Fact, error) {
	now, err := procfs.ParseCPU(files[0])
	if err != nil {
		return to, err
	}
	last, began := b.last, b.began
	b.last, b.began = now, true
	to = append(to, hostFact(reflexes.HostCPUCount, reflexes.Int(int64(countCPUs(files[0]))), at))
	// The counters of idle time may go back by a little; then there is no saying.
	if began && now.Total > last.Total && now.Busy >= last.Busy {
		ratio := min(1, float64(now.Busy-last.Busy)/float64(now.Total-last.Total))
		to = append(to, hostFact(reflexes.HostCPUBusy, reflexes.Float(ratio), at))
	}
	return to, nil
}

// countCPUs counts the lines of single processors, which stand after the first.
func countCPUs(stat []byte) (n int) {
	for {
		i := bytes.IndexByte(stat, '\n')
		if i < 0 {
			return n
		}
		stat = stat[i+1:]
		if len(stat) < 4 || string(stat[:3]) != "cpu" {
			return n
		}
		n++
	}
}

// NewLoad returns the sense of load and of the number of processes.
func NewLoad(cfg HostConfig) (Sense, error) {
	if err := cfg.validate(5*time.Second, time.Second*29/2); err != nil {
		return nil, fmt.Errorf("set up the sense of load: %w", err)
	}
	return &fileSense{
		cfg: cfg, name: "load", paths: []string{"loadavg", "stat", "sys/kernel/pid_max", "sys/kernel/threads-max"}, size: 8 << 10,
		vars: []reflexes.VarID{reflexes.HostLoad, reflexes.HostPids},
		look: func() func(reflexes.Boot, [][]byte, []reflexes.Fact) ([]reflexes.Fact, error) { return lookLoad },
	}, nil
}

func lookLoad(at reflexes.Boot, files [][]byte, to []reflexes.Fact) ([]reflexes.Fact, error) {
	load, err := procfs.ParseLoad(files[0])
	if err != nil {
		return to, err
	}
	pids, err1 := procfs.Number(files[2])
	threads, err2 := procfs.Number(files[3])
	if err := errors.Join(err1, err2); err != nil {
		return to, err
	}
	return append(to,
		hostFact(reflexes.HostLoad, reflexes.Float(load.One/float64(max(1, countCPUs(files[1])))), at),
		hostFact(reflexes.HostPids, reflexes.Float(float64(load.Tasks)/float64(max(1, min(pids, threads)))), at)), nil
}

// NewLimits returns the sense of the host's open files.
func NewLimits(cfg HostConfig) (Sense, error) {
	if err := cfg.validate(5*time.Second, time.Second*29/2); err != nil {
		return nil, fmt.Errorf("set up the sense of limits: %w", err)
	}
	return &fileSense{
		cfg: cfg, name: "limits", paths: []string{"sys/fs/file-nr"}, size: 128,
		vars: []reflexes.VarID{reflexes.HostFiles},
		look: func() func(reflexes.Boot, [][]byte, []reflexes.Fact) ([]reflexes.Fact, error) { return lookFiles },
	}, nil
}

func lookFiles(at reflexes.Boot, files [][]byte, to []reflexes.Fact) ([]reflexes.Fact, error) {
	used, most, err := procfs.ParseFileNr(files[0])
	if err != nil {
		return to, err
	}
	return append(to, hostFact(reflexes.HostFiles, reflexes.Float(float64(used)/float64(max(1, most))), at)), nil
}
