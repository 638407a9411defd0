package gossip

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/hashicorp/serf/serf"
)

// Status is what the mesh thinks of a host. Suspicion is not among them: neither
// serf nor memberlist lets out which hosts are suspected, only how it ends.
type Status string

// The states of a member. A failed one is kept, and tried again, for a day.
const (
	StatusAlive  Status = "alive"
	StatusFailed Status = "failed"
	StatusLeft   Status = "left"
)

// Member is one host of the mesh, this one included.
type Member struct {
	Name   string
	Addr   string // IP address
	Port   int
	Tags   map[string]string // shared between callers: not to be changed
	Status Status
	Since  time.Time // when this host, on its own clock, saw the status begin
}

func statusOf(s serf.MemberStatus) Status {
	switch s {
	case serf.StatusAlive:
		return StatusAlive
	case serf.StatusLeaving, serf.StatusLeft:
		return StatusLeft
	}
	return StatusFailed
}

// reconcile turns serf's view into ours, sorted by name. It keeps since when each
// host has had its status, and says whether anything differs from before. It is
// pure, and gives the right answer however many events were missed.
func reconcile(before []Member, now []serf.Member, at time.Time) (after []Member, changed bool) {
	after = make([]Member, 0, len(now))
	for _, m := range now {
		after = append(after, Member{
			Name: m.Name, Addr: addrPort(m.Addr, m.Port).Addr().String(), Port: int(m.Port),
			Tags: ownTags(m.Tags), Status: statusOf(m.Status), Since: at,
		})
	}
	byName := func(a, b Member) int { return cmp.Compare(a.Name, b.Name) }
	slices.SortFunc(after, byName)
	changed = len(before) != len(after)
	for i := range after {
		j, ok := slices.BinarySearchFunc(before, after[i], byName)
		if !ok {
			changed = true
			continue
		}
		old := before[j]
		if old.Status == after[i].Status {
			after[i].Since = old.Since
		}
		if !sameMember(old, after[i]) {
			changed = true
		}
	}
	return after, changed
}

func sameMember(a, b Member) bool {
	return a.Status == b.Status && a.Addr == b.Addr && a.Port == b.Port && maps.Equal(a.Tags, b.Tags)
}

// ownTags is the tags without the one the mesh adds.
func ownTags(tags map[string]string) map[string]string {
	out := maps.Clone(tags)
	delete(out, meshTag)
	return out
}
