// Package program is what the drivers and the keeper share about a copy's program
// on Linux: how it is found and what is wrong when it cannot be, how a thread
// that starts it is confined, and how what it has started is seen and ended.
package program

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/ganglion-mesh/ganglion/workload"
)

// WorkDir is where a copy runs: spec.Dir, in the package if relative; else the
// package; else own, the copy's own directory.
func WorkDir(spec workload.Spec, own string) string {
	home := spec.Package
	if home == "" {
		home = own
	}
	if filepath.IsAbs(spec.Dir) {
		return filepath.Clean(spec.Dir)
	}
	return filepath.Join(home, spec.Dir)
}

// Resolve finds the program called name of a copy or of one of its checks:
// absolute; else, if it has a slash, inside the package or, without one, where
// the copy runs; else by the plain PATH. Its errors are for users, and will be
// the same next time.
func Resolve(spec workload.Spec, name, own string) (string, error) {
	switch {
	case name == "":
		return "", errors.New("the command is empty")
	case filepath.IsAbs(name):
		return name, Executable(name)
	case !strings.Contains(name, "/"):
		return searchPath(name)
	case !filepath.IsLocal(name):
		return "", fmt.Errorf("%s leads out of the package", name)
	}
	dir := spec.Package
	if dir == "" {
		dir = WorkDir(spec, own)
	}
	path := filepath.Join(dir, name)
	return path, Executable(path)
}

func searchPath(name string) (string, error) {
	for dir := range strings.SplitSeq(workload.PlainPath, ":") {
		if path := filepath.Join(dir, name); Executable(path) == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s is not found in %s; give its path, or ./%s if it is in the package", name, workload.PlainPath, name)
}

// Executable finds the plain faults of a program before they become a number.
func Executable(path string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s does not exist", path)
	case err != nil:
		return err
	case info.IsDir():
		return fmt.Errorf("%s is a directory", path)
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is not a regular file", path)
	case info.Mode()&0o111 == 0:
		return fmt.Errorf("%s is not executable; chmod +x it", path)
	}
	return nil
}
