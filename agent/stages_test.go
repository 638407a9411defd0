package agent

import (
	"testing"

	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/intent"
)

// TestVariants: what a host runs of a staged reflex. The version before keeps its name,
// and the new one does nothing beside it.
func TestVariants(t *testing.T) {
	before := intent.Reflex{Name: "flee", When: "before"}
	d := declaredReflex{app: "web", reflex: intent.Reflex{Name: "flee", When: "now"}}
	stage := func(change func(*topology.RuleStage)) []topology.RuleStage {
		st := topology.RuleStage{Rule: "web/flee", Begun: 7, Why: "stage 1 of 3"}
		change(&st)
		return []topology.RuleStage{{Rule: "flee", Begun: 1}, st}
	}
	type shown struct {
		name, when, why string
		id              uint64
		whole           bool
	}
	for _, c := range []struct {
		name   string
		stages []topology.RuleStage
		want   []shown
	}{
		{"not staged", nil, []shown{{"web/flee", "now", "", 0, false}}},
		{"in force", stage(func(st *topology.RuleStage) { st.InForce = true }), []shown{{"web/flee", "now", "", 7, false}}},
		{"new", stage(func(*topology.RuleStage) {}), []shown{{"web/flee", "now", "stage 1 of 3", 7, false}}},
		{"changed", stage(func(st *topology.RuleStage) { st.Former = &before }), []shown{
			{"web/flee", "before", "", 0, false}, {"web/flee" + nextMark, "now", "stage 1 of 3", 7, true},
		}},
	} {
		got := variants(d, c.stages)
		if len(got) != len(c.want) {
			t.Errorf("%s: %+v", c.name, got)
			continue
		}
		for i, v := range got {
			if s := (shown{v.name, v.reflex.When, v.stage.Why, v.stage.ID, v.stage.Whole}); s != c.want[i] || plainRule(v.name) != "web/flee" {
				t.Errorf("%s: %+v, want %+v", c.name, s, c.want[i])
			}
		}
	}
}
