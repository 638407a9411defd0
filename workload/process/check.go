//go:build linux

package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/ganglion-mesh/ganglion/workload"
	"github.com/ganglion-mesh/ganglion/workload/program"
)

// Limits of a check.
const (
	outputBytes = 4 << 10
	drainFor    = 100 * time.Millisecond // for output that is in the pipe when the command has ended
	endFor      = 5 * time.Second        // for the kill of a command that is over its time
)

// Exec implements workload.Driver. The command has a session, a mark and, where
// there are cgroups, a group of its own, so that it can be killed apart from the
// copy. The copy's limits do not hold for it.
func (d *Driver) Exec(ctx context.Context, spec workload.Spec, argv []string) ([]byte, error) {
	s, err := d.slot(spec.ID)
	if err != nil {
		return nil, err
	}
	p, err := d.prepareCheck(spec, argv)
	if err != nil {
		return nil, err
	}
	defer p.cg.Remove()
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("check %s: %w", spec.ID, err)
	}
	defer r.Close()
	p.out = [2]*os.File{w, w}
	h, err := d.startCheck(ctx, p, int(s.starts.Load()))
	w.Close()
	if err != nil {
		return nil, err
	}
	out := make(chan []byte, 1)
	if !d.spawn(func() { out <- readCapped(r) }) {
		r.Close()
		out <- nil
	}
	err = h.outcome(ctx)
	_ = r.SetReadDeadline(time.Now().Add(drainFor))
	return <-out, err
}

func (d *Driver) prepareCheck(spec workload.Spec, argv []string) (*prepared, error) {
	p := &prepared{spec: spec, dir: program.WorkDir(spec, d.copyDir(spec.ID)), env: d.environ(spec)}
	p.spec.Command = argv
	if len(argv) == 0 {
		return nil, &workload.StartError{ID: spec.ID, Err: errors.New("the check's command is empty")}
	}
	var err error
	if p.user, err = d.account(spec); err != nil {
		return nil, err
	}
	if p.path, err = program.Resolve(spec, argv[0], d.copyDir(spec.ID)); err != nil {
		return nil, &workload.StartError{ID: spec.ID, Err: err}
	}
	if d.cg.v2 == "" {
		return p, nil
	}
	d.mu.Lock()
	d.checks++
	name := copyName(spec.ID) + checkInfix + strconv.FormatUint(d.checks, 10)
	d.mu.Unlock()
	if p.cg, err = program.MakeCgroup(filepath.Join(d.cg.v2, name)); err != nil {
		return nil, fmt.Errorf("check %s: %w", spec.ID, err)
	}
	return p, nil
}

func (d *Driver) startCheck(ctx context.Context, p *prepared, n int) (*handle, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	r := run{Nonce: d.newNonce()}
	l := &launch{path: p.path, argv: p.spec.Command, attr: p.attr(d.null, n, r.Nonce)}
	if err := d.fork(p.user.kind(), l); err != nil {
		return nil, p.explain(err)
	}
	h, err := d.newHandle(p.spec, n, l.pid, l.pidfd, r)
	if err != nil {
		abandon(l.pid)
		return nil, fmt.Errorf("check %s: %w", p.spec.ID, err)
	}
	h.begun, h.check = time.Now(), true
	h.group.cg = p.cg
	d.resetOOMScore(l.pid)
	h.watch()
	return h, nil
}

// outcome waits for a check to end and ends it when ctx does.
func (h *handle) outcome(ctx context.Context) error {
	select {
	case e, ok := <-h.exited:
		switch {
		case !ok:
			return ErrClosed
		case !e.Known:
			return errors.New("the check's exit status is unknown")
		case e.Signal != 0:
			return fmt.Errorf("the check was ended by %s", e.Signal)
		case e.Code != 0:
			return fmt.Errorf("the check exited with status %d", e.Code)
		}
		return nil
	case <-ctx.Done():
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), endFor)
		defer cancel()
		return errors.Join(fmt.Errorf("the check was ended: %w", context.Cause(ctx)), h.Stop(end, syscall.SIGKILL, 0))
	}
}

// readCapped reads to the end and keeps the first bytes, so that a command that
// prints much is cut and not blocked.
func readCapped(r io.Reader) []byte {
	b, _ := io.ReadAll(io.LimitReader(r, outputBytes))
	_, _ = io.Copy(io.Discard, r)
	return b
}

// checkInfix in its name tells the group of a check from that of a copy.
const checkInfix = ".check"

// endChecks ends checks that an earlier life of the agent was running.
func (c *cgroups) endChecks() {
	if c.v2 == "" {
		return
	}
	dirs, _ := filepath.Glob(filepath.Join(c.v2, "*"+checkInfix+"*"))
	for _, dir := range dirs {
		if g, err := program.OpenCgroup(dir); err == nil {
			_ = g.KillAll()
			g.Remove() // refused while they die; the empty directory is used again or goes another time
		}
	}
}
