package agent

import (
	"context"
	"runtime"
	"time"

	"github.com/shirou/gopsutil/v3/mem"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/pause"
)

const (
	// reportEvery is how often a host reports when nothing changes: often enough
	// that a late one is no missed one, see missedReport. To take them is half of
	// what an idle leader does.
	reportEvery = 2 * time.Second
	// reportRetry is how soon a report that nobody took is followed by the next: a
	// new leader decides nothing before it has heard from the hosts.
	reportRetry = 300 * time.Millisecond
	// reportCoalesce lets changes that come together travel together.
	reportCoalesce = 15 * time.Millisecond
)

// reporter tells the leader how this host and its copies are: at once when
// something changes, and every two seconds. What it sends is complete, so a lost
// report loses nothing.
type reporter struct {
	*member
	seq     uint64
	memory  int64
	unready map[string]unready // copies that are not ready, by id
	owes    bool               // the leader does not know of a freeze what this host does
}

func newReporter(m *member) *reporter {
	r := &reporter{member: m}
	if vm, err := mem.VirtualMemory(); err == nil {
		r.memory = int64(vm.Total)
	}
	return r
}

// run reports until ctx ends.
func (r *reporter) run(ctx context.Context) error {
	for {
		changed := r.copies.Changed()
		next := reportEvery
		if !r.send(ctx) {
			next = reportRetry
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(next):
		case <-r.wanting:
		case <-changed:
			if !pause.For(ctx, reportCoalesce) {
				return nil
			}
		}
	}
}

// send delivers one report to whoever leads, and tells whether somebody took
// it. Without a leader it is dropped: the next one says the same.
func (r *reporter) send(ctx context.Context) bool {
	r.seq++
	rep := r.report()
	if now := time.Now(); r.leader.leading() {
		r.obs.runs(now)
		r.obs.report(rep, now)
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	// Another voter hands it on, if the leader cannot be reached.
	return r.inTurn(ctx, time.Second, func(ctx context.Context, addr string) (bool, error) {
		var ack api.ReportAck
		err := r.links.client(addr).Post(ctx, "/v1/report", nil, rep, &ack)
		r.freezeAck(ack)
		if err == nil && !ack.Relayed {
			r.compass.set(addr)
		} else { // the next one tries the leader itself again
			r.compass.wrong(addr)
		}
		return err == nil, err
	}) == nil
}

func (r *reporter) report() api.Report {
	ended := r.copies.Ended() // before the copies: what ended since is then not among them
	all, index := r.copies.Survey()
	done, left := r.clearing.state(index)
	rep := api.Report{
		Host: r.cfg.Name, HostID: r.hostID(), Seq: r.seq, Boot: r.boot,
		SliceIndex: index, Cleared: done, Left: left, Addr: r.cfg.Advertise, Labels: r.cfg.Labels,
		CPU: float64(runtime.NumCPU()), Memory: r.memory,
		PortMin: r.cfg.PortRange[0], PortMax: r.cfg.PortRange[1],
		CanUser: r.canUser, Voter: r.cfg.Voter,
	}
	if rep.Freeze = r.brake.Digest(); r.owes {
		rep.Freezes = r.brake.Records()
	}
	rep.Kernel, _ = r.cfg.bootClock()()
	rep.Ended, rep.Wants = append(ended, r.nerves.addresses.Ended()...), r.nerves.addresses.Wants()
	rep.Stages = r.nerves.stageReport()
	for _, c := range all {
		rep.PortsTaken = append(rep.PortsTaken, c.PortTaken...)
		rep.Copies = append(rep.Copies, copyReport(c))
	}
	now := time.Now()
	r.unready = unreadySince(r.unready, rep, now)
	for i, c := range rep.Copies {
		if u, ok := r.unready[c.ID]; ok {
			rep.Copies[i].UnreadyMS = now.Sub(u.since).Milliseconds()
		}
	}
	return rep
}

// freezeAck takes in what the leader knows of the brake, and whether it lacks what
// this host knows.
func (r *reporter) freezeAck(ack api.ReportAck) {
	if ack.Freeze == "" {
		return
	}
	r.hearFreeze(ack.Freezes)
	r.owes = ack.Freeze != r.brake.Digest()
}
