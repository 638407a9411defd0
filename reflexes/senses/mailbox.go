package senses

import (
	"slices"
	"sync"

	"github.com/ganglion-mesh/ganglion/reflexes"
)

// mailbox is the engine's inbox behind a lock, with what is known beside it: so
// that all that a sense told can be taken back when it fails, and nobody can
// tell of more targets than a limit.
//
// All methods may be called from any goroutine, take by one. In the steady state
// they allocate nothing.
type mailbox struct {
	limit int // known facts of one owner
	ready chan struct{}

	mu     sync.Mutex
	inbox  *reflexes.Inbox
	known  map[factKey]knownFact
	owners []owner
	pass   []reflexes.Fact // scratch of put
}

type factKey struct {
	id     reflexes.VarID
	target reflexes.Target
}

type knownFact struct {
	fact  reflexes.Fact
	owner int
}

// owner is one sense as the mailbox knows it.
type owner struct {
	known   int
	dropped int64 // facts beyond the limit
	last    reflexes.Boot
	told    bool // anything, since it runs
}

func newMailbox(owners, limit int) *mailbox {
	return &mailbox{
		limit: limit, ready: make(chan struct{}, 1),
		inbox: reflexes.NewInbox(), known: map[factKey]knownFact{}, owners: make([]owner, owners),
	}
}

// put takes facts of an owner in and wakes the consumer.
func (m *mailbox) put(by int, facts []reflexes.Fact) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pass = m.pass[:0]
	for i := range facts {
		if m.note(by, &facts[i]) {
			m.pass = append(m.pass, facts[i])
		}
	}
	m.deliver(m.pass)
}

// note keeps a fact as known and tells whether it is to be passed on.
func (m *mailbox) note(by int, f *reflexes.Fact) bool {
	o := &m.owners[by]
	o.last, o.told = f.At, true
	key := factKey{f.Var, f.Target}
	_, was := m.known[key]
	switch {
	case !f.Value.Known():
		if was { // else nobody was ever told otherwise
			delete(m.known, key)
			o.known--
		}
		return was
	case !was && o.known >= m.limit:
		o.dropped++
		return false
	case !was:
		o.known++
	}
	m.known[key] = knownFact{*f, by}
	return true
}

func (m *mailbox) deliver(facts []reflexes.Fact) {
	if len(facts) == 0 {
		return
	}
	m.inbox.Put(facts...)
	select {
	case m.ready <- struct{}{}:
	default:
	}
}

// take appends what is to be fetched, oldest first.
func (m *mailbox) take(to []reflexes.Fact) []reflexes.Fact {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append(to, m.inbox.Take()...)
}

// forget lets the consumer know that nothing is known any more of what an owner
// has told. Counters of edges do not grow old: they stay what they were.
func (m *mailbox) forget(by int, at reflexes.Boot) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pass = m.pass[:0]
	for key, k := range m.known {
		if k.owner != by {
			continue
		}
		delete(m.known, key)
		if !counts(key.id) {
			m.pass = append(m.pass, fact(key.id, key.target, reflexes.Value{}, at))
		}
	}
	slices.SortFunc(m.pass, compareFacts)
	m.owners[by].known, m.owners[by].told = 0, false
	m.deliver(m.pass)
}

// counts tells of counters of edges, and of what tells of the last edge. They stay
// what they were while their sense cannot tell: it goes on from there, and what
// was known before is nothing new then.
func counts(id reflexes.VarID) bool {
	info := id.Info()
	return info.Edge || info.With != 0
}

// all returns what is known now, sorted.
func (m *mailbox) all() []reflexes.Fact {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]reflexes.Fact, 0, len(m.known))
	for _, k := range m.known {
		out = append(out, k.fact)
	}
	slices.SortFunc(out, compareFacts)
	return out
}

// of returns what the mailbox knows about an owner.
func (m *mailbox) of(by int) owner {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.owners[by]
}
