package consensus

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	diskTick      = 2 * time.Second
	transferAgain = 10 * time.Second // between attempts to give leadership away
)

// diskGuard watches the space left for the log. Below the mark this server
// gives leadership away; when a write fails for want of space it gives up the
// reserve, so that the next start can open and extend the log, and service
// resumes by itself once there is room.
type diskGuard struct {
	dir     string
	mark    int64
	reserve int64
	free    func(dir string) (int64, error) // statfs, but for tests
	low     atomic.Bool
}

func newDiskGuard(dir string, mark, reserve int64) *diskGuard {
	return &diskGuard{dir: dir, mark: mark, reserve: reserve, free: freeSpace}
}

func freeSpace(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("look at free space of %s: %w", dir, err)
	}
	if st.Bavail > math.MaxInt64/uint64(st.Bsize) {
		return math.MaxInt64, nil
	}
	return int64(st.Bavail) * st.Bsize, nil
}

// check looks at the space left, and lays the reserve back in when there is
// ample. It says low again only above 1.25 marks, not to flap.
func (g *diskGuard) check() error {
	free, err := g.free(g.dir)
	if err != nil {
		return err
	}
	switch {
	case free < g.mark:
		g.low.Store(true)
	case free >= g.mark+g.mark/4:
		g.low.Store(false)
	}
	if g.reserve > 0 && free >= g.mark+2*g.reserve {
		return g.fill()
	}
	return nil
}

// fill makes the reserve: blocks, not a hole.
func (g *diskGuard) fill() error {
	path := filepath.Join(g.dir, reserveName)
	if st, err := os.Stat(path); err == nil && st.Size() >= g.reserve {
		return nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, fileMode)
	if err != nil {
		return fmt.Errorf("make reserve: %w", err)
	}
	err = unix.Fallocate(int(f.Fd()), 0, 0, g.reserve)
	if errors.Is(err, unix.EOPNOTSUPP) {
		_, err = f.Write(make([]byte, g.reserve))
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(fmt.Errorf("make reserve: %w", err), os.Remove(path))
	}
	return nil
}

// release gives the reserve up.
func (g *diskGuard) release() {
	// A failure leaves things as they are, and the next failed write comes here again.
	_ = os.Remove(filepath.Join(g.dir, reserveName))
}

// watchDisk gives leadership away when space is short, and marks this host as
// one that was part of a mesh.
func (n *Node) watchDisk(ctx context.Context) {
	ticker := time.NewTicker(diskTick)
	defer ticker.Stop()
	var tried time.Time
	marked := false
	for {
		if err := n.disk.check(); err != nil && !errors.Is(err, unix.ENOSPC) {
			n.log.Warn("consensus: the disk cannot be watched", "error", err)
		}
		st := n.Status()
		marked = marked || n.mark(st)
		if n.disk.low.Load() && st.Leader && st.otherVoters() && time.Since(tried) >= transferAgain {
			tried = time.Now()
			n.log.Warn("consensus: the disk is nearly full; giving leadership away", "dir", n.cfg.Dir)
			if err := n.Transfer(ctx); err != nil {
				n.log.Warn("consensus: leadership was not given away", "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// mark notes, once, that this host is part of a mesh: it must never found
// another with an empty log.
func (n *Node) mark(st Status) bool {
	if len(st.Peers) == 0 {
		return false
	}
	path := filepath.Join(n.cfg.Dir, markerName)
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return err == nil
	}
	if err := writeMarker(n.cfg.Dir, n.id); err != nil {
		n.log.Warn("consensus: this host could not be marked as part of a mesh", "error", err)
		return false
	}
	return true
}
