package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/intent"
)

// applying is one apply command.
type applying struct {
	*cli
	set     string
	prune   bool
	detach  bool
	timeout time.Duration
	format  *format
}

func (c *cli) applyCommand() *cobra.Command {
	a := &applying{cli: c}
	cmd := &cobra.Command{
		Use: "apply PATH", Short: "Declare intents and wait until what was declared runs",
		Long: `Declares what PATH holds: an HCL file, a directory of *.hcl, a directory with a
Go program that calls intent.Main, or - for the JSON that such a program prints.

Apply is additive: it changes what it names and leaves the rest. With
--prune --set NAME it also removes what an earlier apply of that set named and
this one no longer does. It ends with 0 only when everything it declared runs
and passes its checks.

A run.artifact that is a local file or directory, relative to PATH, is packed and
pushed first: what is committed names it by the digest of its content. Signatures
beside it (web.tar.gz.minisig, web.tar.gz.sig) go with it.`,
		Args: args(cobra.ExactArgs(1)),
	}
	cmd.Flags().StringVar(&a.set, "set", "", "name of the set that this apply belongs to")
	cmd.Flags().BoolVar(&a.prune, "prune", false, "with --set: remove what the set no longer names")
	cmd.Flags().BoolVar(&a.detach, "detach", false, "return when the change is committed")
	cmd.Flags().DurationVar(&a.timeout, "timeout", 0, "how long to wait (default: the longest update.deadline without progress, and until its outcome is known)")
	a.format = formatFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return a.run(cmd.Context(), args[0]) }
	return cmd
}

func (a *applying) run(ctx context.Context, path string) error {
	if err := checkSet("apply", a.set, a.prune); err != nil {
		return err
	}
	in, err := a.readIntents(ctx, path)
	if err != nil {
		return err
	}
	if len(in.Apps)+len(in.Reflexes)+len(in.Senses) == 0 && !a.prune {
		return usagef("apply %s: it declares nothing", path)
	}
	bag, err := a.pack(ctx, &in, path)
	if err != nil {
		return err
	}
	defer bag.close()
	client, err := a.dial()
	if err != nil {
		return err
	}
	defer client.CloseIdle()
	if err := bag.push(ctx, client, !a.format.json()); err != nil {
		return fmt.Errorf("apply: %w", err)
	}
	var resp api.ApplyResponse
	req := api.ApplyRequest{Intents: in, Set: a.set, Prune: a.prune}
	if err := client.PostOnce(ctx, "/v1/apply", newKey(), req, &resp); err != nil {
		return err
	}
	if a.format.json() {
		err = a.printJSON(resp)
	} else {
		for _, f := range resp.Warnings {
			fmt.Fprintf(a.errs, "warning: reflex %s: %s: %s; %s\n", f.Rule, f.Path, f.Why, f.Fix)
		}
		a.printChanges(resp.Changes)
		a.printStaged(resp.Staged, "is", resp.Stage)
	}
	if err != nil || a.detach || len(resp.Versions) == 0 {
		return err
	}
	w := &watch{client: client, patience: readPatience}
	timeout := a.timeout
	if timeout <= 0 {
		// A rollout of many copies takes many deadlines, as each copy has its own.
		timeout, w.renews = longestDeadline(in), true
	}
	return a.settle(ctx, w, resp, timeout, in)
}

// checkSet refuses a --prune that does not say of what.
func checkSet(what, set string, prune bool) error {
	if prune && set == "" {
		return usagef("%s: --prune needs --set NAME: it removes what an earlier apply of that set named", what)
	}
	if set != "" {
		return checkName(what+": set", set)
	}
	return nil
}

// outcomeLate is how long it may take to hear of what a deadline has decided: a
// report, a decision, and the next look.
const outcomeLate = 5 * time.Second

// longestDeadline is how long the slowest of the apps may take, and its outcome to
// be known: a copy has failed at its deadline, or healthy_for after it.
func longestDeadline(in intent.Intents) time.Duration {
	var d time.Duration
	for _, app := range in.Normalize().Apps {
		d = max(d, app.Update.Deadline.Std()+app.Update.HealthyFor.Std())
	}
	return d + outcomeLate
}

// settle follows until every applied app is steady at its committed version.
func (a *applying) settle(ctx context.Context, w *watch, resp api.ApplyResponse, timeout time.Duration, in intent.Intents) error {
	for app := range resp.Versions {
		if len(resp.Versions) == 1 {
			w.app = app // one app needs no list of all
		}
	}
	begun := time.Now()
	err := a.await(ctx, w, timeout, func(list []topology.AppStatus) verdict { return applied(resp.Versions, list) })
	if err != nil {
		return fmt.Errorf("apply: %w", err)
	}
	if !a.format.json() {
		fmt.Fprintf(a.out, "%s, after %s\n", everything(resp.Versions, in), time.Since(begun).Round(10*time.Millisecond))
	}
	return nil
}

// everything says what has come of what was declared.
func everything(versions map[string]string, in intent.Intents) string {
	jobs := 0
	for _, app := range in.Apps {
		is := "runs and is ready"
		switch app.Kind() {
		case intent.KindOnce:
			is = "is done"
			jobs++
		case intent.KindSchedule:
			is = "is scheduled"
			jobs++
		}
		if len(versions) == 1 {
			return fmt.Sprintf("%s %s %s", app.Name, versions[app.Name], is)
		}
	}
	if jobs > 0 {
		return fmt.Sprintf("all %d apps run and are ready, or are done or scheduled", len(versions))
	}
	return fmt.Sprintf("all %d apps run and are ready", len(versions))
}

// applied judges whether all apps run at the versions that were committed. The
// first that cannot come any more is a failure.
func applied(versions map[string]string, list []topology.AppStatus) verdict {
	byName := map[string]topology.AppStatus{}
	for _, st := range list {
		byName[st.App] = st
	}
	var missing []string
	var marks strings.Builder
	for _, app := range sortedKeys(versions) {
		st, ok := byName[app]
		if !ok {
			return verdict{fail: fmt.Errorf("%s was deleted meanwhile", app)}
		}
		v := appliedApp(versions[app], st)
		if v.fail != nil {
			return v
		}
		if !v.done {
			missing = append(missing, v.wait)
			marks.WriteString(app + v.mark)
		}
	}
	return verdict{done: len(missing) == 0, wait: strings.Join(missing, "\n"), mark: marks.String()}
}

func appliedApp(version string, st topology.AppStatus) verdict {
	switch {
	case st.Version != version:
		return notApplied(version, st)
	case st.State == topology.AppSteady, st.Kind == intent.KindSchedule && scheduled(st):
		return verdict{done: true}
	case st.Kind == intent.KindOnce && st.State == topology.AppDegraded:
		return verdict{fail: fmt.Errorf("%s has failed: %s; mend it and apply again", st.App, oneLine(st.Why))}
	case st.State == topology.AppHeld:
		return verdict{fail: fmt.Errorf("%s is held: %s; mend it and apply again", st.App, heldWhy(st))}
	case st.State == topology.AppStopped:
		return verdict{fail: fmt.Errorf("%s is stopped: it was declared, but runs only after ganglion start %s", st.App, st.App)}
	}
	if !st.Rollout.Trial() { // else a copy that fails is for the rollout to judge
		for _, cp := range st.Copies {
			if cp.State == topology.CopyFailed && cp.Version == version {
				return verdict{fail: fmt.Errorf("%s cannot run: %s", st.App, copyLine(cp))}
			}
		}
	}
	return verdict{wait: unwell(st), mark: progressOf(version, st)}
}

// notApplied judges an app that has another version than the one applied: it
// was rolled back, or somebody else changed it.
func notApplied(version string, st topology.AppStatus) verdict {
	r := st.Rollout
	switch {
	case r.Failed != version:
		return verdict{fail: fmt.Errorf("%s was changed by another apply meanwhile: it is now version %s, not %s", st.App, st.Version, version)}
	case r.Outcome == "":
		return verdict{wait: unwell(st), mark: progressOf(st.Version, st)}
	case r.Outcome == topology.OutcomeRolledBack:
		return verdict{fail: fmt.Errorf("%s was rolled back to version %s, which runs and is ready: %s", st.App, st.Version, oneLine(r.Reason))}
	}
	return verdict{fail: fmt.Errorf("%s goes back to version %s, and that does not work either: %s", st.App, st.Version, heldWhy(st))}
}

// progressOf tells two looks at a rollout apart if it went on between them.
func progressOf(version string, st topology.AppStatus) string {
	updated, ready := 0, 0
	for _, cp := range st.Copies {
		if cp.Version == version {
			updated++
			if cp.Ready {
				ready++
			}
		}
	}
	return fmt.Sprint(st.Version, st.Rollout.Phase, len(st.Copies), updated, ready)
}

// scheduled tells whether a schedule has been taken up. How its runs end is no
// matter of its declaration.
func scheduled(st topology.AppStatus) bool {
	return st.State != topology.AppPending && st.State != topology.AppStopped
}

// heldWhy is why a rollout was halted, with the copy it was halted for.
func heldWhy(st topology.AppStatus) string {
	if st.Why != "" {
		return oneLine(st.Why)
	}
	return unwell(st)
}

// printChanges shows a diff for people.
func (c *cli) printChanges(changes []intent.Change) {
	if len(changes) == 0 {
		fmt.Fprintln(c.out, "nothing to change")
		return
	}
	sign := map[string]struct{ mark, colour string }{intent.OpAdd: {"+", green}, intent.OpChange: {"~", yellow}, intent.OpRemove: {"-", red}}
	for _, ch := range changes {
		s := sign[ch.Op]
		fmt.Fprintf(c.out, "%s %s %s\n", c.colour(c.outTerm, s.colour, s.mark), ch.Kind, c.colour(c.outTerm, bold, ch.Name))
		width := 0
		for _, f := range ch.Fields {
			width = max(width, len(f.Path))
		}
		for _, f := range ch.Fields {
			if f.From == nil {
				fmt.Fprintf(c.out, "    %-*s  %s\n", width, f.Path, valueText(f.To))
				continue
			}
			fmt.Fprintf(c.out, "    %-*s  %s -> %s\n", width, f.Path, valueText(f.From), valueText(f.To))
		}
	}
}

// printStaged tells of reflexes that are not in force everywhere at once.
func (c *cli) printStaged(rules []string, verb, calm string) {
	for _, rule := range rules {
		after := ""
		if calm != "" {
			after = ", each after " + calm + " of calm"
		}
		fmt.Fprintf(c.out, "reflex %s %s staged: in force on one host first, then on its zone, then on all%s (ganglion reflex list)\n", rule, verb, after)
	}
}

func valueText(v any) string {
	if v == nil {
		return "(none)"
	}
	var out strings.Builder
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return fmt.Sprint(v)
	}
	return strings.TrimSuffix(out.String(), "\n")
}
