package agent

import (
	"strconv"
	"time"

	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/events"
	"github.com/ganglion-mesh/ganglion/gossip"
)

// teller tells, as events, what the leader decides and sees of the mesh as a
// whole, so that each such thing is told once and not by every host. It belongs
// to the leader's loop. What was decided it learns from the state alone (facts),
// whoever decided it.
type teller struct {
	emit  func(events.Draft) error
	host  string
	seen  map[string]gossip.Member
	begun map[string]int64            // when a rollout or a drain began, by what it is of, as Fact.At
	why   map[topology.CopyKey]string // reasons told for copies without a place
	doubt map[string]time.Time        // since when each host that gossip calls alive has not reported
	// skipped holds, by app, the run for which it was told that others are
	// skipped.
	skipped map[string]uint64
	last    topology.Fact         // that this leader has told
	toldTo  uint64                // index up to which it has told all
	acked   uint64                // index up to which it is recorded that all is told
	since   time.Time             // when the first was told of what is not recorded as told
	obs     topology.Observations // what the last decision was made on
}

func newTeller(host string, emit func(events.Draft) error) *teller {
	return &teller{emit: emit, host: host, begun: map[string]int64{}, doubt: map[string]time.Time{}, why: map[topology.CopyKey]string{}, skipped: map[string]uint64{}}
}

func (t *teller) elected(term, revision uint64) {
	t.seen = nil // what this host saw before it led was the last leader's to tell
	t.doubt = map[string]time.Time{}
	t.last, t.toldTo, t.acked, t.since = topology.Fact{}, 0, 0, time.Time{}
	_ = t.emit(events.New(events.LeaderSubject(t.host), events.LeaderElected{Term: term}).With("", revision))
}

func (t *teller) lost(term uint64) {
	_ = t.emit(events.New(events.LeaderSubject(t.host), events.LeaderLost{Term: term}))
}

// members tells what has become of hosts since the last call.
func (t *teller) members(now []gossip.Member, state *topology.State) {
	next := byName(now)
	for _, m := range now {
		before, known := t.seen[m.Name]
		if _, enrolled := state.Host(m.Name); !enrolled || t.seen == nil || known && before.Status == m.Status {
			continue
		}
		var data events.Payload
		switch {
		case m.Status == gossip.StatusFailed:
			data = events.HostFailed{Reason: "gossip gets no answer from it, nor does any other host that was asked"}
		case m.Status == gossip.StatusAlive && known:
			data = events.HostRecovered{AfterMS: m.Since.Sub(before.Since).Milliseconds()}
		default:
			continue // joined and left are told where they are decided
		}
		_ = t.emit(events.New(events.HostSubject(m.Name), data).With("", state.Revision()))
	}
	t.seen = next
}

// doubts tells of hosts that gossip still calls alive and that the leader itself
// does not hear from, and when it hears from them again. What gossip calls dead
// is told by members.
func (t *teller) doubts(obs topology.Observations, revision uint64) {
	for _, host := range sortedKeys(obs.Hosts) {
		o := obs.Hosts[host]
		since, doubted := t.doubt[host]
		switch {
		case !o.Alive:
			delete(t.doubt, host)
		case doubtful(o) && !doubted:
			t.doubt[host] = time.Now().Add(-o.ReportAge)
			_ = t.emit(events.New(events.HostSubject(host), events.HostSuspect{
				Reason: "gossip reaches it, but it has not reported to the leader for " + o.ReportAge.Round(100*time.Millisecond).String(),
			}).With("", revision))
		case !doubtful(o) && doubted:
			delete(t.doubt, host)
			_ = t.emit(events.New(events.HostSubject(host), events.HostRecovered{AfterMS: time.Since(since).Milliseconds()}).With("", revision))
		}
	}
}

// doubtful tells whether a host is suspect: gossip says that it is alive, the
// leader's own evidence does not. memberlist's suspicions are not let out.
func doubtful(o topology.HostObs) bool { return o.Alive && !o.Left && o.ReportAge >= missedReport }

// decision tells what could not be done: copies with no place, each reason once.
func (t *teller) decision(d topology.Decision, revision uint64) {
	for _, u := range d.Unplaced {
		if t.why[u.Copy] != u.Reason {
			t.why[u.Copy] = u.Reason
			t.copy(u.Copy, events.AppUnplaced{Reason: u.Reason}, revision)
		}
	}
}

func (t *teller) copy(key topology.CopyKey, data events.Payload, revision uint64) {
	_ = t.emit(events.New(copySubject(key), data).With("", revision))
}

func copySubject(key topology.CopyKey) string {
	return events.AppSubject(key.App, strconv.Itoa(key.N))
}
