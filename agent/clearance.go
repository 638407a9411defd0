package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/ganglion-mesh/ganglion/workload"
)

// clearRetry is how often a host tries again to remove what it could not.
const clearRetry = 5 * time.Second

// clearance is the end of this host's time in the mesh, as the mesh decided it
// (ganglion remove): when its copies have gone it removes all that it keeps of
// them, and says so, and when it is off the roster it forgets the mesh. It acts
// on the accepted slice alone, so it goes on where it was after a restart, and a
// host that was away hears of it when it is back.
type clearance struct {
	*member
	kick chan struct{} // cap 1: the slice may ask for something
	last atomic.Pointer[cleared]
}

// cleared is how far clearing out has come.
type cleared struct {
	index uint64 // of the slice that asked for it
	left  string // what could not be removed, and why; empty: nothing is left
}

func newClearance(m *member) *clearance {
	return &clearance{member: m, kick: make(chan struct{}, 1)}
}

// look makes run look at the slice again. It never blocks.
func (c *clearance) look() {
	ring(c.kick)
}

// state tells whether this host has cleared out for the slice of that index, and
// what is left.
func (c *clearance) state(index uint64) (done bool, left string) {
	l := c.last.Load()
	if l == nil || l.index != index {
		return false, ""
	}
	return l.left == "", l.left
}

// run clears out whenever the slice asks for it, until ctx ends.
func (c *clearance) run(ctx context.Context) error {
	for {
		moved := c.copies.Changed()
		pending := c.step(ctx)
		var again <-chan time.Time
		if pending {
			again = time.After(clearRetry)
		} else {
			moved = nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-c.kick:
		case <-moved:
		case <-again:
		}
	}
}

// step does what can be done now, and reports whether something is left to do.
func (c *clearance) step(ctx context.Context) (pending bool) {
	sl := c.slices.slice()
	if !sl.Removing && sl.Gone == nil {
		return false
	}
	if len(sl.Assignments) > 0 || len(c.copies.Reports()) > 0 {
		return true
	}
	if sl.Gone != nil && sl.Gone.Left {
		c.forgetMesh(ctx)
		return false
	}
	if done, _ := c.state(sl.Index); !done {
		now := &cleared{index: sl.Index}
		if err := c.clearOut(ctx); err != nil {
			now.left = err.Error()
			c.log.Warn("this host is being removed, but cannot clear out", "error", err)
		}
		c.last.Store(now)
		if now.left != "" {
			return true
		}
	}
	if sl.Gone != nil {
		c.forgetMesh(ctx)
	}
	return false
}

// clearOut removes all that copies have left on this host, and looks whether it
// is gone.
func (c *clearance) clearOut(ctx context.Context) error {
	var errs []error
	for _, dir := range c.keeps {
		ids, err := copiesIn(dir)
		errs = append(errs, err)
		for _, id := range ids {
			errs = append(errs, c.copies.Purge(ctx, id))
		}
	}
	for _, dir := range c.keeps {
		errs = append(errs, empty(dir))
	}
	return errors.Join(errs...)
}

// copiesIn lists the copies that have a directory below dir, as dir/<app>/<n>.
func copiesIn(dir string) ([]workload.CopyID, error) {
	apps, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var ids []workload.CopyID
	for _, app := range apps {
		copies, err := os.ReadDir(filepath.Join(dir, app.Name()))
		if err != nil {
			return ids, err
		}
		for _, n := range copies {
			if id, err := workload.ParseCopyID(app.Name() + "/" + n.Name()); err == nil {
				ids = append(ids, id)
			}
		}
	}
	return ids, err
}

// empty removes whatever is still in dir, following no link, and fails if
// something stays.
func empty(dir string) error {
	root, err := os.OpenRoot(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer root.Close()
	list, err := fs.ReadDir(root.FS(), ".")
	errs := []error{err}
	for _, e := range list {
		errs = append(errs, root.RemoveAll(e.Name()))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("clear %s: %w", dir, err)
	}
	if list, err = fs.ReadDir(root.FS(), "."); err != nil {
		return fmt.Errorf("clear %s: see what stays: %w", dir, err)
	}
	if len(list) > 0 {
		return fmt.Errorf("clear %s: %d entries stay", dir, len(list))
	}
	return nil
}

// forgetMesh ends this host's membership: the agent removes identity, keys and
// log when all has ended.
func (c *clearance) forgetMesh(ctx context.Context) {
	c.log.Warn("this host is not in the mesh any more: it forgets it", "why", goneWhy(c.slices.slice().Gone.Left))
	if err := c.pool.Leave(ctx); err != nil {
		c.log.Warn("leave gossip", "error", err)
	}
	c.left.Do(func() { close(c.leaving) })
}

func goneWhy(left bool) string {
	if left {
		return "it asked to leave"
	}
	return "it was removed (ganglion remove); its copies are stopped, and what they kept here is gone"
}

// keptDirs are where this host keeps what belongs to copies, each as
// <app>/<n>.
func keptDirs(st *store, host hostDriver) []string {
	dirs := []string{st.path("apps"), st.path("output")}
	if host.apps != "" && !slices.Contains(dirs, host.apps) {
		dirs = append(dirs, host.apps)
	}
	return dirs
}
