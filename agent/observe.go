package agent

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/gossip"
	"github.com/ganglion-mesh/ganglion/workload"
)

const (
	// missedReport is when a host that reports every reportEvery counts as
	// silent.
	missedReport = 5 * time.Second
	// settleTime bounds how long a new leader waits for every alive host's
	// report before it decides.
	settleTime = 5 * time.Second
	// arriveTime is how long a host that was enrolled may take until gossip
	// knows it.
	arriveTime = 10 * time.Second
)

// observatory holds what a leader knows besides the log: the last report of
// each host and since when gossip has called it down. It is kept on every
// voter, so that a new leader knows since when a host is gone; reports reach
// only the leader. It is safe for concurrent use.
type observatory struct {
	mu      sync.Mutex
	reports map[string]received
	down    map[string]time.Time
	takes   map[string]bool      // of hosts that look dead: whether the kernel takes connections, as far as it was asked
	met     map[string]time.Time // when each host was first seen in the roster, by host id
	since   time.Time            // when this host took office, or stood still last
	ran     time.Time            // when this agent was last seen to run, while it leads
	seen    uint64               // counts reports
	fresh   chan struct{}        // closed at the next report
}

type received struct {
	api.Report
	at      time.Time
	unready map[string]unready // copies that are not ready, by id
}

// unready is since when a generation of a copy has not been ready.
type unready struct {
	generation uint64
	since      time.Time
}

// unreadySince goes on counting for copies that were not ready before.
func unreadySince(last map[string]unready, r api.Report, now time.Time) map[string]unready {
	out := map[string]unready{}
	for _, c := range r.Copies {
		if c.Ready {
			continue
		}
		u, ok := last[c.ID]
		if !ok || u.generation != c.Generation {
			u = unready{c.Generation, now}
		}
		out[c.ID] = u
	}
	return out
}

func newObservatory() *observatory {
	return &observatory{
		reports: map[string]received{},
		down:    map[string]time.Time{},
		takes:   map[string]bool{},
		met:     map[string]time.Time{},
		fresh:   make(chan struct{}),
	}
}

// takeOffice forgets reports made to earlier leaders and starts the time that
// hosts have to report.
func (o *observatory) takeOffice(now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.begin(now)
}

// begin forgets reports and starts the time that hosts have to make new ones. It is
// called with mu held.
func (o *observatory) begin(now time.Time) {
	clear(o.reports)
	clear(o.takes)
	o.since, o.ran = now, now
}

// stoodStill is for how long an agent that leads is not seen to run when a host that
// reports in time may look silent, because this one did not listen.
const stoodStill = missedReport - reportEvery

// runs is called every reportEvery at least by an agent that leads. One that stood
// still accuses nobody of having been silent meanwhile, but hears all hosts anew: the
// population gate would else stay shut for minutes (S9), here and in a later office.
func (o *observatory) runs(now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if now.Sub(o.ran) >= stoodStill {
		o.begin(now)
	}
	o.ran = now
}

// report stores r. A report older than the one held, of the same agent life, is
// dropped.
func (o *observatory) report(r api.Report, now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	last, ok := o.reports[r.Host]
	if ok && last.Boot == r.Boot && last.Seq >= r.Seq {
		return
	}
	o.reports[r.Host] = received{Report: r, at: now, unready: unreadySince(last.unready, r, now)}
	if !ok || !sameReport(last.Report, r) {
		o.seen++
		close(o.fresh)
		o.fresh = make(chan struct{})
	}
}

// sameReport tells whether b says nothing that a did not, ages aside.
func sameReport(a, b api.Report) bool {
	return a.Boot == b.Boot && a.SliceIndex == b.SliceIndex && maps.Equal(a.Labels, b.Labels) && slices.Equal(a.PortsTaken, b.PortsTaken) &&
		a.Kernel == b.Kernel && slices.Equal(a.Ended, b.Ended) && slices.Equal(a.Stages, b.Stages) && slices.Equal(a.Wants, b.Wants) &&
		slices.EqualFunc(a.Copies, b.Copies, func(x, y api.CopyReport) bool {
			x.ReadyMS, x.AgeMS, x.UnreadyMS, x.BestMS = 0, 0, 0, 0
			y.ReadyMS, y.AgeMS, y.UnreadyMS, y.BestMS = 0, 0, 0, 0
			x.Since, y.Since = nil, nil
			return x == y
		})
}

// forget drops what is known of a host that left the roster.
func (o *observatory) forget(host string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.reports, host)
	delete(o.down, host)
	delete(o.takes, host)
}

// probed notes whether the kernel of a host that looks dead takes connections.
func (o *observatory) probed(host string, takes bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if before, ok := o.takes[host]; !ok || before != takes {
		o.takes[host] = takes
		close(o.fresh)
		o.fresh = make(chan struct{})
	}
}

// news returns a channel that is closed at the next report that says something
// new.
func (o *observatory) news() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.fresh
}

// version counts the reports that said something new.
func (o *observatory) version() uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.seen
}

// last returns the last report of host, and its age.
func (o *observatory) last(host string, now time.Time) (api.Report, time.Duration, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	r, ok := o.reports[host]
	return r.Report, now.Sub(r.at), ok
}

// members notes since when gossip has called each host down.
func (o *observatory) members(members []gossip.Member, now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, m := range members {
		if m.Status == gossip.StatusAlive {
			delete(o.down, m.Name)
			delete(o.takes, m.Name)
		} else if _, ok := o.down[m.Name]; !ok {
			o.down[m.Name] = now
		}
	}
}

// watch notes what gossip says of the roster while another host leads, and
// returns it: of each host whether it is alive, and whether some passes for it
// only because gossip may not know it yet.
func (o *observatory) watch(hosts []topology.Host, members []gossip.Member, now time.Time) (obs topology.Observations, early bool) {
	o.members(members, now)
	all := byName(members)
	o.mu.Lock()
	defer o.mu.Unlock()
	obs.Hosts = make(map[string]topology.HostObs, len(hosts))
	for _, h := range hosts {
		o.meet(h, now)
		alive := o.alive(h, all[h.Name], now)
		early = early || alive && all[h.Name].Name == ""
		obs.Hosts[h.Name] = topology.HostObs{Alive: alive}
	}
	return obs, early
}

// meet notes when a host was first seen in the roster.
func (o *observatory) meet(h topology.Host, now time.Time) {
	if _, ok := o.met[h.ID]; !ok {
		o.met[h.ID] = now
	}
}

// alive tells whether gossip, which may not know it yet, calls a host alive. Some
// hosts that join at once are no herd that has fallen ill (S9).
func (o *observatory) alive(h topology.Host, m gossip.Member, now time.Time) bool {
	if m.Name == "" {
		return now.Sub(o.met[h.ID]) < arriveTime
	}
	return m.Status == gossip.StatusAlive
}

// observe puts reports and gossip together for topology.Decide.
func (o *observatory) observe(hosts []topology.Host, members []gossip.Member, now time.Time) topology.Observations {
	o.members(members, now)
	all := byName(members)
	o.mu.Lock()
	defer o.mu.Unlock()
	obs := topology.Observations{Hosts: make(map[string]topology.HostObs, len(hosts)), Settled: true, Now: now}
	for _, h := range hosts {
		o.meet(h, now)
		ho := o.hostObs(h, all[h.Name], now)
		if all[h.Name].Status == gossip.StatusAlive && !ho.Reported && now.Sub(o.since) < settleTime {
			obs.Settled = false
		}
		obs.Hosts[h.Name] = ho
	}
	return obs
}

func (o *observatory) hostObs(h topology.Host, m gossip.Member, now time.Time) topology.HostObs {
	ho := topology.HostObs{
		Alive:     o.alive(h, m, now),
		Left:      m.Status == gossip.StatusLeft,
		ReportAge: min(now.Sub(o.since), now.Sub(o.met[h.ID])),
	}
	if takes, asked := o.takes[h.Name]; !ho.Alive {
		ho.Hung, ho.Asking = takes, !asked
	}
	if at, ok := o.down[h.Name]; ok {
		ho.DownFor = now.Sub(at)
	}
	if m.Name == "" { // gossip does not know it
		ho.DownFor = ho.ReportAge
	}
	r, ok := o.reports[h.Name]
	if !ok || r.HostID != h.ID {
		return ho
	}
	age := now.Sub(r.at)
	ho.Reported, ho.ReportAge = true, age
	ho.Labels, ho.CPU, ho.Memory = r.Labels, r.CPU, r.Memory
	ho.PortMin, ho.PortMax, ho.Ports, ho.CanUser = r.PortMin, r.PortMax, r.PortsTaken, r.CanUser
	ho.Boot, ho.Slice, ho.Stages = r.Kernel, r.SliceIndex, r.Stages
	ho.Wants = r.Wants[:min(len(r.Wants), topology.MaxAddresses)]
	ho.Copies = make(map[topology.CopyKey]topology.CopyObs, len(r.Copies))
	for _, c := range r.Copies {
		if id, err := workload.ParseCopyID(c.ID); err == nil {
			co := copyObs(c, age)
			if u, ok := r.unready[c.ID]; ok {
				// The host's own count is the longer one after a change of leader, ours
				// after a restart of its agent.
				co.UnreadyFor = max(now.Sub(u.since), time.Duration(c.UnreadyMS)*time.Millisecond+age, 1)
			}
			ho.Copies[topology.CopyKey{App: id.App, N: id.N}] = co
		}
	}
	return ho
}

// hasEnded tells whether a lease's holder has reported that nothing runs under it
// nor ever will.
func (o *observatory) hasEnded(l topology.Lease) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	r, ok := o.reports[l.Host]
	return ok && r.HostID == l.HostID && slices.Contains(r.Ended, topology.LeaseRef{App: l.App, Token: l.Token})
}

// copyObs translates a copy's report; its ages have grown by the report's own.
func copyObs(c api.CopyReport, age time.Duration) topology.CopyObs {
	co := topology.CopyObs{
		Version: c.Version, Generation: c.Generation, State: c.State, Ready: c.Ready,
		Age: time.Duration(c.AgeMS)*time.Millisecond + age, Failed: c.Failed, Why: c.Why,
		Done: c.Done, Pid: c.Pid, Restarts: c.Restarts,
		LapsedAfter: time.Duration(c.LapsedMS) * time.Millisecond, LapsedWhy: c.LapsedWhy,
		Smoke: c.Smoke, SmokeEnd: c.SmokeEnd, SmokeWhy: c.SmokeWhy,
	}
	if c.Since != nil {
		co.Since = *c.Since
	}
	if c.Ready {
		co.ReadyFor = time.Duration(c.ReadyMS)*time.Millisecond + age
	}
	co.BestReady = max(time.Duration(c.BestMS)*time.Millisecond, co.ReadyFor)
	return co
}
