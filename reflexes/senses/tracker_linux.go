package senses

import (
	"time"

	"github.com/ganglion-mesh/ganglion/reflexes"
)

// lookAgain is after how long a copy's control groups are found anew: it may
// have been put into one after its start.
const lookAgain = 5 * time.Second

// closer is what a sense keeps open of one copy.
type closer interface {
	comparable
	close()
}

// tracker follows the list of copies for one run of a sense: it opens what the
// sense needs of each, and closes it when the copy has ended or changed.
type tracker[F closer] struct {
	cfg    CopiesConfig
	finder *groupFinder
	open   func(Copy, groupDirs) (F, error)
	vars   []reflexes.VarID
	copies map[string]*trackedCopy[F]
	facts  []reflexes.Fact // scratch of the sense

	changed <-chan struct{}
	looked  reflexes.Boot
}

type trackedCopy[F closer] struct {
	copy  Copy
	dirs  groupDirs
	files F // the zero value if the copy does not run
}

func newTracker[F closer](cfg CopiesConfig, open func(Copy, groupDirs) (F, error), vars []reflexes.VarID) (*tracker[F], error) {
	finder, err := newGroupFinder(cfg.Proc)
	if err != nil {
		return nil, err
	}
	return &tracker[F]{cfg: cfg, finder: finder, open: open, vars: vars, copies: map[string]*trackedCopy[F]{}}, nil
}

// refresh brings the tracker up to date if the list has changed or it is time to
// look at the groups again. What is not known any more it adds to facts.
func (t *tracker[F]) refresh() {
	now := t.cfg.Now()
	select {
	case <-t.changed:
	default:
		if t.changed != nil && now-t.looked < lookAgain {
			return
		}
	}
	var list []Copy
	list, t.changed = t.cfg.Copies.get()
	t.looked = now
	wanted := make(map[string]bool, len(list))
	dirs := make([]groupDirs, len(list))
	all := make([]*groupDirs, len(list))
	for i, c := range list {
		wanted[c.ID] = true
		all[i] = &dirs[i]
		if c.PID > 0 {
			dirs[i], _ = t.finder.find(c.PID) // one that has just ended has none
		}
	}
	unshared(all)
	for id, c := range t.copies {
		if !wanted[id] {
			t.drop(c)
			delete(t.copies, id)
		}
	}
	for i, c := range list {
		t.follow(c, dirs[i])
	}
}

// follow opens what is needed of one copy, unless it is open.
func (t *tracker[F]) follow(c Copy, d groupDirs) {
	k := t.copies[c.ID]
	if k == nil {
		k = &trackedCopy[F]{}
		t.copies[c.ID] = k
	}
	var none F
	old := k.copy
	k.copy = c
	if k.files != none && old.PID == c.PID && k.dirs == d {
		if old != c { // a ratio of nothing is not known
			t.facts = gone(t.facts, reflexes.CopyTarget(c.ID), t.cfg.Now(), t.vars...)
		}
		return
	}
	if k.files != none {
		t.drop(k)
	}
	k.dirs = d
	if c.PID > 0 {
		if f, err := t.open(c, d); err == nil {
			k.files = f
		}
	}
}

// drop closes what is open of a copy that has ended, and says that nothing is
// known of it.
func (t *tracker[F]) drop(k *trackedCopy[F]) {
	var none F
	if k.files == none {
		return
	}
	k.files.close()
	k.files = none
	t.facts = gone(t.facts, reflexes.CopyTarget(k.copy.ID), t.cfg.Now(), t.vars...)
}

func (t *tracker[F]) close() {
	var none F
	for _, k := range t.copies {
		if k.files != none {
			k.files.close()
		}
	}
}
