package topology

import (
	"context"
	"encoding/json"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var mutants = flag.Bool("mutants", false, "build each seeded bug of rollouts, and see it caught")

// seededBugs are defects of the machinery of rollouts and of the ledger that all
// movers share: old, which stands once in the file, is replaced.
var seededBugs = []struct{ name, file, old, new string }{
	{"healthy_for is ignored", "view.go", "c.settled = c.ready && c.obs.ReadyFor >= a.healthy", "c.settled = c.ready"},
	{"a starting copy counts as ready", "view.go", "c.room.fresh && c.seen && c.obs.Ready &&", "c.room.fresh && c.seen && (c.obs.Ready || c.obs.State == CopyStarting) &&"},
	{"a copy that is not heard of counts as ready", "view.go", "c.ready = c.room.fresh && c.seen", "c.ready = c.seen"},
	{"an old version's proof is taken for the new one's", "view.go", "c.seen = c.known && c.obs.Generation == c.Generation", "c.seen = c.known"},
	{"old copies prove the canary", "rollout.go", "		case c.Version != a.Version || a.absent(c):\n		case !c.settled:", "		case a.absent(c):\n		case !c.settled:"},
	{"a failure is only noted", "rollout.go", "case on == intent.OnFailureForward:", "case true:"},
	{"a failure is not seen", "rollout.go", "return c.obs.Failed || !c.ready", "return !c.ready"},
	{"no deadline", "rollout.go", " || !c.ready && c.unready() >= a.timeout", ""},
	{"a copy that died is well again", "rollout.go", "return c.Version == a.Version && (a.fails(c) || a.lapsed(c))", "return c.Version == a.Version && a.fails(c)"},
	{"flapping is not seen", "rollout.go", " || a.flaps(c)\n", "\n"},
	{"hold goes back", "rollout.go", "case a.onTrial() && on != intent.OnFailureHold:", "case a.onTrial():"},
	{"what is held goes on", "view.go", "halted: e.Rollout.Outcome == OutcomeHeld,", ""},
	{"one more than parallel gets the version", "pace.go", "		return a.canaries()\n	}\n	return a.parallel", "		return a.canaries()\n	}\n	return a.parallel + 1"},
	{"one more than parallel is taken down", "pace.go", "return t.unsettled-t.helping < p.allowance(a)", "return t.unsettled-t.helping <= p.allowance(a)"},
	{"surge copies do not count as exposed", "pace.go", "case !c.settled && c.Version == a.Version && !a.absent(c):\n			t.exposed++", "case false:"},
	{"no canary", "rollout.go", "case a.canaries() > 0:", "case false:"},
	{"the canary is not waited for", "rollout.go", "		if p.canariesProved(a) {", "		if true {"},
	{"a rollback goes through the canary", "rollout.go", "a.Rollout.Back || !a.surges()", "!a.surges()"},
	{"well new copies stop before the old are back", "surge.go", "		return c.room.fresh && !c.ready\n", "		return true\n"},
	{"surge copies go when the change is done in part", "surge.go", "return t.unsettled > t.helping", "return false"},
	{"the ledger does not know drains", "pace.go", "t.leaving+len(a.reliefs) >= a.parallel || c.ready && !p.mayTake(a, t)", "t.leaving+len(a.reliefs) >= a.parallel"},
	{"the ledger does not know changes of count", "pace.go", "t.unsettled = max(0, a.want-len(a.copies))", "_ = 0"},
	{"new copies of a change of count get the version on trial", "pace.go", "return !a.halted && !a.beside() && p.tally(a).exposed < allowed", "return true"},
	{"drained copies stop before others have taken over", "pace.go", "if p.relieveDrained(a, c, reason, t) {", "if false {"},
	{"who takes over need not be well", "relief.go", "if !c.settled || c.room", "if c.room"},
	{"the smoke check is left out", "rollout.go", "if smoke && a.Rollout.Phase != PhaseSmoke", "if false && smoke && a.Rollout.Phase != PhaseSmoke"},
	{"a failed smoke check passes", "smoke.go", "case c.obs.SmokeEnd == SmokeFailed:", "case false:"},
	{"a smoke result of an earlier try counts", "smoke.go", "if !c.known || c.obs.Smoke != r.SmokeID {", "if !c.known || c.obs.Smoke == 0 {"},
	{"the second set takes over unproved", "rollout.go", "return proved >= p.secondSet(a) && (proved > 0 || a.want == 0)", "return true"},
	{"what was taken from a host is forgotten", "remnant.go", "case r.remains(m):", "case false:"},
	{"a stage does not wait", "stage_decide.go", "if left := bake - p.obs.Staged[st.Step]; left > 0 {", "if left := bake - p.obs.Staged[st.Step]; left > bake {"},
	{"lost hosts prove a stage", "stage_decide.go", "return !ok || !r.fresh", "return !ok || r == nil"},
	{"trouble is not heard", "stage_decide.go", "o.Rule == st.Rule && o.Begun == st.Begun && o.Trouble != \"\"", "false"},
	{"an act is not held against its stage", "stage.go", "if why := t.Refuses(ref, host); why != \"\" {", "if why := t.Refuses(ref, host); false && why != \"\" {"},
	{"what was taken back acts on", "stage.go", "case ReachAll:\n		return true", "case ReachAll, ReachTaken:\n		return true"},
	{"a port is given away that may still be in use", "remnant.go", "if key != comes && slices.Contains", "if false && slices.Contains"},
	{"done when one copy is", "rollout.go", "if t := p.tally(a); t.unsettled > 0 || t.leaving > 0 || t.exposed > 0 {", "if t := p.tally(a); t.outdated > 0 {"},
}

// Each stands where it is to be put, whatever becomes of the code.
func TestSeededBugsFit(t *testing.T) {
	for _, b := range seededBugs {
		src, err := os.ReadFile(b.file)
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(src), b.old); n != 1 {
			t.Errorf("%s: %q stands %d times in %s", b.name, b.old, n, b.file)
		}
	}
}

// Each is caught by what random histories are held to, or by a history that is
// too rare at random (make mutants).
func TestSeededBugsAreCaught(t *testing.T) {
	if !*mutants {
		t.Skip("builds the package once for each: asked for by -mutants")
	}
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range seededBugs {
		t.Run(b.name, func(t *testing.T) {
			src, err := os.ReadFile(b.file)
			if err != nil {
				t.Fatal(err)
			}
			patched := filepath.Join(t.TempDir(), b.file)
			if err := os.WriteFile(patched, []byte(strings.Replace(string(src), b.old, b.new, 1)), 0o600); err != nil {
				t.Fatal(err)
			}
			overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{filepath.Join(dir, b.file): patched}})
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(t.TempDir(), "overlay.json")
			if err := os.WriteFile(file, overlay, 0o600); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
			defer cancel()
			out, err := exec.CommandContext(ctx, "go", "test", "-count=1", "-vet=off", "-failfast", "-overlay", file, "-run", "^(TestSmokeOfAnEarlierTryCountsForNothing|TestFailureIsHeededAtOnce|TestRollouts|TestDrainsStartFirst|TestRandomHistories|TestRandomHistoriesRebalanced|TestHastyHistories|TestStages)$", ".").CombinedOutput()
			switch text := string(out); {
			case err == nil:
				t.Error("not caught")
			case !strings.Contains(text, "--- FAIL"):
				t.Errorf("not by a check: %s", clip(text))
			default:
				lines := strings.Split(strings.TrimSpace(text), "\n")
				t.Logf("caught: %s", clip(lines[max(0, len(lines)-4)]))
			}
		})
	}
}
