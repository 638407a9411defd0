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
