package senses

import (
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ganglion-mesh/ganglion/reflexes"
	"github.com/ganglion-mesh/ganglion/reflexes/senses/procfs"
)

// oomCounter is the kernel's count of what was killed in one memory group.
type oomCounter struct {
	file  *procfs.File
	group uint64        // its number, which no other group gets
	rang  reflexes.Boot // when the group last said that memory lacks
	began bool          // it was read

	// Since it was opened: kills that were read of it, and that the log told of.
	counted, logged int64

	owner *oomWatch
	watch int32    // of version 2: the number of the inotify watch
	bell  *os.File // of version 1: an eventfd
	wg    sync.WaitGroup
}

// oomWatch waits for memory groups to say that memory lacks, and for the time to look
// at them again.
type oomWatch struct {
	news  *oomNews
	ino   *inotify
	alarm *alarm
	wg    sync.WaitGroup
}

func newOOMWatch(news *oomNews) (*oomWatch, error) {
	ino, err := newInotify()
	if err != nil {
		return nil, err
	}
	alarm, err := newAlarm()
	if err != nil {
		ino.close()
		return nil, err
	}
	w := &oomWatch{news: news, ino: ino, alarm: alarm}
	w.wg.Go(w.read)
	w.wg.Go(func() {
		for w.alarm.wait() == nil {
			w.news.add(func(*oomBatch) {})
		}
	})
	return w, nil
}

func (w *oomWatch) read() {
	for {
		events, err := w.ino.read()
		w.news.add(func(b *oomBatch) {
			for _, e := range events {
				b.watches[e.wd] = true
			}
		})
		if err != nil {
			return // closed; whatever else it were, the counters are read every few seconds
		}
	}
}

func (w *oomWatch) close() {
	w.ino.close()
	w.alarm.close()
	w.wg.Wait()
}

// open watches the memory group of a copy, of version 2 or else 1.
func (w *oomWatch) open(_ Copy, d groupDirs) (*oomCounter, error) {
	c := &oomCounter{owner: w, rang: -lateKill}
	if d.v2 != "" {
		if f, err := procfs.Open(d.v2+"/memory.events", 256); err == nil {
			c.file = f
			c.group, err = f.Inode()
			if err == nil {
				c.watch, err = w.ino.add(f.Path(), unix.IN_MODIFY)
			}
			if err != nil {
				_ = f.Close()
				return nil, err
			}
			return c, nil
		}
	}
	if d.memory == "" {
		return nil, errNoGroup
	}
	if err := c.openV1(d.memory); err != nil {
		return nil, err
	}
	return c, nil
}

// openV1 has the kernel ring an eventfd when the group lacks memory.
func (c *oomCounter) openV1(dir string) (err error) {
	if c.file, err = procfs.Open(dir+"/memory.oom_control", 256); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = c.file.Close()
		}
	}()
	if _, err := c.read(); err != nil {
		return err
	}
	if c.group, err = c.file.Inode(); err != nil {
		return err
	}
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return os.NewSyscallError("eventfd", err)
	}
	c.bell = os.NewFile(uintptr(fd), "eventfd")
	if err := c.register(dir, fd); err != nil {
		c.bell.Close()
		return err
	}
	c.wg.Go(c.listen)
	return nil
}

func (c *oomCounter) register(dir string, bell int) error {
	control, err := os.Open(dir + "/memory.oom_control")
	if err != nil {
		return err
	}
	defer control.Close()
	return os.WriteFile(dir+"/cgroup.event_control", fmt.Appendf(nil, "%d %d", bell, control.Fd()), 0)
}

func (c *oomCounter) listen() {
	var b [8]byte
	for {
		if _, err := c.bell.Read(b[:]); err != nil {
			return // closed
		}
		c.owner.news.add(func(b *oomBatch) { b.rings[c] = true })
	}
}

// read returns how many were killed since the group was made.
func (c *oomCounter) read() (int64, error) {
	text, err := c.file.Read()
	if err != nil {
		return 0, err
	}
	n, ok := procfs.Field(text, "oom_kill")
	if !ok {
		return 0, fmt.Errorf("%s: it counts no kills (Linux does since 4.13)", c.file.Path())
	}
	return int64(n), nil
}

// step is when to look again whether a kill was counted, of which the group said that
// it comes.
func (c *oomCounter) step(now reflexes.Boot) time.Duration {
	if c.bell != nil && now-c.rang < soonKill {
		return soonKillStep
	}
	return lateKillStep
}

func (c *oomCounter) close() {
	if c.bell != nil {
		c.bell.Close()
		c.wg.Wait()
	} else {
		c.owner.ino.remove(c.watch)
	}
	_ = c.file.Close()
}
