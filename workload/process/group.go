//go:build linux

package process

import (
	"context"
	"time"

	"github.com/ganglion-mesh/ganglion/workload/program"
)

// group is all processes of one start. With a cgroup it is exactly what lives in
// it. Without one it is found: the session and process group of the first
// process while that lives, every process that carries the start's mark, the
// descendants of all these, and whoever was once seen to be one of them. A
// process that leaves the session, loses its parents and wipes the mark from
// its environment between two looks escapes: only a cgroup holds that.
type group struct {
	cg      *program.Cgroup
	leader  int
	start   uint64 // of the leader
	mark    string
	tracked map[int]uint64 // pid → start time, of members seen
}

// alive tells whether any process of the group runs.
func (g *group) alive() (bool, error) {
	if g.cg != nil {
		return g.cg.Populated(), nil
	}
	err := g.look()
	return len(g.tracked) > 0, err
}

// kill sends SIGKILL to all of the group. Without a cgroup it has to be repeated
// until alive says no: members may have forked meanwhile.
func (g *group) kill() error {
	if g.cg != nil {
		return g.cg.KillAll()
	}
	err := g.look()
	for pid, start := range g.tracked {
		program.KillExact(pid, start)
	}
	return err
}

// look brings tracked up to date: drops who has ended, adds who has come.
func (g *group) look() error {
	pids, err := program.Pids()
	if err != nil {
		return err
	}
	procs := make(map[int]program.Stat, len(pids))
	for _, pid := range pids {
		if st, err := program.ReadStat(pid); err == nil && st.Running() {
			procs[pid] = st
		}
	}
	for pid, start := range g.tracked {
		if procs[pid].Start != start {
			delete(g.tracked, pid)
		}
	}
	if g.tracked == nil {
		g.tracked = map[int]uint64{}
	}
	if st, ok := procs[g.leader]; ok && st.Start == g.start {
		g.tracked[g.leader] = g.start
		for pid, st := range procs {
			if st.Session == g.leader || st.Group == g.leader {
				g.tracked[pid] = st.Start
			}
		}
	}
	for pid, st := range procs {
		if g.tracked[pid] == 0 && carries(pid, g.mark) {
			g.tracked[pid] = st.Start
		}
	}
	g.addDescendants(procs)
	return nil
}

func carries(pid int, mark string) bool {
	env, err := readEnviron(pid)
	return err == nil && environValue(env, NonceVar) == mark
}

func (g *group) addDescendants(procs map[int]program.Stat) {
	for grown := true; grown; {
		grown = false
		for pid, st := range procs {
			if _, in := g.tracked[st.Parent]; in && g.tracked[pid] == 0 {
				g.tracked[pid], grown = st.Start, true
			}
		}
	}
}

// Pauses between two looks at a group.
const (
	firstPause   = time.Millisecond
	longestPause = 50 * time.Millisecond
)

// end kills the group until nothing of it is left or ctx ends.
func (g *group) end(ctx context.Context) error {
	return poll(ctx, func() (bool, error) {
		if alive, err := g.alive(); err != nil || !alive {
			return err == nil, err
		}
		return false, g.kill()
	})
}

// poll looks with growing pauses until done or ctx ends.
func poll(ctx context.Context, done func() (bool, error)) error {
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		if ok, err := done(); ok || err != nil {
			return err
		}
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		}
	}
}
