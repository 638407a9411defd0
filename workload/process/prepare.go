//go:build linux

package process

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/ganglion-mesh/ganglion/workload"
	"github.com/ganglion-mesh/ganglion/workload/program"
)

// prepared is all that a start of one Spec needs and that does not change from
// start to start. Making it is slow; using it is the exec.
type prepared struct {
	spec   workload.Spec
	path   string // of the program
	dir    string
	env    []string // without GANGLION_START and the mark
	user   *account
	out    [2]*os.File
	run    *os.File // the record of the last start
	hash   string   // of the spec file
	next   string   // the mark of the next start, recorded; empty: none is
	fresh  bool     // no start of this spec yet: older spec files are still kept
	cg     *program.Cgroup
	attach []string // v1 groups to put the copy into after its start
}

// close may be called on nil.
func (p *prepared) close() {
	if p == nil {
		return
	}
	for _, f := range []*os.File{p.out[0], p.out[1], p.run} {
		if f != nil {
			f.Close()
		}
	}
	p.cg.Remove() // not while a copy lives in it: the kernel refuses
}

// prepare makes everything a spec needs.
func (d *Driver) prepare(spec workload.Spec) (p *prepared, err error) {
	p = &prepared{spec: cloneSpec(spec), fresh: true}
	defer func() {
		if err != nil {
			p.cg.Close() // it may be the group of a start before
			p.cg = nil
			p.close()
			p = nil
		}
	}()
	if len(spec.Command) == 0 {
		return p, &workload.StartError{ID: spec.ID, Err: errors.New("the command is empty")}
	}
	if p.user, err = d.account(spec); err != nil {
		return p, err
	}
	if err = d.makeCopyDir(spec.ID, p.user); err != nil {
		return p, fmt.Errorf("prepare directory of %s: %w", spec.ID, err)
	}
	p.dir = program.WorkDir(spec, d.copyDir(spec.ID))
	if err = program.StatDir(p.dir); err != nil {
		return p, &workload.StartError{ID: spec.ID, Err: err}
	}
	if p.path, err = program.Resolve(spec, spec.Command[0], d.copyDir(spec.ID)); err != nil {
		return p, &workload.StartError{ID: spec.ID, Err: err}
	}
	p.env = d.environ(spec)
	if p.out[0], p.out[1], err = d.out.Open(spec.ID, p.user.owner()); err != nil {
		return p, err
	}
	d.prepareGroup(p)
	return p, d.prepareRecord(p)
}

// environ is Spec.Environ without what differs from start to start.
func (d *Driver) environ(spec workload.Spec) []string {
	env := spec.Environ(d.cfg.Host, 0, filepath.Join(d.copyDir(spec.ID), stateDir))
	return slices.DeleteFunc(env, func(kv string) bool { return strings.HasPrefix(kv, "GANGLION_START=") })
}

// prepareGroup makes the copy's cgroups and sets its limits. That a host cannot
// is no reason not to run the copy.
func (d *Driver) prepareGroup(p *prepared) {
	name := copyName(p.spec.ID)
	if d.cg.v2 != "" {
		cg, err := program.MakeCgroup(filepath.Join(d.cg.v2, name))
		if err != nil {
			d.log.Warn("copy gets no cgroup", "copy", p.spec.ID.String(), "error", err)
		}
		p.cg = cg
	}
	d.setLimits(p)
}

func (d *Driver) setLimits(p *prepared) {
	var err error
	if p.attach, err = d.cg.limits(copyName(p.spec.ID), p.cg, p.spec.CPU, p.spec.Memory); err != nil {
		d.log.Warn("limits of a copy are not enforced", "copy", p.spec.ID.String(), "error", err)
	}
}

// renewGroup is needed where the rest of the last start had to be killed.
func (d *Driver) renewGroup(p *prepared) error {
	cg, err := p.cg.Renewed()
	if err != nil {
		return err
	}
	p.cg = cg
	d.setLimits(p)
	return nil
}

func (d *Driver) prepareRecord(p *prepared) (err error) {
	dir := d.recordDir(p.spec.ID)
	if err = os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("record %s: %w", p.spec.ID, err)
	}
	s := started{Spec: p.spec}
	if p.cg != nil {
		s.Cgroup = p.cg.Path
	}
	if p.hash, err = writeSpec(dir, s); err != nil {
		return fmt.Errorf("record %s: %w", p.spec.ID, err)
	}
	p.run, err = os.OpenFile(filepath.Join(dir, runFile), os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("record %s: %w", p.spec.ID, err)
	}
	return nil
}

// Start implements workload.Driver.
func (d *Driver) Start(ctx context.Context, spec workload.Spec, n int) (workload.Handle, error) {
	s, err := d.slot(spec.ID)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if s.live != nil && !s.live.gone.Load() {
		return nil, fmt.Errorf("start %s: it runs already as process %d", spec.ID, s.live.inst.Pid)
	}
	if err := d.clearSlot(ctx, s); err != nil {
		return nil, fmt.Errorf("start %s: end what an earlier start left: %w", spec.ID, err)
	}
	if s.prep == nil || !equalSpecs(&s.prep.spec, &spec) {
		if err := d.reprepare(ctx, s, spec); err != nil {
			return nil, err
		}
	}
	if spec.Lease != nil {
		h, err := d.startLeased(ctx, s, spec, n)
		if err != nil {
			return nil, s.unprepare(err)
		}
		return h, nil
	}
	h, err := d.start(s.prep, n)
	if err != nil {
		return nil, s.unprepare(err)
	}
	s.live = h
	s.starts.Store(int64(n))
	return h, nil
}

// unprepare makes the next start look anew, whatever was wrong with this one.
func (s *slot) unprepare(err error) error {
	s.prep.close()
	s.prep = nil
	return err
}

// clearSlot sees to it that nothing earlier of a copy can live on, or be stopped
// by mistake for the next start. On the fast path it does nothing.
func (d *Driver) clearSlot(ctx context.Context, s *slot) error {
	if s.live != nil {
		if err := s.live.retire(ctx); err != nil {
			return err
		}
	}
	if err := endRemnants(ctx, d.tag, s.remnants); err != nil {
		return err
	}
	s.remnants = nil
	return nil
}

// reprepare is the slow path: the first start of a spec, or of this life of the
// agent.
func (d *Driver) reprepare(ctx context.Context, s *slot, spec workload.Spec) error {
	if s.prep == nil && s.live == nil {
		if err := d.refuseUnadopted(spec.ID); err != nil {
			return err
		}
	}
	p, err := d.prepare(spec)
	if err != nil {
		return err
	}
	old := s.prep
	s.prep = p
	if old != nil {
		if p.cg != nil && old.cg != nil {
			old.cg.Close() // the same group, to be kept
			old.cg = nil
		}
		old.close()
	}
	if p.cg == nil {
		return nil
	}
	g := group{cg: p.cg}
	if err := g.end(ctx); err != nil {
		return fmt.Errorf("start %s: end what an earlier start left: %w", spec.ID, err)
	}
	return nil
}

// start is the fast path: the exec, and one plain write of the record after it.
func (d *Driver) start(p *prepared, n int) (*handle, error) {
	if err := d.arm(p, run{Boot: d.boot}); err != nil {
		return nil, fmt.Errorf("record start of %s: %w", p.spec.ID, err)
	}
	if p.cg != nil && p.cg.Spent() {
		if err := d.renewGroup(p); err != nil {
			return nil, fmt.Errorf("start %s: %w", p.spec.ID, err)
		}
	}
	r := run{Boot: d.boot, Spec: p.hash, Start: n, Nonce: p.next, Since: time.Now()}
	l := &launch{path: p.path, argv: p.spec.Command, attr: p.attr(d.null, n, r.Nonce)}
	if err := d.fork(p.user.kind(), l); err != nil {
		return nil, p.explain(err)
	}
	if d.afterFork != nil {
		d.afterFork()
	}
	h, err := d.newHandle(p.spec, n, l.pid, l.pidfd, r)
	if err != nil {
		abandon(l.pid)
		return nil, fmt.Errorf("watch %s: %w", p.spec.ID, err)
	}
	h.begun, h.group.cg = r.Since, p.cg
	p.next = ""
	r.Pid, r.StartTime = l.pid, h.inst.StartTime
	if err := d.arm(p, r); err != nil {
		d.log.Warn("start is not recorded", "copy", p.spec.ID.String(), "error", err)
	}
	d.afterStart(p, l.pid)
	h.watch()
	return h, nil
}

// arm records r and the mark of the start after it, unless that is done.
func (d *Driver) arm(p *prepared, r run) error {
	if p.next != "" {
		return nil
	}
	r.Next = next{Spec: p.hash, Nonce: d.newNonce()}
	if err := writeRun(p.run, r); err != nil {
		return err
	}
	p.next = r.Next.Nonce
	return nil
}

// disarm records that a copy was stopped and none was started after it.
func (d *Driver) disarm(h *handle) {
	s, err := d.slot(h.inst.Spec.ID)
	if err != nil || h.check {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.live != h || s.prep == nil || s.prep.next == "" {
		return
	}
	s.prep.next = ""
	if err := writeRun(s.prep.run, run{Boot: d.boot}); err != nil {
		d.log.Warn("stop is not recorded", "copy", h.inst.Spec.ID.String(), "error", err)
	}
}

// abandon ends a child that cannot be watched. It is not reaped: the number is
// still its.
func abandon(pid int) {
	_ = syscall.Kill(-pid, syscall.SIGKILL)
	_, _ = syscall.Wait4(pid, nil, 0, nil)
}

// afterStart is what can wait until the copy runs.
func (d *Driver) afterStart(p *prepared, pid int) {
	d.resetOOMScore(pid)
	for _, procs := range p.attach {
		if err := os.WriteFile(procs, []byte(strconv.Itoa(pid)), 0); err != nil && !errors.Is(err, syscall.ESRCH) {
			d.log.Warn("limits of a copy are not enforced", "copy", p.spec.ID.String(), "error", err)
		}
	}
	if p.fresh {
		p.fresh = false
		dropSpecs(d.recordDir(p.spec.ID), p.hash)
	}
}

// attr is what fork and exec are told for start n.
func (p *prepared) attr(null *os.File, n int, nonce string) *syscall.ProcAttr {
	env := make([]string, 0, len(p.env)+2)
	env = append(env, NonceVar+"="+nonce) // first, where a search finds it soonest
	env = append(env, p.env...)
	env = append(env, "GANGLION_START="+strconv.Itoa(n))
	sys := &syscall.SysProcAttr{Setsid: true, Credential: p.user.credential()}
	if p.cg != nil {
		sys.UseCgroupFD, sys.CgroupFD = true, int(p.cg.Dir.Fd())
	}
	return &syscall.ProcAttr{
		Dir: p.dir, Env: env, Sys: sys,
		Files: []uintptr{null.Fd(), p.out[0].Fd(), p.out[1].Fd()},
	}
}

// probe tells whether a process can be started in a cgroup, by starting none.
func probe(dir string) error {
	f, err := openDir(nil, dir)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := os.Stat(filepath.Join(dir, "cgroup.kill")); err != nil {
		return err
	}
	sys := &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(f.Fd())}
	_, err = syscall.ForkExec(filepath.Join(dir, "no-such-program"), []string{"probe"}, &syscall.ProcAttr{Sys: sys})
	if errors.Is(err, syscall.ENOENT) {
		return nil
	}
	return err
}

func equalSpecs(a, b *workload.Spec) bool {
	return a.ID == b.ID && a.Version == b.Version && a.Generation == b.Generation &&
		slices.Equal(a.Command, b.Command) && maps.Equal(a.Env, b.Env) &&
		a.User == b.User && a.Package == b.Package && a.Dir == b.Dir &&
		a.CPU == b.CPU && a.Memory == b.Memory && a.SelfHeal == b.SelfHeal && a.Once == b.Once && (a.Lease == nil) == (b.Lease == nil)
}

// cloneSpec makes a spec that the caller cannot change any more.
func cloneSpec(s workload.Spec) workload.Spec {
	s.Command, s.Env = slices.Clone(s.Command), maps.Clone(s.Env)
	return s
}
