//go:build linux

package process

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/ganglion-mesh/ganglion/workload/program"
)

// sweepAfter keeps the search out of the way of restarts.
const sweepAfter = 250 * time.Millisecond

// sweepLater has whoever carries the mark of a start that is over killed, in a
// moment, together with others: one search serves all, however fast copies crash.
// If the driver is closed before, the next life's Adopt finds them.
func (d *Driver) sweepLater(mark string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return
	}
	d.over = append(d.over, mark)
	if len(d.over) == 1 {
		d.wg.Go(d.sweep)
	}
}

func (d *Driver) sweep() {
	t := time.NewTimer(sweepAfter)
	defer t.Stop()
	select {
	case <-t.C:
	case <-d.closing:
		return
	}
	d.mu.Lock()
	marks := d.over
	d.over = nil
	d.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), clearFor)
	defer cancel()
	if err := endRemnants(ctx, d.tag, marks); err != nil {
		d.log.Warn("end what copies left", "marks", marks, "error", err)
	}
}

// endRemnants kills whoever carries one of the marks until there is nobody, and
// nobody is left in the middle of its end. It is for the case that there is no
// cgroup.
func endRemnants(ctx context.Context, tag string, marks []string) error {
	if len(marks) == 0 {
		return nil
	}
	r := remnants{tag: tag, marks: marks, begun: time.Now(), spread: true, killed: map[int]uint64{}, silent: map[int]uint64{}}
	return poll(ctx, r.kill)
}

// silentTime bounds how long a search waits for processes that cannot be asked
// for their marks. Most are not the copy's, and the disk may hold one up for ever.
const silentTime = 5 * time.Second

// remnants is a search for what is left of copies. A process in its end shows no
// mark any more, and still holds files, locks and ports: so whoever was killed is
// waited for, and so is whoever could not be asked when there was somebody to
// kill, or nobody had looked yet.
type remnants struct {
	tag    string
	marks  []string
	begun  time.Time
	spread bool           // there may be some that no look has seen
	killed map[int]uint64 // pid → start time
	silent map[int]uint64 // could not be asked
}

// kill kills all that it sees, and tells whether nothing is left.
func (r *remnants) kill() (done bool, err error) {
	found, silent, err := search(r.tag + "-")
	if err != nil {
		return false, err
	}
	for pid, start := range r.silent {
		if silent[pid] != start {
			delete(r.silent, pid) // it is over, or was asked
		}
	}
	if r.spread {
		maps.Copy(r.silent, silent)
	}
	r.spread = false
	for _, m := range found {
		st, err := program.ReadStat(m.pid)
		if err != nil || !st.Running() || !slices.Contains(r.marks, m.nonce) {
			continue
		}
		r.spread = true // it may have forked since
		r.killed[m.pid] = st.Start
		program.KillExact(m.pid, st.Start)
	}
	for pid, start := range r.killed {
		if st, err := program.ReadStat(pid); err != nil || st.Start != start || !st.Running() {
			delete(r.killed, pid)
		}
	}
	return !r.spread && len(r.killed) == 0 && (len(r.silent) == 0 || time.Since(r.begun) > silentTime), nil
}
