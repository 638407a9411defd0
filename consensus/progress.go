package consensus

import (
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// progress is what a leader learns of its followers from their answers. Raft
// keeps the same inside and shows it to nobody.
type progress struct {
	mu    sync.Mutex
	term  uint64
	began time.Time // when the first answer of this term was awaited
	peers map[raft.ServerID]*follower
}

type follower struct {
	match  uint64    // last entry known to be in its log
	last   time.Time // when it last answered
	steady time.Time // since when it has answered without a gap
}

func newProgress() *progress {
	return &progress{peers: map[raft.ServerID]*follower{}}
}

// lead forgets what earlier terms knew: what a follower held for another
// leader it may have had to drop.
func (p *progress) lead(term uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.enter(term)
}

func (p *progress) enter(term uint64) {
	if term > p.term {
		p.term, p.began = term, time.Now()
		clear(p.peers)
	}
}

func (p *progress) follower(id raft.ServerID, term uint64) *follower {
	p.enter(term)
	if term < p.term {
		return &follower{} // a straggler of an earlier term
	}
	f := p.peers[id]
	if f == nil {
		f = &follower{}
		p.peers[id] = f
	}
	return f
}

// heard notes the answer to an append or a heartbeat.
func (p *progress) heard(id raft.ServerID, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f := p.follower(id, req.Term)
	f.touch()
	if !resp.Success {
		return
	}
	match := req.PrevLogEntry // zero in heartbeats, which prove nothing of the log
	if n := len(req.Entries); n > 0 {
		match = req.Entries[n-1].Index
	}
	f.match = max(f.match, match)
}

// matched notes that a snapshot up to index arrived.
func (p *progress) matched(id raft.ServerID, term, index uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f := p.follower(id, term)
	f.touch()
	f.match = max(f.match, index)
}

func (f *follower) touch() {
	now := time.Now()
	if f.steady.IsZero() || now.Sub(f.last) > freshContact {
		f.steady = now
	}
	f.last = now
}

// contact sums up one server. last is the leader's last entry, conf the entry
// of the present configuration.
func (p *progress) contact(id string, last, conf uint64) contact {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	f := p.peers[raft.ServerID(id)]
	if f == nil || f.last.IsZero() {
		return contact{silence: now.Sub(p.began), lag: last}
	}
	c := contact{silence: now.Sub(f.last), synced: f.match >= conf}
	if last > f.match {
		c.lag = last - f.match
	}
	if c.silence <= freshContact {
		c.steady = now.Sub(f.steady)
	}
	return c
}

// silence is how long ago a follower last answered this leader.
func (p *progress) silence(id raft.ServerID) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if f := p.peers[id]; f != nil {
		return time.Since(f.last)
	}
	return time.Since(p.began)
}

// keep forgets the servers that are not in the configuration any more.
func (p *progress) keep(ids map[string]bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id := range p.peers {
		if !ids[string(id)] {
			delete(p.peers, id)
		}
	}
}
