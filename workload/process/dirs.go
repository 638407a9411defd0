//go:build linux

package process

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/ganglion-mesh/ganglion/workload"
)

const (
	appsDir  = "apps"
	stateDir = "state" // STATE_DIR, in the copy's own directory
)

// makeDirs makes the directories that belong to the agent. Copies may pass
// through data_dir and apps to their own and list neither.
func makeDirs(dir string) error {
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return err
	}
	for _, sub := range []struct {
		path string
		mode fs.FileMode
	}{{"", 0o711}, {appsDir, 0o711}, {privateDir, 0o700}, {filepath.Join(privateDir, copiesDir), 0o700}} {
		path := filepath.Join(dir, sub.path)
		if err := os.Mkdir(path, sub.mode); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if err := os.Chmod(path, sub.mode); err != nil {
			return err
		}
	}
	return nil
}

func (d *Driver) copyDir(id workload.CopyID) string {
	return filepath.Join(d.cfg.Dir, appsDir, id.App, strconv.Itoa(id.N))
}

// makeCopyDir makes apps/<app>/<n> and the state directory in it, owned by the
// copy's user. apps/<app> is the agent's, so what is called <n> is what the
// agent put there; below it the copy may have put anything anywhere.
func (d *Driver) makeCopyDir(id workload.CopyID, a *account) error {
	root, err := os.OpenRoot(filepath.Join(d.cfg.Dir, appsDir))
	if err != nil {
		return err
	}
	defer root.Close()
	if err := root.Mkdir(id.App, 0o711); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	app, err := openDir(nil, filepath.Join(root.Name(), id.App))
	if err != nil {
		return err
	}
	defer app.Close()
	if err := app.Chmod(0o711); err != nil { // the umask may have cut it
		return err
	}
	dir, err := ownedDir(app, strconv.Itoa(id.N), a)
	if err != nil {
		return err
	}
	defer dir.Close()
	state, err := ownedDir(dir, stateDir, a)
	if err != nil {
		return err
	}
	return state.Close()
}

// ownedDir makes a directory in parent, if there is none, and gives it to a. It
// follows no link; by its descriptor it changes the directory it has made or
// found, whatever the name means by then. A directory cannot have been put there
// by a hard link.
func ownedDir(parent *os.File, name string, a *account) (*os.File, error) {
	err := ignoreEINTR(func() error { return unix.Mkdirat(int(parent.Fd()), name, 0o700) })
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, &fs.PathError{Op: "mkdir", Path: filepath.Join(parent.Name(), name), Err: err}
	}
	dir, err := openDir(parent, name)
	if err != nil {
		return nil, err
	}
	if a == nil {
		return dir, nil
	}
	if err := dir.Chown(int(a.uid), int(a.gid)); err != nil {
		dir.Close()
		return nil, err
	}
	return dir, nil
}

// openDir opens a directory and nothing else, without following a link in the
// last element of its name.
func openDir(parent *os.File, name string) (*os.File, error) {
	at, path := unix.AT_FDCWD, name
	if parent != nil {
		at, path = int(parent.Fd()), filepath.Join(parent.Name(), name)
	}
	var fd int
	err := ignoreEINTR(func() (err error) {
		fd, err = unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return nil, &fs.PathError{Op: "open directory", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// Purge implements workload.Driver.
func (d *Driver) Purge(ctx context.Context, id workload.CopyID) error {
	s, err := d.slot(id)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.live != nil && !s.live.gone.Load() {
		return fmt.Errorf("purge %s: it runs; stop it first", id)
	}
	if s.live == nil && s.prep == nil {
		if err := d.refuseUnadopted(id); err != nil {
			return err
		}
	}
	if err := d.clearSlot(ctx, s); err != nil {
		return fmt.Errorf("purge %s: end what it left: %w", id, err)
	}
	s.prep.close()
	s.prep, s.live = nil, nil
	if d.cg.v2 != "" {
		_ = unix.Rmdir(filepath.Join(d.cg.v2, copyName(id)))
	}
	d.cg.removeV1(copyName(id))
	if err := errors.Join(d.removeCopyDir(id), d.out.Purge(id), os.RemoveAll(d.recordDir(id))); err != nil {
		return fmt.Errorf("purge %s: %w", id, err)
	}
	return nil
}

// removeCopyDir removes the copy's directory and all in it, following no link.
func (d *Driver) removeCopyDir(id workload.CopyID) error {
	root, err := os.OpenRoot(filepath.Join(d.cfg.Dir, appsDir))
	if err != nil {
		return err
	}
	defer root.Close()
	rel := filepath.Join(id.App, strconv.Itoa(id.N))
	err = root.RemoveAll(rel)
	if errors.Is(err, fs.ErrPermission) {
		unlock(root, rel) // an unprivileged agent, and a copy that closed its own directories
		err = root.RemoveAll(rel)
	}
	if err != nil {
		return fmt.Errorf("remove directory: %w", err)
	}
	_ = root.Remove(id.App) // fails, as it should, while other copies have theirs
	return nil
}

func unlock(root *os.Root, rel string) {
	_ = fs.WalkDir(root.FS(), filepath.ToSlash(rel), func(path string, e fs.DirEntry, err error) error {
		if e != nil && e.IsDir() {
			_ = root.Chmod(path, 0o700)
		}
		return nil // what cannot be opened, RemoveAll will report
	})
}

// AppsDir is the directory of what copies keep, as <app>/<n>.
func (d *Driver) AppsDir() string { return filepath.Join(d.cfg.Dir, appsDir) }
