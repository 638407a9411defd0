package gossip

import (
	"sync"
	"time"
)

// trips are the round trips of this host's probes, the last of each other host.
// memberlist chooses whom to probe: each in turn, one in each ProbeInterval. It
// is safe for concurrent use; its lock is a leaf.
type trips struct {
	mu   sync.Mutex
	last map[string]trip // by host
}

type trip struct {
	took time.Duration
	at   time.Time
}

func (t *trips) note(host string, took time.Duration, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.last == nil {
		t.last = map[string]trip{}
	}
	t.last[host] = trip{took, now}
}

func (t *trips) get(host string, now time.Time) (took, age time.Duration, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	one, ok := t.last[host]
	return one.took, max(now.Sub(one.at), 0), ok
}

// forget drops those of hosts that have not answered for long.
func (t *trips) forget(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for host, one := range t.last {
		if now.Sub(one.at) >= forgetAfter {
			delete(t.last, host)
		}
	}
}
