package agent

import (
	"context"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/gossip"
)

// unhealthy is what the population gate counts.
func unhealthy(o topology.HostObs) bool { return !o.Alive || o.ReportAge >= missedReport }

func TestHostsThatJoinAreNotIll(t *testing.T) {
	o := newObservatory()
	begun := time.Now()
	o.takeOffice(begun)
	one := topology.Host{Name: "h1", ID: "1"}
	alive := func(name string) gossip.Member { return gossip.Member{Name: name, Status: gossip.StatusAlive} }
	o.report(api.Report{Host: "h1", HostID: "1", Boot: "a", Seq: 1}, begun)
	o.observe([]topology.Host{one}, []gossip.Member{alive("h1")}, begun)

	// Long after the election two hosts are enrolled at once.
	now := begun.Add(time.Hour)
	roster := []topology.Host{one, {Name: "h2", ID: "2"}, {Name: "h3", ID: "3"}}
	obs := o.observe(roster, []gossip.Member{alive("h1"), alive("h2")}, now)
	if h := obs.Hosts["h2"]; unhealthy(h) || h.Reported {
		t.Errorf("in gossip, before its first report: %+v", h)
	}
	if h := obs.Hosts["h3"]; unhealthy(h) || h.Reported {
		t.Errorf("not in gossip yet: %+v", h)
	}
	if !obs.Settled {
		t.Error("a join unsettles the leader")
	}
	obs = o.observe(roster, []gossip.Member{alive("h1"), alive("h2")}, now.Add(arriveTime))
	for _, name := range []string{"h2", "h3"} {
		if h := obs.Hosts[name]; !unhealthy(h) {
			t.Errorf("%s never came: %+v", name, h)
		}
	}

	// What gossip has seen die is dead, however new it is.
	roster = append(roster, topology.Host{Name: "h4", ID: "4"})
	obs = o.observe(roster, []gossip.Member{{Name: "h4", Status: gossip.StatusFailed}}, now.Add(arriveTime))
	if h := obs.Hosts["h4"]; !unhealthy(h) {
		t.Errorf("dead: %+v", h)
	}
}

// A leader that stood still has heard nobody, which is no silence of theirs.
func TestLeaderThatStoodStillAccusesNobody(t *testing.T) {
	o := newObservatory()
	now := time.Now()
	o.takeOffice(now)
	roster := []topology.Host{{Name: "h1", ID: "1"}, {Name: "h2", ID: "2"}, {Name: "h3", ID: "3"}}
	var members []gossip.Member
	for _, h := range roster {
		members = append(members, gossip.Member{Name: h.Name, Status: gossip.StatusAlive})
	}
	seq := uint64(0)
	hear := func(hosts ...topology.Host) {
		for _, h := range hosts {
			seq++
			o.report(api.Report{Host: h.Name, HostID: h.ID, Boot: "a", Seq: seq}, now)
		}
	}
	look := func(after time.Duration) (ill int, settled bool) {
		now = now.Add(after)
		o.runs(now)
		obs := o.observe(roster, members, now)
		for _, h := range obs.Hosts {
			if unhealthy(h) {
				ill++
			}
		}
		return ill, obs.Settled
	}
	hear(roster...)
	if ill, settled := look(time.Second); ill != 0 || !settled {
		t.Fatalf("all have reported: %d look ill, settled %v", ill, settled)
	}
	for _, pause := range []time.Duration{stoodStill, time.Minute} {
		if ill, settled := look(pause); ill != 0 || settled {
			t.Errorf("it stood still for %s: %d look ill, settled %v", pause, ill, settled)
		}
		hear(roster...)
		if ill, settled := look(time.Second); ill != 0 || !settled {
			t.Errorf("and was told anew: %d look ill, settled %v", ill, settled)
		}
	}

	// A pause that is too short to be seen makes nobody look ill who reports in time.
	look(reportEvery - time.Second)
	if ill, settled := look(stoodStill - 1); ill != 0 || !settled {
		t.Errorf("a short pause: %d look ill, settled %v", ill, settled)
	}
	if ill, _ := look(time.Second); ill != 3 {
		t.Errorf("all are silent: %d look ill", ill)
	}
	hear(roster[:2]...)
	for range 3 {
		hear(roster[:2]...)
		look(reportEvery)
	}
	if ill, _ := look(0); ill != 1 {
		t.Errorf("one is silent, this host runs: %d look ill", ill)
	}
}

func TestMeshIsFoundHoweverEarlyItIsAskedFor(t *testing.T) {
	h := startHost(t, "h1", nil)
	h.stop(t)
	a, err := New(h.cfg)
	if err != nil {
		t.Fatal(err)
	}
	// The socket is served before the rest of the agent looks around.
	made := make(chan error, 1)
	_, err = a.found("early", made)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	if _, err := a.become(ctx, made); err != nil {
		t.Errorf("become a member: %v", err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
