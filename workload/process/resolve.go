//go:build linux

package process

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"github.com/ganglion-mesh/ganglion/workload"
	"github.com/ganglion-mesh/ganglion/workload/program"
)

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
		if why = program.Executable(p.path); why == nil {
			why = fmt.Errorf("the interpreter or loader that %s asks for does not exist", p.path)
		}
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		if why = program.Executable(p.path); why == nil {
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
