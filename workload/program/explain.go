package program

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"github.com/ganglion-mesh/ganglion/workload"
)

// Attempt is a start that failed: of which copy, of what program, where, and as
// whom, in words.
type Attempt struct {
	ID             workload.CopyID
	Path, Dir, Who string
}

// Explain turns the errno of a failed start into what is wrong. Faults that
// will be there again become StartErrors; others, such as too many processes,
// stay what they are.
func (a Attempt) Explain(err error) error {
	var why error
	switch dirErr := StatDir(a.Dir); {
	case dirErr != nil:
		why = dirErr
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ENOTDIR):
		if why = Executable(a.Path); why == nil {
			why = fmt.Errorf("the interpreter or loader that %s asks for does not exist", a.Path)
		}
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		if why = Executable(a.Path); why == nil {
			why = fmt.Errorf("%s may not execute %s or enter %s: %w", a.Who, a.Path, a.Dir, err)
		}
	case errors.Is(err, syscall.ENOEXEC):
		why = fmt.Errorf("%s is no program for this machine, nor a script with #!", a.Path)
	case errors.Is(err, syscall.E2BIG), errors.Is(err, syscall.ELOOP), errors.Is(err, syscall.EINVAL),
		errors.Is(err, syscall.EISDIR), errors.Is(err, syscall.ELIBBAD), errors.Is(err, syscall.ENAMETOOLONG):
		why = fmt.Errorf("execute %s: %w", a.Path, err)
	default:
		return fmt.Errorf("start %s: execute %s: %w", a.ID, a.Path, err)
	}
	return &workload.StartError{ID: a.ID, Err: why}
}

// StatDir finds the plain faults of a working directory.
func StatDir(dir string) error {
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
