package agent

import (
	"fmt"
	"strconv"
	"time"

	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/events"
	"github.com/ganglion-mesh/ganglion/gossip"
	"github.com/ganglion-mesh/ganglion/intent"
)

// teller tells, as events, what the leader decides and sees of the mesh as a
// whole, so that each such thing is told once and not by every host. It belongs
// to the leader's loop, but for emit and intent, which any goroutine may call.
type teller struct {
	emit  func(events.Draft) string
	host  string
	seen  map[string]gossip.Member
	begun map[string]time.Time        // when a rollout or a drain began, by what it is of
	why   map[topology.CopyKey]string // reasons told for copies without a place
	doubt map[string]time.Time        // since when each host that gossip calls alive has not reported
	// skipped holds, by app, the run for which it was told that others are
	// skipped.
	skipped map[string]uint64
	toldTo  uint64                // index up to which this leader has told facts
	obs     topology.Observations // what the present decision is made on
}

func newTeller(host string, emit func(events.Draft) string) *teller {
	return &teller{emit: emit, host: host, begun: map[string]time.Time{}, doubt: map[string]time.Time{}, why: map[topology.CopyKey]string{}, skipped: map[string]uint64{}}
}

func (t *teller) elected(term, revision uint64) {
	t.seen = nil // what this host saw before it led was the last leader's to tell
	t.doubt, t.toldTo = map[string]time.Time{}, 0
	t.emit(events.New(events.LeaderSubject(t.host), events.LeaderElected{Term: term}).With("", revision))
}

func (t *teller) lost(term uint64) {
	t.emit(events.New(events.LeaderSubject(t.host), events.LeaderLost{Term: term}))
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
		t.emit(events.New(events.HostSubject(m.Name), data).With("", state.Revision()))
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
			t.emit(events.New(events.HostSubject(host), events.HostSuspect{
				Reason: "gossip reaches it, but it has not reported to the leader for " + o.ReportAge.Round(100*time.Millisecond).String(),
			}).With("", revision))
		case !doubtful(o) && doubted:
			delete(t.doubt, host)
			t.emit(events.New(events.HostSubject(host), events.HostRecovered{AfterMS: time.Since(since).Milliseconds()}).With("", revision))
		}
	}
}

// doubtful tells whether a host is suspect: gossip says that it is alive, the
// leader's own evidence does not. memberlist's suspicions are not let out.
func doubtful(o topology.HostObs) bool { return o.Alive && !o.Left && o.ReportAge >= missedReport }

// intent tells a committed change of an intent, and the rollout it begins.
func (t *teller) intent(c intent.Change, revision uint64) {
	subject := events.IntentSubject(c.Name)
	if c.Op == intent.OpRemove {
		t.emit(events.New(subject, events.IntentRemoved{Kind: c.Kind}).With("", revision))
		return
	}
	fields := make([]string, 0, len(c.Fields))
	for _, f := range c.Fields {
		fields = append(fields, f.Path)
	}
	t.emit(events.New(subject, events.IntentApplied{Kind: c.Kind, Op: c.Op, Fields: fields}).With("", revision))
}

// command tells what a committed command of the leader did. before is the state
// it was decided on.
func (t *teller) command(cmd topology.Command, before *topology.State, d topology.Decision, revision uint64) {
	switch {
	case cmd.Place != nil:
		t.place(cmd.Place, before, d, revision)
	case cmd.SetRollout != nil:
		t.rollout(*cmd.SetRollout, before, revision)
	case cmd.RecordRuns != nil:
		t.runs(*cmd.RecordRuns, revision)
	case cmd.SetDrain != nil && cmd.SetDrain.Drain == topology.DrainDrained:
		t.emit(events.New(events.HostSubject(cmd.SetDrain.Host), events.HostDrained{TookMS: t.since("drain/" + cmd.SetDrain.Host)}).With("", revision))
	}
}

func (t *teller) place(p *topology.Place, before *topology.State, d topology.Decision, revision uint64) {
	moves, put := map[topology.CopyKey]topology.Move{}, map[topology.CopyKey]bool{}
	for _, m := range d.Moves {
		if moves[m.Copy] = m; m.As != nil {
			delete(moves, m.Copy)
			moves[*m.As] = m
			put[m.Copy] = true // that it moved says all about it
		}
	}
	rolled := map[string]bool{}
	for _, pl := range p.Put {
		key := pl.Key()
		put[key] = true
		old, had := before.Placement(key)
		had = had && !before.Spent(old)
		move, moved := moves[key]
		switch {
		case moved && move.To == pl.Host:
			t.moved(move, revision)
		case had && old.Host != pl.Host:
			t.copy(key, events.AppMoved{From: old.Host, To: pl.Host, Reason: old.Leaving}, revision)
		case !had:
			t.copy(key, events.AppPlaced{Host: pl.Host, Version: pl.Version, Ports: pl.Ports, Reason: placedFor(before, pl)}, revision)
		}
		delete(t.why, key)
		if a, ok := before.App(key.App); ok && a.Stable != "" && pl.Version == a.Version && (!had || old.Version != pl.Version) {
			rolled[key.App] = true
		}
	}
	for _, key := range p.Remove {
		if old, had := before.Placement(key); had && !put[key] {
			reason := old.Leaving
			switch {
			case reason != "":
			case old.Relief != nil:
				reason = fmt.Sprintf("it did not take over from %s/%d", old.App, old.Relief.N)
			case old.Surge:
				reason = "the rollout needs it no more"
			default:
				reason = "it is not wanted any more"
			}
			t.copy(key, events.AppUnplaced{Host: old.Host, Reason: reason}, revision)
		}
	}
	for _, app := range sortedKeys(rolled) {
		t.progress(app, p, before, revision)
	}
}

func (t *teller) moved(m topology.Move, revision uint64) {
	told := events.AppMoved{From: m.From, To: m.To, Reason: m.Reason}
	if m.As != nil {
		told.As = m.As.String()
	}
	t.copy(m.Copy, told, revision)
}

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
	t.emit(events.New(events.AppSubject(key.App, strconv.Itoa(key.N)), data).With("", revision))
}

// since returns the milliseconds since what began, 0 if that was not seen.
func (t *teller) since(what string) int64 {
	at, ok := t.begun[what]
	delete(t.begun, what)
	if !ok {
		return 0
	}
	return time.Since(at).Milliseconds()
}
