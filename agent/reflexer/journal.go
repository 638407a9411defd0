package reflexer

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/ganglion-mesh/ganglion/durable"
	"github.com/ganglion-mesh/ganglion/reflexes"
)

// stateFile is the engine's last snapshot; journalPrefix begins the names of the
// files that hold the records made since, a number behind it.
const (
	stateFile     = "state.json"
	journalPrefix = "journal."
)

// journal is what was done, or begun, a record a line, in files that a stored
// snapshot ends. A record is with the kernel when append returns, and on the disk
// at most as long later as one flush takes, or when sync returns.
type journal struct {
	dir  string
	log  *slog.Logger
	bell chan struct{} // cap 1: there is something to flush

	mu    sync.Mutex
	file  *os.File // nil: it is not made yet
	named bool     // the name of the file is on the disk too
	n     uint64   // number of the file
	err   error    // a write or a flush failed: the file is not to be trusted
}

// openJournal readies dir for a new file, beside those of earlier lives.
func openJournal(dir string, log *slog.Logger) (*journal, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	j := &journal{dir: dir, log: log, bell: make(chan struct{}, 1)}
	numbers, err := j.numbers()
	if err != nil {
		return nil, err
	}
	if len(numbers) > 0 {
		j.n = numbers[len(numbers)-1]
	}
	j.n++
	return j, nil
}

// open makes the present file. It is called with mu held.
func (j *journal) open() error {
	if j.file != nil {
		return nil
	}
	f, err := os.OpenFile(j.path(j.n), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	j.file, j.named = f, false
	return nil
}

func (j *journal) path(n uint64) string {
	return filepath.Join(j.dir, journalPrefix+strconv.FormatUint(n, 10))
}

// numbers lists the files that there are, oldest first.
func (j *journal) numbers() ([]uint64, error) {
	entries, err := os.ReadDir(j.dir)
	if err != nil {
		return nil, err
	}
	var out []uint64
	for _, e := range entries {
		if rest, ok := strings.CutPrefix(e.Name(), journalPrefix); ok {
			if n, err := strconv.ParseUint(rest, 10, 64); err == nil {
				out = append(out, n)
			}
		}
	}
	slices.Sort(out)
	return out, nil
}

// append writes records, each whole or, if the host dies meanwhile, as the end
// of the file that cannot be read.
func (j *journal) append(records []reflexes.Record) error {
	if len(records) == 0 {
		return nil
	}
	var lines bytes.Buffer
	enc := json.NewEncoder(&lines)
	for _, rec := range records {
		if err := enc.Encode(rec); err != nil {
			return err
		}
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.err != nil {
		return j.err
	}
	if err := j.open(); err != nil {
		return err
	}
	if _, err := j.file.Write(lines.Bytes()); err != nil {
		j.err = err
		return err
	}
	select {
	case j.bell <- struct{}{}:
	default:
	}
	return nil
}

// ready makes the present file before the first record comes: to make a file takes
// longer than to write one, and an act waits for its record. What goes wrong is told
// by append.
func (j *journal) ready() {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.open(); err != nil {
		j.log.Debug("make a journal of reflexes", "error", err)
	}
}

// sync returns when all that was appended is on the disk.
func (j *journal) sync() error {
	j.mu.Lock()
	file, named, err := j.file, j.named, j.err
	j.mu.Unlock()
	if err != nil || file == nil {
		return err
	}
	if err = file.Sync(); err == nil && !named {
		err = durable.SyncDir(j.dir)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	switch {
	case errors.Is(err, os.ErrClosed):
		return nil // a snapshot that has it all is on the disk
	case j.file != file:
	case err != nil:
		j.err = err // never tried again on the same file
	default:
		j.named = true
	}
	return err
}

// turn has what follows a snapshot written to another file, and returns the one
// before it, nil if it was not made, with its number.
func (j *journal) turn() (old *os.File, last uint64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	old, last = j.file, j.n
	j.file, j.n, j.err = nil, j.n+1, nil
	return old, last
}

// read returns the last snapshot, nil if there is none, and all records of
// earlier lives. A line that cannot be read was being written when the host died.
func (j *journal) read() (state []byte, records []reflexes.Record, err error) {
	state, err = os.ReadFile(filepath.Join(j.dir, stateFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	numbers, err := j.numbers()
	if err != nil {
		return nil, nil, err
	}
	for _, n := range numbers {
		data, err := os.ReadFile(j.path(n))
		if err != nil {
			return nil, nil, err
		}
		lines := bufio.NewScanner(bytes.NewReader(data))
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			var rec reflexes.Record
			if err := json.Unmarshal(lines.Bytes(), &rec); err != nil {
				j.log.Warn("a record of reflexes is cut short", "file", j.path(n), "error", err)
				continue
			}
			records = append(records, rec)
		}
	}
	return state, records, nil
}

// cut removes the files up to number last: a snapshot has what is in them.
func (j *journal) cut(last uint64) error {
	numbers, err := j.numbers()
	for _, n := range numbers {
		if n <= last {
			err = errors.Join(err, os.Remove(j.path(n)))
		}
	}
	return err
}

func (j *journal) close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.file == nil {
		return nil
	}
	return errors.Join(j.file.Sync(), j.file.Close())
}

// keeper does what takes the disk's time beside the engine: flushes, and
// snapshots.
type keeper struct {
	j     *journal
	jobs  chan func()
	ended sync.WaitGroup
}

func newKeeper(j *journal) *keeper {
	k := &keeper{j: j, jobs: make(chan func(), 1)}
	k.ended.Go(k.run)
	return k
}

func (k *keeper) run() {
	k.j.ready()
	for {
		select {
		case <-k.j.bell:
			if err := k.j.sync(); err != nil {
				k.j.log.Error("flush journal of reflexes: nothing is done by them until it can be written", "error", err)
			}
		case job, ok := <-k.jobs:
			if !ok {
				return
			}
			job()
		}
	}
}

// store has a snapshot written, unless the last one still is. It reports whether
// it will be.
func (k *keeper) store(data []byte) bool {
	if len(k.jobs) == cap(k.jobs) {
		return false // the disk is slow; the journal has it all
	}
	k.jobs <- k.writing(data)
	return true
}

// writing begins a new journal and returns what puts the snapshot on the disk
// and then removes the journal that it ends.
func (k *keeper) writing(data []byte) func() {
	old, last := k.j.turn()
	return func() {
		err := durable.Replace(filepath.Join(k.j.dir, stateFile), data, 0o600)
		if err == nil {
			err = k.j.cut(last)
		} else if old != nil {
			err = errors.Join(err, old.Sync()) // it goes on being needed
		}
		if old != nil {
			err = errors.Join(err, old.Close())
		}
		k.j.ready()
		if err != nil {
			k.j.log.Warn("store state of reflexes", "error", err)
		}
	}
}

func (k *keeper) close() {
	close(k.jobs)
	k.ended.Wait()
}
