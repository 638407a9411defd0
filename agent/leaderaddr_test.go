package agent

import (
	"slices"
	"testing"

	"github.com/ganglion-mesh/ganglion/gossip"
)

// TestHangingLeaderIsAskedLast: gossip calls it alive for a while, and each
// question to it costs a report's whole patience.
func TestHangingLeaderIsAskedLast(t *testing.T) {
	var members []gossip.Member
	for _, name := range []string{"h1", "h2", "h3", "h4"} {
		m := gossip.Member{Name: name, Status: gossip.StatusAlive, Tags: map[string]string{tagMesh: name + ":1"}}
		if name != "h4" {
			m.Tags[tagRaftID] = name
		}
		members = append(members, m)
	}
	c := &compass{}
	c.set("h1:1")
	if got := c.guess(members, "h4:1"); !slices.Equal(got, []string{"h1:1", "h2:1", "h3:1"}) {
		t.Errorf("h1 led: %v", got)
	}
	c.wrong("h1:1")
	if got := c.guess(members, "h4:1"); !slices.Equal(got, []string{"h2:1", "h3:1", "h1:1"}) {
		t.Errorf("h1 hangs: %v", got)
	}
	c.wrong("h2:1")
	if got := c.guess(members, "h4:1"); !slices.Equal(got, []string{"h3:1", "h1:1", "h2:1"}) {
		t.Errorf("h2 does not lead: %v", got)
	}
	c.set("h1:1")
	c.wrong("h3:1")
	if got := c.guess(members, "h4:1"); !slices.Equal(got, []string{"h1:1", "h2:1", "h3:1"}) {
		t.Errorf("h1 leads again: %v", got)
	}
}
