//go:build linux

package systemd

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/ganglion-mesh/ganglion/durable"
	"github.com/ganglion-mesh/ganglion/workload"
)

// varLib is below which PID 1 makes state directories, and nowhere else.
const varLib = "/var/lib"

const (
	appsDir  = "apps"
	stateDir = "state" // STATE_DIR, in the copy's own directory
)

// dirs are the places of this driver.
type dirs struct {
	units string // records and environments of units, for root alone
	apps  string // of the copies' own directories, relative to /var/lib
}

// makeDirs makes the directories that belong to the agent. Copies may pass
// through data_dir to their own directories and list nothing.
func makeDirs(dir string) (dirs, error) {
	d := dirs{units: filepath.Join(dir, "systemd", "units")}
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return d, err
	}
	if err := os.Chmod(dir, 0o711); err != nil {
		return d, err
	}
	for _, sub := range []string{filepath.Dir(d.units), d.units} {
		if err := os.MkdirAll(sub, 0o700); err != nil {
			return d, err
		}
		if err := os.Chmod(sub, 0o700); err != nil {
			return d, err
		}
	}
	d.apps = appsBelowVarLib(dir)
	if err := os.MkdirAll(filepath.Join(varLib, d.apps), 0o711); err != nil {
		return d, err
	}
	return d, os.Chmod(filepath.Join(varLib, d.apps), 0o711)
}

// appsBelowVarLib is data_dir/apps where PID 1 can keep state there: data_dir is
// below /var/lib and on its file system (PID 1 moves directories by rename).
// Elsewhere it is a directory of its own, named after data_dir.
func appsBelowVarLib(dir string) string {
	rel, err := filepath.Rel(varLib, dir)
	if err == nil && rel != "." && filepath.IsLocal(rel) && !strings.HasPrefix(rel, "private/") && sameFileSystem(varLib, dir) {
		return filepath.Join(rel, appsDir)
	}
	return filepath.Join("ganglion-"+tagOf(dir), appsDir)
}

func sameFileSystem(a, b string) bool {
	var sa, sb syscall.Stat_t
	return syscall.Stat(a, &sa) == nil && syscall.Stat(b, &sb) == nil && sa.Dev == sb.Dev
}

// stateName is a copy's directory as PID 1 calls it (StateDirectory=).
func (d dirs) stateName(id workload.CopyID) string {
	return filepath.Join(d.apps, id.App, strconv.Itoa(id.N))
}

// copyDir is a copy's own directory. For private users it is a link to what only
// the copy and root can reach.
func (d dirs) copyDir(id workload.CopyID) string { return filepath.Join(varLib, d.stateName(id)) }

// prepareState makes a copy's directory and STATE_DIR in it, if there are none.
// They are given to the copy's user by PID 1, who alone knows it: it changes
// the owner of everything in a directory whose owner is not the user.
func (d dirs) prepareState(id workload.CopyID) error {
	root, err := os.OpenRoot(varLib)
	if err != nil {
		return err
	}
	defer root.Close()
	app := filepath.Join(d.apps, id.App)
	if err := root.Mkdir(app, 0o711); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := root.Chmod(app, 0o711); err != nil { // the umask may have cut it
		return err
	}
	// What lies here is by name either the copy's own directory or the link that
	// PID 1 has made to it; the link's target is not below the name it goes by.
	own := d.stateName(id)
	private := filepath.Join("private", own)
	if _, err := root.Lstat(private); err == nil {
		own = private
	} else if info, err := root.Lstat(own); err == nil && info.Mode().Type() == fs.ModeSymlink {
		if err := errors.Join(root.Remove(own), root.Mkdir(own, 0o700)); err != nil { // it leads nowhere any more
			return err
		}
	} else if err := root.Mkdir(own, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	dir, err := root.OpenRoot(own)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := dir.Mkdir(stateDir, 0o700); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return nil
		}
		return err
	}
	info, err := dir.Stat(".")
	if err != nil {
		return err
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return dir.Lchown(stateDir, int(st.Uid), int(st.Gid))
	}
	return nil
}

// removeState removes a copy's directory, following no link.
func (d dirs) removeState(id workload.CopyID) error {
	root, err := os.OpenRoot(varLib)
	if err != nil {
		return err
	}
	defer root.Close()
	name := d.stateName(id)
	private := filepath.Join("private", name)
	if err := errors.Join(root.RemoveAll(name), root.RemoveAll(private)); err != nil {
		return err
	}
	// These fail, as they should, while other copies have theirs.
	_ = root.Remove(filepath.Dir(name))
	_ = root.Remove(filepath.Dir(private))
	return nil
}

// record is what is kept of a unit for the next life of the agent. It need not
// survive the host, whose units do not either.
type record struct {
	Spec  workload.Spec `json:"spec"`
	Start int           `json:"start"`
}

func (d dirs) recordFile(unit string) string { return filepath.Join(d.units, unit+".json") }

// envFile is read by PID 1 at each start of the unit, also when no agent runs.
func (d dirs) envFile(unit string) string { return filepath.Join(d.units, unit+".env") }

// ordersFile is the socket of the keeper that is the unit's process.
func (d dirs) ordersFile(unit string) string { return filepath.Join(d.units, unit+".orders") }

func (d dirs) writeRecord(unit string, r record) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return os.WriteFile(d.recordFile(unit), b, 0o600)
}

func (d dirs) readRecord(unit string) (r record, err error) {
	b, err := os.ReadFile(d.recordFile(unit))
	if err != nil {
		return r, err
	}
	return r, json.Unmarshal(b, &r)
}

// writeEnv replaces a unit's environment at once: PID 1 reads the old or the
// new.
func (d dirs) writeEnv(unit string, env []string) error {
	b, err := encodeEnv(env)
	if err != nil {
		return err
	}
	return durable.Swap(d.envFile(unit), b, 0o600)
}

// forget removes what is kept of a unit that is over.
func (d dirs) forget(unit string) {
	for _, path := range []string{d.recordFile(unit), d.envFile(unit), d.envFile(unit) + ".new", d.ordersFile(unit)} {
		_ = os.Remove(path)
	}
	_ = os.RemoveAll(filepath.Join(controlUnits, unit+".d")) // of a throttle
	_ = os.RemoveAll(filepath.Join(runtimeUnits, unit+".d")) // of a hold, or a stop
}

// forgetAllBut removes what is kept of units that are gone.
func (d dirs) forgetAllBut(running map[string]bool) error {
	entries, err := os.ReadDir(d.units)
	if err != nil {
		return fmt.Errorf("clean up records: %w", err)
	}
	for _, e := range entries {
		unit := e.Name()
		for _, suffix := range []string{".new", ".json", ".env", ".orders"} {
			unit = strings.TrimSuffix(unit, suffix)
		}
		if !running[unit] {
			d.forget(unit)
		}
	}
	return nil
}

// AppsDir is the directory of what copies keep, as <app>/<n>.
func (d *Driver) AppsDir() string { return filepath.Join(varLib, d.dirs.apps) }
