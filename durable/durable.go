// Package durable changes files such that a crash, of the process or of the host,
// leaves them whole: as they were, or as they were to be.
package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// Replace makes data the content of the file at path, of that mode. When it
// returns nil that outlives a loss of power; else the file is most likely as it
// was. It writes beside it first, to path.new, so there may be no two at once for
// one path.
func Replace(path string, data []byte, mode fs.FileMode) error {
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	return SyncDir(filepath.Dir(path))
}

// Swap makes data the content of the file at path, as Replace does, but leaves it to
// the system when it reaches the disk: it outlives this process, whole or not at
// all, and after a loss of power it may be anything.
func Swap(path string, data []byte, mode fs.FileMode) error {
	tmp := path + ".new"
	if err := os.WriteFile(tmp, data, mode); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

// SyncDir makes what was made, renamed or removed in a directory outlive a loss of
// power.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
