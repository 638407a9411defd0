//go:build linux

package process

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/ganglion-mesh/ganglion/workload"
)

// workDir is where a copy runs: spec.Dir, in the package if relative; else the
// package; else the copy's own directory.
func workDir(spec workload.Spec, own string) string {
	home := spec.Package
	if home == "" {
		home = own
	}
	if filepath.IsAbs(spec.Dir) {
		return filepath.Clean(spec.Dir)
	}
	return filepath.Join(home, spec.Dir)
}

// resolve finds the program of a command: absolute, inside the package if it has
// a slash, else by the plain PATH.
func resolve(spec workload.Spec, name, dir string) (string, error) {
	switch {
	case name == "":
		return "", errors.New("the command is empty")
	case filepath.IsAbs(name):
		return name, executable(name)
	case !strings.Contains(name, "/"):
		return searchPath(name)
	case !filepath.IsLocal(name):
		return "", fmt.Errorf("%s leads out of the package", name)
	case spec.Package != "":
		dir = spec.Package
	}
	path := filepath.Join(dir, name)
	return path, executable(path)
}

func searchPath(name string) (string, error) {
	for dir := range strings.SplitSeq(workload.PlainPath, ":") {
		path := filepath.Join(dir, name)
		if executable(path) == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s is not found in %s; give its path, or ./%s if it is in the package", name, workload.PlainPath, name)
}

// executable finds the plain faults before they become an errno.
func executable(path string) error {
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

// explain turns the errno of a failed start into what is wrong. Faults that
// will be there again become StartErrors; others, such as too many processes,
// stay what they are.
func explain(p *prepared, err error) error {
	id := p.spec.ID
	var why error
	switch dirErr := statDir(p.dir); {
	case dirErr != nil:
		why = dirErr
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ENOTDIR):
		if why = executable(p.path); why == nil {
			why = fmt.Errorf("the interpreter or loader that %s asks for does not exist", p.path)
		}
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		if why = executable(p.path); why == nil {
			why = fmt.Errorf("%s may not execute %s or enter %s: %w", p.who(), p.path, p.dir, err)
		}
	case errors.Is(err, syscall.ENOEXEC):
		why = fmt.Errorf("%s is no program for this machine, nor a script with #!", p.path)
	case errors.Is(err, syscall.E2BIG), errors.Is(err, syscall.ELOOP), errors.Is(err, syscall.EINVAL),
		errors.Is(err, syscall.EISDIR), errors.Is(err, syscall.ELIBBAD), errors.Is(err, syscall.ENAMETOOLONG):
		why = fmt.Errorf("execute %s: %w", p.path, err)
	default:
		return fmt.Errorf("start %s: execute %s: %w", id, p.path, err)
	}
	return &workload.StartError{ID: id, Err: why}
}

func statDir(dir string) error {
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("the working directory %s does not exist", dir)
	case err != nil:
		return err
	case !info.IsDir():
		return fmt.Errorf("the working directory %s is not a directory", dir)
	}
	return nil
}

func (p *prepared) who() string {
	if p.user == nil {
		return "the agent's user"
	}
	return fmt.Sprintf("user %d", p.user.uid)
}
