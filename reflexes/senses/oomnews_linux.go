package senses

import (
	"errors"
	"sync"

	"github.com/ganglion-mesh/ganglion/reflexes/senses/procfs"
)

// oomVictim is a process that the kernel has chosen or killed.
type oomVictim struct {
	pid  int
	v2   string // directory of its control group; "" if it was too late to ask
	done bool
}

// oomBatch is what has happened since the last look.
type oomBatch struct {
	victims []oomVictim
	missed  bool                 // some messages, or some victims
	rings   map[*oomCounter]bool // whose eventfd was rung
	watches map[int32]bool       // which files inotify named
}

// oomNews is what goroutines that wait have for the one that decides.
type oomNews struct {
	wake  chan struct{}
	where func(pid int) string // set before anyone waits

	mu    sync.Mutex
	batch oomBatch
	err   error
}

func newOOMNews() *oomNews {
	n := &oomNews{wake: make(chan struct{}, 1)}
	n.batch = oomBatch{rings: map[*oomCounter]bool{}, watches: map[int32]bool{}}
	return n
}

func (n *oomNews) add(do func(b *oomBatch)) {
	n.mu.Lock()
	do(&n.batch)
	n.mu.Unlock()
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// maxVictims bounds what waits: of more, the groups and the host still count.
const maxVictims = 1024

// message looks at one message of the kernel's log.
func (n *oomNews) message(text []byte) {
	k, ok := procfs.ParseKill(text)
	if !ok {
		return
	}
	v := oomVictim{pid: k.PID, done: k.Done, v2: n.where(k.PID)} // asked now, while it may still be there
	n.add(func(b *oomBatch) {
		if len(b.victims) >= maxVictims {
			b.missed = true
			return
		}
		b.victims = append(b.victims, v)
	})
}

func (n *oomNews) lost() { n.add(func(b *oomBatch) { b.missed = true }) }

func (n *oomNews) fail(err error) {
	n.add(func(*oomBatch) { n.err = errors.Join(n.err, err) })
}

// take returns what has happened, and an error if the log cannot be read any
// more.
func (n *oomNews) take() (oomBatch, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	batch := n.batch
	n.batch = oomBatch{rings: map[*oomCounter]bool{}, watches: map[int32]bool{}}
	return batch, n.err
}
