package senses

import (
	"slices"
	"sync"

	"github.com/ganglion-mesh/ganglion/reflexes"
)

// Copy is a copy on this host that senses look at.
type Copy struct {
	ID  string // "web/2"
	PID int    // of its first process; 0 while it does not run
	// Memory and CPU are what it was given, in bytes and cores; 0 if nothing was
	// said.
	Memory int64
	CPU    float64
}

// Copies is the list of copies that senses look at. Its methods may be called
// from any goroutine.
type Copies struct {
	mu      sync.Mutex
	list    []Copy
	changed chan struct{}
	kills   map[string]reflexes.Boot // when the kernel last killed a process of it for want of memory
}

// NewCopies returns an empty list.
func NewCopies() *Copies {
	return &Copies{changed: make(chan struct{}), kills: map[string]reflexes.Boot{}}
}

// Set says which copies there are. A copy that is not among them is not looked
// at any more, and nothing is known of it.
func (c *Copies) Set(list []Copy) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if slices.Equal(c.list, list) {
		return
	}
	c.list = slices.Clone(list)
	for id := range c.kills {
		if !slices.ContainsFunc(list, func(k Copy) bool { return k.ID == id }) {
			delete(c.kills, id)
		}
	}
	close(c.changed)
	c.changed = make(chan struct{})
}

// Killed tells when the kernel last killed a process of a copy for want of
// memory, as far as the sense of that knows: whoever sees the copy's process end
// asks whether it was after its start. The sense mostly knows some milliseconds
// before the process is dead, but need not.
func (c *Copies) Killed(id string) (at reflexes.Boot, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at, ok = c.kills[id]
	return at, ok
}

// killed notes a kill.
func (c *Copies) killed(id string, at reflexes.Boot) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if slices.ContainsFunc(c.list, func(k Copy) bool { return k.ID == id }) {
		c.kills[id] = at
	}
}

// get returns the list, which nobody may change, and what is closed when there
// is another one.
func (c *Copies) get() (list []Copy, changed <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.list, c.changed
}
