package consensus

import (
	"errors"
	"fmt"
	"sync"
	"time"
)

// edge is a level-triggered "look again": whoever took the channel before a
// change finds it closed after.
type edge struct {
	mu sync.Mutex
	ch chan struct{}
}

func newEdge() *edge { return &edge{ch: make(chan struct{})} }

func (s *edge) raise() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.ch)
	s.ch = make(chan struct{})
}

func (s *edge) wait() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ch
}

// failure holds the first reason not to go on.
type failure struct {
	mu   sync.Mutex
	err  error
	done chan struct{}
}

func newFailure() *failure { return &failure{done: make(chan struct{})} }

func (f *failure) set(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		if !errors.Is(err, ErrFatal) {
			err = fmt.Errorf("%w: %w", ErrFatal, err)
		}
		f.err = err
		close(f.done)
	}
}

func (f *failure) get() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// calls counts the calls into raft, so that Run can let them end before it
// takes raft away: raft forgets to answer those that it had accepted but not
// applied.
type calls struct {
	mu    sync.Mutex
	phase int // calls are admitted only when open
	n     int
	idle  chan struct{} // closed when n is zero
}

const (
	callsFresh = iota
	callsOpen
	callsClosed
)

func newCalls() *calls {
	c := &calls{idle: make(chan struct{})}
	close(c.idle)
	return c
}

// open admits calls; it says false the second time.
func (c *calls) open() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.phase != callsFresh {
		return false
	}
	c.phase = callsOpen
	return true
}

// close admits no more; it says whether they were never admitted.
func (c *calls) close() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	fresh := c.phase == callsFresh
	c.phase = callsClosed
	return fresh
}

func (c *calls) enter() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.phase != callsOpen {
		return false
	}
	if c.n == 0 {
		c.idle = make(chan struct{})
	}
	c.n++
	return true
}

func (c *calls) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n--; c.n == 0 {
		close(c.idle)
	}
}

func (c *calls) wait(limit time.Duration) {
	c.mu.Lock()
	idle := c.idle
	c.mu.Unlock()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-idle:
	case <-timer.C:
	}
}
