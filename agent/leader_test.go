package agent

import (
	"fmt"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/gossip"
)

// TestGateIsKeptByThoseWhoDoNotLead: a new leader knows that too many looked
// dead, and for how long it has been calm.
func TestGateIsKeptByThoseWhoDoNotLead(t *testing.T) {
	state := topology.New()
	var members []gossip.Member
	for i := range 5 {
		name := fmt.Sprintf("h%d", i+1)
		state, _ = state.Apply(uint64(i+1), topology.Command{EnrolHost: &topology.EnrolHost{Name: name, ID: name}})
		members = append(members, gossip.Member{Name: name, Status: gossip.StatusAlive})
	}
	turn := func(status gossip.Status, hosts ...int) {
		for _, i := range hosts {
			members[i-1].Status = status
		}
	}
	l := &leaderLoop{obs: newObservatory()}
	now := time.Now()
	pass := func(d time.Duration) {
		for end := now.Add(d); now.Before(end); {
			now = now.Add(leaderTick)
			l.watch(state, members, now)
		}
	}
	pass(time.Minute)
	if l.gate.shut || l.gate.calmFor(now) < time.Minute-leaderTick {
		t.Errorf("all well: %+v", l.gate)
	}
	turn(gossip.StatusFailed, 3, 4)
	pass(30 * time.Second)
	if !l.gate.shut || l.gate.calmFor(now) != 0 {
		t.Errorf("two of five are gone: %+v", l.gate)
	}
	turn(gossip.StatusAlive, 3)
	pass(time.Minute)
	if !l.gate.shut || l.gate.calmFor(now) < time.Minute-leaderTick {
		t.Errorf("a minute after one came back: %+v", l.gate)
	}
	// To take office takes nothing of that away, nor since when a host is gone.
	l.obs.takeOffice(now)
	obs := l.obs.observe(state.Hosts(), members, now)
	obs.GateShut, obs.CalmFor = l.gate.shut, l.gate.calmFor(now)
	if d := topology.Decide(state, obs); !d.GateShut || obs.Hosts["h4"].DownFor < time.Minute || obs.Hosts["h4"].ReportAge != 0 {
		t.Errorf("in office: shut %v, %+v", d.GateShut, obs.Hosts["h4"])
	}
	pass(time.Minute + leaderTick)
	if l.gate.shut {
		t.Errorf("two minutes later: %+v", l.gate)
	}
}
