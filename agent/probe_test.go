package agent

import (
	"net"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/gossip"
)

// TestProbeTellsHungFromGone: the kernel takes connections for a process that
// hangs, and refuses them for one that has ended.
func TestProbeTellsHungFromGone(t *testing.T) {
	hangs, err := net.Listen("tcp", "127.0.0.1:0") // and never accepts
	if err != nil {
		t.Fatal(err)
	}
	defer hangs.Close()
	ended, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended.Close()
	roster := []topology.Host{{Name: "h1", ID: "1"}, {Name: "h2", ID: "2"}, {Name: "h3", ID: "3"}}
	members := []gossip.Member{
		{Name: "h1", Status: gossip.StatusAlive},
		{Name: "h2", Status: gossip.StatusFailed, Tags: map[string]string{tagMesh: hangs.Addr().String()}},
		{Name: "h3", Status: gossip.StatusFailed, Tags: map[string]string{tagMesh: ended.Addr().String()}},
	}
	o, now := newObservatory(), time.Now()
	p := &prober{net: tcp{}, obs: o, asked: map[string]time.Time{}}
	before := o.observe(roster, members, now)
	if !before.Hosts["h2"].Asking || !before.Hosts["h3"].Asking || before.Hosts["h1"].Asking {
		t.Errorf("before anyone was asked: %+v", before.Hosts)
	}
	news := o.news()
	p.look(t.Context(), before, members, now)
	p.calls.Wait()
	select {
	case <-news:
	default:
		t.Error("an answer is no news")
	}
	after := o.observe(roster, members, now)
	if h := after.Hosts["h2"]; !h.Hung || h.Asking {
		t.Errorf("hangs: %+v", h)
	}
	if h := after.Hosts["h3"]; h.Hung || h.Asking {
		t.Errorf("ended: %+v", h)
	}
	members[1].Status = gossip.StatusAlive
	if h := o.observe(roster, members, now).Hosts["h2"]; h.Hung || h.Asking {
		t.Errorf("back: %+v", h)
	}
	members[1].Status = gossip.StatusFailed
	if h := o.observe(roster, members, now).Hosts["h2"]; !h.Asking {
		t.Errorf("dead again, with an old answer: %+v", h)
	}
}
