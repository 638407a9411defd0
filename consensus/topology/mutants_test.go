package topology

import (
	"flag"
	"testing"

	"github.com/ganglion-mesh/ganglion/mutanttest"
)

var mutants = flag.Bool("mutants", false, "build each seeded bug of rollouts, and see it caught")

// seededBugs are defects of the machinery of rollouts and of the ledger that all
// movers share: old, which stands once in the file, is replaced.
var seededBugs = []mutanttest.Bug{
	{Name: "healthy_for is ignored", File: "consensus/topology/view.go", Old: "c.settled = c.ready && c.obs.ReadyFor >= a.healthy", New: "c.settled = c.ready"},
	{Name: "a starting copy counts as ready", File: "consensus/topology/view.go", Old: "c.room.fresh && c.seen && c.obs.Ready &&", New: "c.room.fresh && c.seen && (c.obs.Ready || c.obs.State == CopyStarting) &&"},
	{Name: "a copy that is not heard of counts as ready", File: "consensus/topology/view.go", Old: "c.ready = c.room.fresh && c.seen", New: "c.ready = c.seen"},
	{Name: "an old version's proof is taken for the new one's", File: "consensus/topology/view.go", Old: "c.seen = c.known && c.obs.Generation == c.Generation", New: "c.seen = c.known"},
	{Name: "old copies prove the canary", File: "consensus/topology/rollout.go", Old: "		case c.Version != a.Version || a.absent(c):\n		case !c.settled:", New: "		case a.absent(c):\n		case !c.settled:"},
	{Name: "a failure is only noted", File: "consensus/topology/rollout.go", Old: "case on == intent.OnFailureForward:", New: "case true:"},
	{Name: "a failure is not seen", File: "consensus/topology/rollout.go", Old: "return c.obs.Failed || !c.ready", New: "return !c.ready"},
	{Name: "no deadline", File: "consensus/topology/rollout.go", Old: " || !c.ready && c.unready() >= a.timeout", New: ""},
	{Name: "a copy that died is well again", File: "consensus/topology/rollout.go", Old: "return c.Version == a.Version && (a.fails(c) || a.lapsed(c))", New: "return c.Version == a.Version && a.fails(c)"},
	{Name: "flapping is not seen", File: "consensus/topology/rollout.go", Old: " || a.flaps(c)\n", New: "\n"},
	{Name: "hold goes back", File: "consensus/topology/rollout.go", Old: "case a.onTrial() && on != intent.OnFailureHold:", New: "case a.onTrial():"},
	{Name: "what is held goes on", File: "consensus/topology/view.go", Old: "halted: e.Rollout.Outcome == OutcomeHeld,", New: ""},
	{Name: "one more than parallel gets the version", File: "consensus/topology/pace.go", Old: "		return a.canaries()\n	}\n	return a.parallel", New: "		return a.canaries()\n	}\n	return a.parallel + 1"},
	{Name: "one more than parallel is taken down", File: "consensus/topology/pace.go", Old: "return t.unsettled-t.helping < p.allowance(a)", New: "return t.unsettled-t.helping <= p.allowance(a)"},
	{Name: "surge copies do not count as exposed", File: "consensus/topology/pace.go", Old: "case !c.settled && c.Version == a.Version && !a.absent(c):\n			t.exposed++", New: "case false:"},
	{Name: "no canary", File: "consensus/topology/rollout.go", Old: "case a.canaries() > 0:", New: "case false:"},
	{Name: "the canary is not waited for", File: "consensus/topology/rollout.go", Old: "		if p.canariesProved(a) {", New: "		if true {"},
	{Name: "a rollback goes through the canary", File: "consensus/topology/rollout.go", Old: "a.Rollout.Back || !a.surges()", New: "!a.surges()"},
	{Name: "well new copies stop before the old are back", File: "consensus/topology/surge.go", Old: "		return c.room.fresh && !c.ready\n", New: "		return true\n"},
	{Name: "surge copies go when the change is done in part", File: "consensus/topology/surge.go", Old: "return t.unsettled > t.helping", New: "return false"},
	{Name: "the ledger does not know drains", File: "consensus/topology/pace.go", Old: "t.leaving+len(a.reliefs) >= a.parallel || c.ready && !p.mayTake(a, t)", New: "t.leaving+len(a.reliefs) >= a.parallel"},
	{Name: "the ledger does not know changes of count", File: "consensus/topology/pace.go", Old: "t.unsettled = max(0, a.want-len(a.copies))", New: "_ = 0"},
	{Name: "new copies of a change of count get the version on trial", File: "consensus/topology/pace.go", Old: "return !a.halted && !a.beside() && p.tally(a).exposed < allowed", New: "return true"},
	{Name: "drained copies stop before others have taken over", File: "consensus/topology/pace.go", Old: "if p.relieveDrained(a, c, reason, t) {", New: "if false {"},
	{Name: "who takes over need not be well", File: "consensus/topology/relief.go", Old: "if !c.settled || c.room", New: "if c.room"},
	{Name: "the smoke check is left out", File: "consensus/topology/rollout.go", Old: "if smoke && a.Rollout.Phase != PhaseSmoke", New: "if false && smoke && a.Rollout.Phase != PhaseSmoke"},
	{Name: "a failed smoke check passes", File: "consensus/topology/smoke.go", Old: "case c.obs.SmokeEnd == SmokeFailed:", New: "case false:"},
	{Name: "a smoke result of an earlier try counts", File: "consensus/topology/smoke.go", Old: "if !c.known || c.obs.Smoke != r.SmokeID {", New: "if !c.known || c.obs.Smoke == 0 {"},
	{Name: "the second set takes over unproved", File: "consensus/topology/rollout.go", Old: "return proved >= p.secondSet(a) && (proved > 0 || a.want == 0)", New: "return true"},
	{Name: "what was taken from a host is forgotten", File: "consensus/topology/remnant.go", Old: "case r.remains(m):", New: "case false:"},
	{Name: "a stage does not wait", File: "consensus/topology/stage_decide.go", Old: "if left := bake - p.obs.Staged[st.Step]; left > 0 {", New: "if left := bake - p.obs.Staged[st.Step]; left > bake {"},
	{Name: "lost hosts prove a stage", File: "consensus/topology/stage_decide.go", Old: "return !ok || !r.fresh", New: "return !ok || r == nil"},
	{Name: "trouble is not heard", File: "consensus/topology/stage_decide.go", Old: "o.Rule == st.Rule && o.Begun == st.Begun && o.Trouble != \"\"", New: "false"},
	{Name: "an act is not held against its stage", File: "consensus/topology/stage.go", Old: "if why := t.Refuses(ref, host); why != \"\" {", New: "if why := t.Refuses(ref, host); false && why != \"\" {"},
	{Name: "what was taken back acts on", File: "consensus/topology/stage.go", Old: "case ReachAll:\n		return true", New: "case ReachAll, ReachTaken:\n		return true"},
	{Name: "a port is given away that may still be in use", File: "consensus/topology/remnant.go", Old: "if key != comes && slices.Contains", New: "if false && slices.Contains"},
	{Name: "done when one copy is", File: "consensus/topology/rollout.go", Old: "if t := p.tally(a); t.unsettled > 0 || t.leaving > 0 || t.exposed > 0 {", New: "if t := p.tally(a); t.outdated > 0 {"},
}

func TestSeededBugsFit(t *testing.T) { mutanttest.Fit(t, "../..", seededBugs) }

// Each is caught by what random histories are held to, or by a history that is
// too rare at random (make mutants).
func TestSeededBugsAreCaught(t *testing.T) {
	if !*mutants {
		t.Skip("builds the package once for each: asked for by -mutants")
	}
	mutanttest.Caught(t, "../..", seededBugs,
		"TestSmokeOfAnEarlierTryCountsForNothing",
		"TestFailureIsHeededAtOnce",
		"TestRollouts",
		"TestDrainsStartFirst",
		"TestRandomHistories",
		"TestRandomHistoriesRebalanced",
		"TestHastyHistories",
		"TestStages",
	)
}
