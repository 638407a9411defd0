//go:build linux

package process

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ganglion-mesh/ganglion/workload"
	"github.com/ganglion-mesh/ganglion/workload/keeper"
	"github.com/ganglion-mesh/ganglion/workload/program"
)

// ordersFile is the socket of a copy's keeper, beside the copy's records.
const ordersFile = "keeper"

// How long a keeper has to start, and one that is found to answer: as long as the
// machine may starve it, since its copy ends with it.
const (
	keeperStart  = 10 * time.Second
	keeperAnswer = 5 * time.Second
)

func (d *Driver) keeperClient(id workload.CopyID) *keeper.Client {
	return keeper.NewClient(filepath.Join(d.recordDir(id), ordersFile))
}

// leased is a copy under a keeper. What the driver holds of it is the keeper's
// process: its record, its mark and its end.
type leased struct {
	*keeper.Handle
	process *handle
}

// Stop implements workload.Handle.
func (l *leased) Stop(ctx context.Context, sig syscall.Signal, grace time.Duration) error {
	err := l.Handle.Stop(ctx, sig, grace)
	if err == nil {
		l.process.driver.disarm(l.process)
	}
	return err
}

// keeperProcess is the handle of a keeper as keeper.Handle asks for it.
type keeperProcess struct{ *handle }

func (p keeperProcess) Ended() <-chan struct{} { return p.ended }

func (p keeperProcess) Released() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.released && !p.dead
}

// End kills the keeper. What that leaves of the copy is killed by whoever waits
// for the keeper's end.
func (p keeperProcess) End(ctx context.Context) error {
	_ = p.control(func(fd int) error { return unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) })
	select {
	case <-p.ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// startLeased starts a keeper, records it and has it start the copy. The caller
// holds the slot's lock.
func (d *Driver) startLeased(ctx context.Context, s *slot, spec workload.Spec, n int) (workload.Handle, error) {
	p := s.prep
	if err := keeper.MayStart(*spec.Lease); err != nil {
		return nil, fmt.Errorf("start %s: %w", spec.ID, err)
	}
	h, err := d.startKeeper(p, n)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", spec.ID, err)
	}
	s.live = h
	ctx, cancel := context.WithTimeout(ctx, keeperStart)
	defer cancel()
	watch, st, err := d.keeperClient(spec.ID).Begin(ctx, d.program(p, spec, h.mark), spec.LeaseNow, n)
	if err == nil {
		s.starts.Store(int64(n))
		return d.follow(s, h, watch, st), nil
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), keeperStart)
	defer cancel()
	if e := (keeperProcess{h}).End(end); e != nil {
		d.log.Warn("end a keeper that could not start its copy", "copy", spec.ID.String(), "error", e)
	}
	var exec *keeper.StartError
	if errors.As(err, &exec) {
		return nil, p.explain(exec.Errno)
	}
	return nil, fmt.Errorf("start %s: %w", spec.ID, err)
}

// startKeeper starts a keeper that has nothing to keep yet, and records it: with
// no order it ends by itself.
func (d *Driver) startKeeper(p *prepared, n int) (*handle, error) {
	if len(d.cfg.Keeper) == 0 {
		return nil, errors.New("it is a singleton, and this driver was given no keeper to run it under")
	}
	if err := d.arm(p, run{Boot: d.boot}); err != nil {
		return nil, fmt.Errorf("record: %w", err)
	}
	if err := d.remakeGroup(p); err != nil {
		return nil, err
	}
	orders, err := keeper.Listen(filepath.Join(d.recordDir(p.spec.ID), ordersFile))
	if err != nil {
		return nil, fmt.Errorf("open its keeper's socket: %w", err)
	}
	defer orders.Close()
	r := run{Boot: d.boot, Spec: p.hash, Start: n, Nonce: p.next, Since: time.Now()}
	l := &launch{path: d.cfg.Keeper[0], argv: d.cfg.Keeper, attr: &syscall.ProcAttr{
		Dir: "/", Env: []string{NonceVar + "=" + r.Nonce},
		Files: []uintptr{orders.Fd(), p.out[0].Fd(), p.out[1].Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	}}
	if err := d.fork(plain, l); err != nil {
		return nil, fmt.Errorf("execute its keeper %s: %w", d.cfg.Keeper[0], err)
	}
	h, err := d.newHandle(p.spec, n, l.pid, l.pidfd, r)
	if err != nil {
		abandon(l.pid)
		return nil, fmt.Errorf("watch its keeper: %w", err)
	}
	h.begun, h.kept, h.cgroup = r.Since, true, p.groupPath()
	p.next = ""
	r.Pid, r.StartTime = l.pid, h.inst.StartTime
	if err := d.arm(p, r); err != nil {
		d.log.Warn("start is not recorded", "copy", p.spec.ID.String(), "error", err)
	}
	if p.fresh {
		p.fresh = false
		dropSpecs(d.recordDir(p.spec.ID), p.hash)
	}
	h.watch()
	return h, nil
}

// remakeGroup makes the copy's group anew: the keeper before may have killed or
// replaced it.
func (d *Driver) remakeGroup(p *prepared) error {
	if p.cg == nil {
		return nil
	}
	cg, err := program.MakeCgroup(p.cg.Path)
	if err != nil {
		return err
	}
	if cg.Populated() {
		cg.Close()
		return fmt.Errorf("its group %s is not empty", p.cg.Path)
	}
	p.cg.Close()
	p.cg = cg
	d.setLimits(p)
	return nil
}

func (p *prepared) groupPath() string {
	if p.cg == nil {
		return ""
	}
	return p.cg.Path
}

// program is what a keeper is told to run. The environment has the token of this
// start's lease.
func (d *Driver) program(p *prepared, spec workload.Spec, mark string) keeper.Program {
	order := keeper.Program{
		Path: p.path, Argv: p.spec.Command, Dir: p.dir,
		Env:   append([]string{NonceVar + "=" + mark}, d.environ(spec)...),
		Plain: p.user.kind() == plain, Cgroup: p.groupPath(), Attach: p.attach,
	}
	if p.user != nil {
		order.User = &keeper.Account{UID: p.user.uid, GID: p.user.gid, Groups: p.user.groups}
	}
	return order
}

// follow makes the handle of a copy whose keeper is h.
func (d *Driver) follow(s *slot, h *handle, watch *keeper.Watch, st keeper.Status) workload.Handle {
	l := &leased{process: h}
	l.Handle = keeper.NewHandle(keeper.HandleConfig{
		Spec: h.inst.Spec, Client: d.keeperClient(h.inst.Spec.ID), Watch: watch, Process: keeperProcess{h},
		Began: func(i workload.Instance) { s.starts.Store(int64(i.Start)) },
	}, st)
	if !d.spawn(l.Run) {
		l.Run() // the driver is closed, and so is what it would follow
	}
	return l
}

// clearKept kills what a keeper's end has left of its copy, however long that
// takes. With a cgroup that is all in it; without one it is who bears the mark.
func (h *handle) clearKept() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan struct{})
	defer close(done)
	if !h.driver.spawn(func() {
		select {
		case <-h.driver.closing:
			cancel()
		case <-done:
		}
	}) {
		return // the next life's Adopt does it
	}
	if err := h.driver.endKept(ctx, h.cgroup, h.mark); err != nil {
		h.driver.log.Warn("end what a keeper left", "copy", h.inst.Spec.ID.String(), "error", err)
	}
}

func (d *Driver) endKept(ctx context.Context, path, mark string) error {
	if path == "" {
		return endRemnants(ctx, d.tag, []string{mark})
	}
	cg, err := program.OpenCgroup(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer cg.Close()
	return (&group{cg: cg}).end(ctx)
}

// endKeptAlone ends what a recorded keeper has left that is there no more.
func (a *adoption) endKeptAlone(ctx context.Context, id workload.CopyID, r run) error {
	s, err := readSpec(a.d.recordDir(id), r.Spec)
	if err != nil || s.Spec.Lease == nil || r.Nonce == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, keeperStart)
	defer cancel()
	return a.d.endKept(ctx, s.Cgroup, r.Nonce)
}

// takeKeeper adopts a keeper that runs. One that has nothing to keep, or does not
// answer, is ended with all that it may have started: its copy has no lease that
// anybody could extend.
func (a *adoption) takeKeeper(id workload.CopyID, h *handle, s started, r run) bool {
	h.kept, h.cgroup = true, s.Cgroup
	ctx, cancel := context.WithTimeout(context.Background(), keeperAnswer)
	defer cancel()
	watch, err := a.d.keeperClient(id).Watch(ctx)
	if err == nil && watch.First().Keeps() {
		a.keepers[id], a.byID[id], a.runs[id] = watch, h, r
		return true
	}
	if err == nil {
		watch.Close()
	}
	a.d.log.Warn("a keeper has nothing to keep or does not answer; it is ended", "copy", id.String(), "error", err)
	_ = h.control(func(fd int) error { return unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) })
	h.pidfd.Close()
	end, cancel := context.WithTimeout(context.Background(), keeperStart)
	defer cancel()
	if err := a.d.endKept(end, s.Cgroup, h.mark); err != nil {
		a.d.log.Warn("end what a keeper left", "copy", id.String(), "error", err)
	}
	return false
}
