package copies

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/ganglion-mesh/ganglion/durable"
	"github.com/ganglion-mesh/ganglion/workload"
)

const memoryDir = "supervision"

// memory keeps on disk what the supervisor of one copy knows and the driver does
// not: how often it was restarted and how long it is to wait, and which
// generation of a copy that runs once was completed. It belongs to the copy's
// runner.
type memory struct {
	path  string
	clock func() (boot string, up time.Duration)
	last  workload.Memory // on disk
}

// memoryFile is a workload.Memory on disk. Its times are those of the boot
// clock, in milliseconds: they mean something in that boot alone.
type memoryFile struct {
	Boot       string  `json:"boot"`
	Generation uint64  `json:"generation"`
	Up         bool    `json:"up,omitempty"`
	Token      uint64  `json:"token,omitempty"`
	Starts     int     `json:"starts,omitempty"`
	Tries      int     `json:"tries,omitempty"`
	GaveUp     bool    `json:"gave_up,omitempty"`
	Failed     bool    `json:"failed,omitempty"`
	Streak     int     `json:"streak,omitempty"`
	RestartsMS []int64 `json:"restarts_ms,omitempty"`
	RetryAtMS  int64   `json:"retry_at_ms,omitempty"`
	Why        string  `json:"why,omitempty"`
	Held       bool    `json:"held,omitempty"`
	Completed  uint64  `json:"completed,omitempty"`
}

func (m *Manager) memoryOf(id workload.CopyID) memory {
	name := id.App + "." + id.String()[len(id.App)+1:] + ".json"
	return memory{path: filepath.Join(m.cfg.Dir, memoryDir, name), clock: m.cfg.BootClock}
}

// load reads what the last life of the agent knew of the copy. After a reboot
// that is only what was completed: what ended with the host did not fail.
func (m *memory) load(now time.Time) (workload.Memory, error) {
	var f memoryFile
	if err := readFile(m.path, &f); err != nil {
		return workload.Memory{}, err
	}
	boot, up := m.clock()
	if boot == "" || boot != f.Boot {
		return workload.Memory{Completed: f.Completed}, nil
	}
	at := func(ms int64) time.Time { return now.Add(time.Duration(ms)*time.Millisecond - up) }
	out := workload.Memory{
		Generation: f.Generation, Up: f.Up, Token: f.Token, Starts: f.Starts, Tries: f.Tries, GaveUp: f.GaveUp, Failed: f.Failed,
		Streak: f.Streak, Why: f.Why, Held: f.Held, Completed: f.Completed,
	}
	for _, ms := range f.RestartsMS {
		out.Restarts = append(out.Restarts, at(ms))
	}
	if f.RetryAtMS != 0 {
		out.RetryAt = at(f.RetryAtMS)
	}
	return out, nil
}

// save writes mem if it says something new. What was completed is on disk when
// it returns, so that a copy which ran once does not run again after a power
// loss; the pace of restarts may be lost with the power.
func (m *memory) save(now time.Time, mem workload.Memory) error {
	if mem.Equal(m.last) {
		return nil
	}
	boot, up := m.clock()
	ms := func(t time.Time) int64 { return (up + t.Sub(now)).Milliseconds() }
	f := memoryFile{
		Boot: boot, Generation: mem.Generation, Up: mem.Up, Token: mem.Token, Starts: mem.Starts, Tries: mem.Tries, GaveUp: mem.GaveUp, Failed: mem.Failed,
		Streak: mem.Streak, Why: mem.Why, Held: mem.Held, Completed: mem.Completed,
	}
	for _, t := range mem.Restarts {
		f.RestartsMS = append(f.RestartsMS, ms(t))
	}
	if !mem.RetryAt.IsZero() {
		f.RetryAtMS = ms(mem.RetryAt)
	}
	write := replaceFile
	if mem.Completed != m.last.Completed {
		write = writeFile
	}
	if err := write(m.path, f); err != nil {
		return err
	}
	mem.Restarts = slices.Clone(mem.Restarts) // the supervisor goes on with its own
	m.last = mem
	return nil
}

// forget removes what was remembered.
func (m *memory) forget() error {
	m.last = workload.Memory{}
	if err := os.Remove(m.path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// replaceFile replaces path by v as JSON, whole or not at all, and leaves it to
// the system when it reaches the disk.
func replaceFile(path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return durable.Swap(path, b, 0o600)
}
