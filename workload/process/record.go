//go:build linux

package process

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/ganglion-mesh/ganglion/workload"
)

// The driver's own directory under data_dir, and in it the records of copies:
//
//	process/uids.json              app → user id
//	process/copies/web.2/run       the last start: one page, overwritten by one write
//	process/copies/web.2/spec-HASH what it started, written before the first start of a spec
const (
	privateDir = "process"
	copiesDir  = "copies"
	runFile    = "run"
	specPrefix = "spec-"
)

// runBytes is the fixed size of a run record: within one page, so that a single
// write of it is whole or not at all when the agent is killed. It need not
// survive the host: after a boot no copy runs, and the boot id tells.
const runBytes = 1024

// run is the record of the last start, and of the mark that the next one will
// carry. So the next start is recorded before its exec without a write between
// the end of this one and that exec, where a busy disk could hold it up. A record
// whose process is gone says "may have been started again: look for the mark".
type run struct {
	Boot      string    `json:"boot"`
	Spec      string    `json:"spec,omitempty"` // hash of the spec file
	Start     int       `json:"start,omitempty"`
	Nonce     string    `json:"nonce,omitempty"`
	Pid       int       `json:"pid,omitempty"`
	StartTime uint64    `json:"start_time,omitempty"`
	Since     time.Time `json:"since,omitzero"`
	Next      next      `json:"next,omitzero"`
}

// next is a start that may come at any moment; zero if the copy was stopped.
type next struct {
	Spec  string `json:"spec"`
	Nonce string `json:"nonce"`
}

// started is what a spec file holds.
type started struct {
	Spec   workload.Spec `json:"spec"`
	Cgroup string        `json:"cgroup,omitempty"`
}

func copyName(id workload.CopyID) string { return id.App + "." + strconv.Itoa(id.N) }

func parseCopyName(s string) (workload.CopyID, bool) {
	app, n, ok := strings.Cut(s, ".")
	num, err := strconv.Atoi(n)
	id := workload.CopyID{App: app, N: num}
	return id, ok && err == nil && validID(id) && copyName(id) == s
}

func (d *Driver) recordDir(id workload.CopyID) string {
	return filepath.Join(d.cfg.Dir, privateDir, copiesDir, copyName(id))
}

// writeRun overwrites the record by one write.
func writeRun(f *os.File, r run) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if len(b) >= runBytes {
		return fmt.Errorf("record start: %d bytes do not fit", len(b))
	}
	page := make([]byte, runBytes)
	copy(page, b)
	for i := len(b); i < len(page)-1; i++ {
		page[i] = ' '
	}
	page[len(page)-1] = '\n'
	_, err = f.WriteAt(page, 0)
	return err
}

func readRun(dir string) (run, error) {
	f, err := os.Open(filepath.Join(dir, runFile))
	if err != nil {
		return run{}, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, runBytes))
	if err != nil {
		return run{}, err
	}
	var r run
	if err := json.Unmarshal(bytes.TrimSpace(b), &r); err != nil {
		return run{}, fmt.Errorf("read record %s: %w", f.Name(), err)
	}
	return r, nil
}

// writeSpec keeps what is going to be started under its hash and returns that.
func writeSpec(dir string, s started) (hash string, err error) {
	b, err := json.Marshal(s)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(b)
	hash = hex.EncodeToString(sum[:8])
	return hash, replaceFile(filepath.Join(dir, specPrefix+hash), b)
}

func readSpec(dir, hash string) (started, error) {
	var s started
	if _, err := hex.DecodeString(hash); err != nil {
		return s, err
	}
	b, err := os.ReadFile(filepath.Join(dir, specPrefix+hash))
	if err != nil {
		return s, err
	}
	return s, json.Unmarshal(b, &s)
}

// findSpec looks for a kept spec of a version, for a copy whose run record is
// gone.
func findSpec(dir, version string) (started, error) {
	names, err := filepath.Glob(filepath.Join(dir, specPrefix+"*"))
	if err != nil {
		return started{}, err
	}
	for _, name := range names {
		s, err := readSpec(dir, strings.TrimPrefix(filepath.Base(name), specPrefix))
		if err == nil && s.Spec.Version == version {
			return s, nil
		}
	}
	return started{}, fs.ErrNotExist
}

// dropSpecs removes kept specs but one.
func dropSpecs(dir, keep string) {
	names, _ := filepath.Glob(filepath.Join(dir, specPrefix+"*"))
	for _, name := range names {
		if filepath.Base(name) != specPrefix+keep {
			_ = os.Remove(name)
		}
	}
}

// replaceFile writes a file whole, or not at all, and durably.
func replaceFile(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}
