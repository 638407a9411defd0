package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/integration/rig"
)

// job declares an app whose copy writes a line into the witness when it begins,
// and then runs a script, with those of its own tries that came before in $tries.
func (w witness) job(name, kind, script string) string {
	script = fmt.Sprintf(`umask 0; f=%s/%s; tries=$(grep -c . $f 2>/dev/null); echo "$GANGLION_HOST $GANGLION_VERSION" >>$f; %s`, w.dir, name, script)
	return fmt.Sprintf("app %q {\n  %s\n  run {\n    command = [\"/bin/sh\", \"-c\", %q]\n  }\n}\n", name, kind, script)
}

// lines are what the tries of a job have written: the host of each.
func (w witness) lines(name string) (hosts []string) {
	b, _ := os.ReadFile(filepath.Join(w.dir, name))
	for line := range strings.Lines(string(b)) {
		host, _, _ := strings.Cut(line, " ")
		hosts = append(hosts, host)
	}
	return hosts
}

func awaitOutcome(t *testing.T, h *rig.Host, app string, want topology.RunOutcome) topology.AppStatus {
	t.Helper()
	var st topology.AppStatus
	rig.Await(t, 30*time.Second, func() (err error) {
		if st, err = status(h, app); err == nil && (st.Last == nil || st.Last.Outcome != want) {
			err = fmt.Errorf("%+v, last run %+v", st, st.Last)
		}
		return err
	})
	return st
}

func TestOneShotRunsToItsEndAndNeverAgain(t *testing.T) {
	t.Parallel()
	r := rig.New(t, 4)
	w := newWitness(t)
	r.Start()
	awaitVoters(t, r, 3)
	h := r.Hosts[0]
	migrate := h.File("migrate.hcl", w.job("migrate", "once = true", "[ $tries -ge 2 ]"))
	if out := h.Must("apply", migrate); !strings.Contains(out, "is done") {
		t.Errorf("apply says %q", out)
	}
	if got := w.lines("migrate"); len(got) != 3 {
		t.Fatalf("it was tried on %v: want two failures and a success", got)
	}
	// Its output is where it ran.
	if out := h.Must("status", "migrate", "-o", "json"); !strings.Contains(out, `"steady"`) || !strings.Contains(out, `"done"`) {
		t.Errorf("status: %s", out)
	}
	_, errs, code := h.CLI("apply", h.File("bad.hcl", strings.Replace(w.job("bad", "once = true", "exit 3"), "run {", "restart {\n    limit = 1\n  }\n  run {", 1)))
	if code != 1 || !strings.Contains(errs, "code 3") || len(w.lines("bad")) != 2 {
		t.Errorf("a one-shot that fails: exit %d, %s, tried on %v", code, errs, w.lines("bad"))
	}

	// A host that is lost in the middle of a run: it is run elsewhere.
	h.Must("apply", "--detach", h.File("long.hcl", w.job("long", "once = true", "[ $tries -ge 1 ] || exec sleep 1000")))
	var ran string
	rig.Await(t, 20*time.Second, func() error {
		if got := w.lines("long"); len(got) == 1 {
			ran = got[0]
			return nil
		}
		return errors.New("the long one does not run")
	})
	lost := r.Hosts[slices.IndexFunc(r.Hosts, func(x *rig.Host) bool { return x.Name == ran })]
	rest := others(r, lost)
	lost.Crash()
	st := awaitOutcome(t, rest[0], "long", topology.RunDone)
	if got := w.lines("long"); len(got) != 2 || got[1] == ran || st.Last.Host != got[1] {
		t.Errorf("it ran on %v, and ended on %s", got, st.Last.Host)
	}

	// Whatever becomes of the hosts, what is done stays done.
	leader := rest[0]
	for _, x := range rest {
		if x.Name == st.Last.Host {
			leader = x
		}
	}
	leader.Kill()
	leader.StartAgent()
	lost.Reboot()
	lost.StartAgent()
	r.AwaitHosts(4, 30*time.Second)
	rest[1].Must("apply", migrate)
	if n := len(w.lines("migrate")) + len(w.lines("long")) + len(w.lines("bad")); n != 7 {
		t.Errorf("something ran again: %v, %v, %v", w.lines("migrate"), w.lines("long"), w.lines("bad"))
	}
	rest[1].Must("restart", "migrate")
	if n := len(w.lines("migrate")); n != 4 {
		t.Errorf("%d lines after a restart that was asked for, want 4", n)
	}
}

// TestScheduleOverALeaderChange: every due time has at most one run, and there
// goes none without while there is a leader.
func TestScheduleOverALeaderChange(t *testing.T) {
	t.Parallel()
	r := rig.New(t, 3)
	w := newWitness(t)
	r.Start()
	awaitVoters(t, r, 3)
	leader := r.Leader()
	rest := others(r, leader)
	begun := time.Now()
	rest[0].Must("apply", rest[0].File("tick.hcl", w.job("tick", `schedule = "@every 2s"`, "exit 0")))
	rest[0].Must("apply", rest[0].File("slow.hcl", w.job("slow", `schedule = "@every 2s"`, "exec sleep 5")))
	enough := func(n int) {
		t.Helper()
		rig.Await(t, 40*time.Second, func() error {
			if got := len(w.lines("tick")); got < n {
				return fmt.Errorf("%d runs, want %d", got, n)
			}
			return nil
		})
	}
	enough(3)
	leader.Kill()
	n := len(w.lines("tick"))
	enough(n + 3)
	leader.StartAgent()
	rest[0].Must("stop", "tick")
	ran, most := len(w.lines("tick")), int(time.Since(begun)/(2*time.Second))+1
	if ran > most {
		t.Errorf("%d runs in a time in which %d were due", ran, most)
	}
	due := map[string]int{}
	for _, e := range eventsOf(t, rest[0], "app.tick.>") {
		if e.Type == "dev.ganglion.app.placed" {
			due[e.Data.Reason]++
		}
	}
	for reason, times := range due {
		if times != 1 {
			t.Errorf("%s: begun %d times", reason, times)
		}
	}
	// What the killed leader began it may not have lived to tell, and what ran on
	// its host when it was killed may have had to run again elsewhere.
	if len(due) > ran || len(due) < ran-2 {
		t.Errorf("%d runs for %d due times", ran, len(due))
	}
	skipped := false
	for _, e := range eventsOf(t, rest[0], "app.slow.>") {
		skipped = skipped || strings.Contains(e.Data.Reason, "is skipped: the one before it still runs on")
	}
	if got := len(w.lines("slow")); !skipped || got > ran/2+1 {
		t.Errorf("a run of 5s every 2s: %d runs, skips told: %v", got, skipped)
	}
	st, err := status(rest[0], "slow")
	if err != nil || st.State != topology.AppSteady || st.Next.IsZero() || st.Kind != "schedule" {
		t.Errorf("%+v, %v", st, err)
	}
}

type told struct {
	Type string `json:"type"`
	Data struct {
		Reason string `json:"reason"`
	} `json:"data"`
}

// eventsOf reads the events that match a filter.
func eventsOf(t *testing.T, h *rig.Host, filter string) (list []told) {
	t.Helper()
	for line := range strings.Lines(h.Must("events", "--since", "1h", "-o", "json", filter)) {
		var e told
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("event %q: %v", line, err)
		}
		list = append(list, e)
	}
	return list
}
