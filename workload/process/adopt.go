//go:build linux

package process

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ganglion-mesh/ganglion/workload"
	"github.com/ganglion-mesh/ganglion/workload/keeper"
	"github.com/ganglion-mesh/ganglion/workload/program"
)

// Adopt implements workload.Driver. A recorded process counts if it is the very
// one: same boot, pid and start time. A record without its process (the agent
// was killed between the two writes) leads to the mark; so does a process with a
// mark whose record is lost, if it runs as the user its app has. What else
// carries marks is left of copies that have ended: it is killed before the copy
// is started next, not here.
func (d *Driver) Adopt(ctx context.Context) ([]workload.Handle, error) {
	d.cg.endChecks()
	a := &adoption{d: d, keepers: map[workload.CopyID]*keeper.Watch{}, byID: map[workload.CopyID]*handle{}, runs: map[workload.CopyID]run{}, patience: time.Now().Add(markWait)}
	defer a.close()
	var err error
	if a.found, err = findMarked(d.tag + "-"); err != nil {
		return nil, fmt.Errorf("adopt copies: %w", err)
	}
	entries, err := os.ReadDir(filepath.Join(d.cfg.Dir, privateDir, copiesDir))
	if err != nil {
		return nil, fmt.Errorf("adopt copies: %w", err)
	}
	for _, e := range entries {
		if id, ok := parseCopyName(e.Name()); ok {
			if err := a.recorded(ctx, id); err != nil {
				return nil, fmt.Errorf("adopt %s: %w", id, err)
			}
		}
	}
	for _, m := range a.found {
		a.unrecorded(m)
	}
	return a.install()
}

type adoption struct {
	d        *Driver
	keepers  map[workload.CopyID]*keeper.Watch // of the adopted copies that have one
	found    []marked
	byID     map[workload.CopyID]*handle
	runs     map[workload.CopyID]run
	remnants map[workload.CopyID][]string
	patience time.Time // when no process can be between its fork and its exec any more
}

// close ends the watches that no handle has taken over, where adopting failed.
func (a *adoption) close() {
	for _, watch := range a.keepers {
		watch.Close()
	}
}

// recorded adopts the copy a record names, if it runs.
func (a *adoption) recorded(ctx context.Context, id workload.CopyID) error {
	dir := a.d.recordDir(id)
	r, err := readRun(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		a.d.log.Warn("record of a copy is unreadable, its mark is looked for", "copy", id.String(), "error", err)
		return nil
	}
	if r.Boot != a.d.boot || a.take(id, r) {
		return nil
	}
	if err := a.endKeptAlone(ctx, id, r); err != nil {
		return err
	}
	if r.Next.Nonce == "" {
		return nil
	}
	return a.restarted(ctx, id, r.Next)
}

// restarted adopts the start that came after the recorded one, if it came.
func (a *adoption) restarted(ctx context.Context, id workload.CopyID, n next) error {
	s, _ := readSpec(a.d.recordDir(id), n.Spec)
	m, err := a.awaitMark(ctx, n.Nonce, s.Cgroup)
	if err != nil || m.pid == 0 {
		return err
	}
	st, err := program.ReadStat(m.pid)
	if err != nil {
		return nil // it has just ended
	}
	r := run{Boot: a.d.boot, Spec: n.Spec, Nonce: n.Nonce, Pid: m.pid, StartTime: st.Start, Since: sinceOf(st.Start)}
	r.Start, _ = strconv.Atoi(m.get("GANGLION_START"))
	if a.take(id, r) {
		a.complete(id, r)
	}
	return nil
}

func sinceOf(start uint64) time.Time { return time.Now().Add(-sinceStart(start)) }

// complete writes the process into its record.
func (a *adoption) complete(id workload.CopyID, r run) {
	f, err := os.OpenFile(filepath.Join(a.d.recordDir(id), runFile), os.O_WRONLY|os.O_CREATE, 0o600)
	if err == nil {
		err = errors.Join(writeRun(f, r), f.Close())
	}
	if err != nil {
		a.d.log.Warn("adopted copy is not recorded", "copy", id.String(), "error", err)
	}
}

// take makes a handle of a process if it is the one and runs.
func (a *adoption) take(id workload.CopyID, r run) bool {
	if r.Pid <= 0 {
		return false
	}
	fd, err := unix.PidfdOpen(r.Pid, 0)
	if err != nil {
		return false
	}
	st, err := program.ReadStat(r.Pid) // after the open, so that fd and stat are of one process
	if err != nil || st.Start != r.StartTime || !st.Running() {
		unix.Close(fd)
		return false
	}
	s, err := readSpec(a.d.recordDir(id), r.Spec)
	if err != nil {
		unix.Close(fd)
		a.d.log.Warn("spec of a copy is unreadable, its mark is looked for", "copy", id.String(), "error", err)
		return false
	}
	h, err := a.d.newHandle(s.Spec, r.Start, r.Pid, fd, r)
	if err != nil {
		a.d.log.Warn("adopt copy", "copy", id.String(), "error", err)
		return false
	}
	if s.Spec.Lease != nil {
		return a.takeKeeper(id, h, s, r)
	}
	if s.Cgroup != "" {
		if cg, err := program.OpenCgroup(s.Cgroup); err == nil && cg.Holds(r.Pid) {
			h.group.cg = cg
		} else if err == nil {
			cg.Close()
		}
	}
	a.byID[id] = h
	a.runs[id] = r
	return true
}

// markWait is how long Adopt looks for a process that a record says may have
// been started: between its fork and its exec it does not carry its mark yet.
// With a cgroup there is nothing to wait for if that is empty.
const markWait = 500 * time.Millisecond

func (a *adoption) awaitMark(ctx context.Context, nonce, cgroup string) (m marked, err error) {
	ctx, cancel := context.WithDeadline(ctx, a.patience)
	defer cancel()
	cg, cgErr := program.OpenCgroup(cgroup)
	if cgErr == nil {
		defer cg.Close()
	}
	err = poll(ctx, func() (bool, error) {
		found, err := findMarked(nonce)
		if err != nil {
			return false, err
		}
		m, _ = leaderOf(found)
		return m.pid != 0 || (cgErr == nil && !cg.Populated()), nil
	})
	if errors.Is(err, context.DeadlineExceeded) {
		err = nil
	}
	return m, err
}

// leaderOf returns the first process of a start, the oldest that leads a session,
// and its start time.
func leaderOf(found []marked) (leader marked, start uint64) {
	for _, m := range found {
		st, err := program.ReadStat(m.pid)
		if err == nil && st.Running() && st.Session == m.pid && (leader.pid == 0 || st.Start < start) {
			leader, start = m, st.Start
		}
	}
	return leader, start
}

// unrecorded adopts what a mark names and no record does, else notes it as a
// remnant.
func (a *adoption) unrecorded(m marked) {
	n, err := strconv.Atoi(m.get("GANGLION_COPY"))
	id := workload.CopyID{App: m.get("GANGLION_APP"), N: n}
	if err != nil || !validID(id) || a.knows(m.nonce) {
		return
	}
	var same []marked
	for _, o := range a.found {
		if o.nonce == m.nonce {
			same = append(same, o)
		}
	}
	if l, start := leaderOf(same); a.byID[id] == nil && l.pid == m.pid && a.d.recordLost(id) {
		if s := a.d.specOf(id, m); a.d.runsAs(s.Spec, m.pid) {
			r := run{Boot: a.d.boot, Nonce: m.nonce, Pid: m.pid, StartTime: start, Since: sinceOf(start)}
			r.Start, _ = strconv.Atoi(m.get("GANGLION_START"))
			if r.Spec, err = a.d.keepSpec(id, s); err == nil && a.take(id, r) {
				a.complete(id, r)
				return
			}
		}
	}
	if a.remnants == nil {
		a.remnants = map[workload.CopyID][]string{}
	}
	if !slices.Contains(a.remnants[id], m.nonce) {
		a.remnants[id] = append(a.remnants[id], m.nonce)
	}
}

// knows tells whether a mark is that of an adopted copy.
func (a *adoption) knows(nonce string) bool {
	for _, h := range a.byID {
		if h.mark == nonce {
			return true
		}
	}
	return false
}

// recordLost tells that the records do not say what runs of a copy. If they do
// say it, and it is over, whoever carries a mark was left behind.
func (d *Driver) recordLost(id workload.CopyID) bool {
	r, err := readRun(d.recordDir(id))
	if err != nil || r.Spec == "" {
		return err != nil
	}
	_, err = readSpec(d.recordDir(id), r.Spec)
	return err != nil
}

// specOf finds or rebuilds what a marked process was started with.
func (d *Driver) specOf(id workload.CopyID, m marked) started {
	version := m.get("GANGLION_VERSION")
	if s, err := findSpec(d.recordDir(id), version); err == nil && s.Spec.ID == id {
		return s
	}
	spec := workload.Spec{ID: id, Version: version, Env: map[string]string{}}
	for kv := range strings.SplitSeq(string(m.env), "\x00") {
		k, v, ok := strings.Cut(kv, "=")
		if ok && k != "STATE_DIR" && k != "PATH" && !strings.HasPrefix(k, "GANGLION_") {
			spec.Env[k] = v
		}
	}
	if b, err := os.ReadFile("/proc/" + strconv.Itoa(m.pid) + "/cmdline"); err == nil {
		spec.Command = strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00")
	}
	return started{Spec: spec}
}

func (d *Driver) keepSpec(id workload.CopyID, s started) (string, error) {
	if err := os.MkdirAll(d.recordDir(id), 0o700); err != nil {
		return "", err
	}
	return writeSpec(d.recordDir(id), s)
}

// runsAs tells whether a process runs as the user of its app, so that no app can
// pass a process of its own for a copy of another.
func (d *Driver) runsAs(spec workload.Spec, pid int) bool {
	uid, err := ownerOf(pid)
	if err != nil {
		return false
	}
	if !d.root {
		return int(uid) == os.Geteuid()
	}
	if spec.User == "" {
		return d.users.has(spec.ID.App, uid)
	}
	a, err := lookup(spec.User)
	return err == nil && a.uid == uid
}

// install hands the adopted to the driver and prepares their next start, so that
// it will be as fast as any.
func (a *adoption) install() ([]workload.Handle, error) {
	for id, marks := range a.remnants {
		s, err := a.d.slot(id)
		if err != nil {
			return nil, err
		}
		s.mu.Lock()
		s.remnants = append(s.remnants, marks...)
		s.mu.Unlock()
	}
	var hs []workload.Handle
	for _, id := range slices.SortedFunc(maps.Keys(a.byID), compareIDs) {
		h := a.byID[id]
		s, err := a.d.slot(id)
		if err != nil {
			return nil, err
		}
		s.mu.Lock()
		s.live = h
		s.starts.Store(int64(h.inst.Start))
		if p, err := a.d.prepare(h.inst.Spec); err == nil {
			s.prep = p
			if h.group.cg != nil && p.cg != nil && h.group.cg.Path == p.cg.Path {
				h.group.cg.Close()
				h.group.cg = p.cg // one object, so that a kill of it is known
			}
			if err := a.d.arm(p, a.runs[id]); err != nil {
				a.d.log.Warn("adopted copy is not recorded", "copy", id.String(), "error", err)
			}
		}
		s.mu.Unlock()
		a.d.out.Track(id)
		h.watch()
		if watch, ok := a.keepers[id]; ok {
			delete(a.keepers, id) // it is the handle's now
			st := watch.First()
			s.starts.Store(int64(st.Start))
			hs = append(hs, a.d.follow(s, h, watch, st))
			continue
		}
		hs = append(hs, h)
	}
	return hs, nil
}

func compareIDs(a, b workload.CopyID) int {
	if a.App != b.App {
		return strings.Compare(a.App, b.App)
	}
	return a.N - b.N
}

// refuseUnadopted keeps Start from doubling a copy of an earlier life that Adopt
// has not been asked about.
func (d *Driver) refuseUnadopted(id workload.CopyID) error {
	r, err := readRun(d.recordDir(id))
	if err != nil || r.Boot != d.boot {
		return nil
	}
	pid := r.Pid
	if st, err := program.ReadStat(pid); err != nil || st.Start != r.StartTime || !st.Running() {
		pid = 0
	}
	if pid == 0 && r.Next.Nonce != "" {
		found, err := findMarked(r.Next.Nonce)
		if err != nil {
			return err
		}
		l, _ := leaderOf(found)
		pid = l.pid
	}
	if pid != 0 {
		return fmt.Errorf("copy %s: process %d of an earlier life of the agent runs; adopt it first", id, pid)
	}
	return nil
}
