package main

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/intent"
)

// target is APP or APP/COPY, as typed.
type target struct {
	app  string
	copy string // its number, empty: all copies
}

func parseTarget(what, s string) (target, error) {
	app, n, one := strings.Cut(s, "/")
	t := target{app: app, copy: n}
	if err := checkName(what, app); err != nil {
		return t, err
	}
	if one {
		if v, err := strconv.ParseUint(n, 10, 31); err != nil || strconv.FormatUint(v, 10) != n {
			return t, usagef("%s: copy %q: want a number, as in %s/0", what, n, app)
		}
	}
	return t, nil
}

func (t target) String() string {
	if t.copy == "" {
		return t.app
	}
	return t.app + "/" + t.copy
}

func (t target) query() url.Values {
	q := url.Values{}
	if t.copy != "" {
		q.Set("copy", t.copy)
	}
	return q
}

// acting is one stop, start or restart command.
type acting struct {
	*cli
	verb    string
	local   bool
	detach  bool
	timeout time.Duration
}

func (c *cli) actCommand(verb string) *cobra.Command {
	a := &acting{cli: c, verb: verb}
	short := map[string]string{
		"stop": "Stop an app or a copy; it stays declared", "start": "Start what was stopped", "restart": "Restart an app by its update rule, or a copy",
	}[verb]
	cmd := &cobra.Command{Use: verb + " APP[/COPY]", Short: short, Args: args(cobra.ExactArgs(1))}
	cmd.Flags().BoolVar(&a.local, "local", false, "only the copies on this host, through its own agent, with no leader")
	cmd.Flags().BoolVar(&a.detach, "detach", false, "return when it is committed")
	cmd.Flags().DurationVar(&a.timeout, "timeout", 2*time.Minute, "how long to wait")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		t, err := parseTarget(verb, args[0])
		if err != nil {
			return err
		}
		return a.run(cmd.Context(), t)
	}
	return cmd
}

func (a *acting) run(ctx context.Context, t target) error {
	client, err := a.dial()
	if err != nil {
		return err
	}
	defer client.CloseIdle()
	if a.local {
		var v api.Version
		if err := client.Post(ctx, "/v1/local/apps/"+t.app+"/"+a.verb, t.query(), nil, &v); err != nil {
			return err
		}
		fmt.Fprintf(a.out, "%s: %s on host %s\n", t, a.done(), v.Host)
		return nil
	}
	if err := client.Post(ctx, "/v1/apps/"+t.app+"/"+a.verb, t.query(), nil, nil); err != nil {
		return err
	}
	if !a.detach {
		w := &watch{client: client, app: t.app, patience: readPatience}
		err := a.await(ctx, w, a.timeout, func(list []topology.AppStatus) verdict { return a.judge(t, list) })
		if err != nil {
			return fmt.Errorf("%s %s: %w", a.verb, t, err)
		}
	}
	fmt.Fprintf(a.out, "%s: %s\n", t, a.done())
	return nil
}

func (a *acting) done() string {
	return map[string]string{"stop": "stopped", "start": "started", "restart": "restarted"}[a.verb]
}

// judge tells whether what was asked for has happened.
func (a *acting) judge(t target, list []topology.AppStatus) verdict {
	if len(list) == 0 {
		return verdict{fail: fmt.Errorf("%s was deleted meanwhile", t.app)}
	}
	st := list[0]
	if st.State == topology.AppHeld && a.verb != "stop" {
		return verdict{fail: fmt.Errorf("%s is held: %s", t.app, heldWhy(st))}
	}
	if a.verb != "stop" && (st.Kind == intent.KindOnce || st.Kind == intent.KindSchedule) {
		return a.judgeJob(st)
	}
	if t.copy == "" && a.verb != "stop" {
		return verdict{done: st.State == topology.AppSteady, wait: unwell(st)}
	}
	for _, cp := range st.Copies {
		if t.copy != "" && cp.ID != t.String() {
			continue
		}
		if a.verb == "stop" && !atRest(cp) || a.verb != "stop" && !cp.Ready {
			return verdict{wait: copyLine(cp)}
		}
	}
	if a.verb == "restart" && st.State == topology.AppRolling {
		return verdict{wait: unwell(st)}
	}
	return verdict{done: true}
}

// judgeJob tells whether a job that was started or restarted has come to its end,
// or a schedule has been taken up.
func (a *acting) judgeJob(st topology.AppStatus) verdict {
	switch {
	case st.Kind == intent.KindSchedule:
		return verdict{done: scheduled(st), wait: unwell(st)}
	case st.State == topology.AppDegraded:
		return verdict{fail: fmt.Errorf("%s has failed: %s", st.App, oneLine(st.Why))}
	}
	return verdict{done: st.State == topology.AppSteady, wait: unwell(st)}
}

// atRest tells whether nothing of a copy runs.
func atRest(cp topology.CopyStatus) bool {
	return cp.Pid == 0 && (cp.State == topology.CopyStopped || cp.State == topology.CopyPending)
}

func (c *cli) deleteCommand() *cobra.Command {
	var yes, detach bool
	var timeout time.Duration
	cmd := &cobra.Command{Use: "delete APP | reflex/NAME | sense/NAME", Short: "Remove an intent; its copies stop by their stop rule", Args: args(cobra.ExactArgs(1))}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	cmd.Flags().BoolVar(&detach, "detach", false, "return when it is committed")
	cmd.Flags().DurationVar(&timeout, "timeout", 5*time.Minute, "how long to wait until the copies are gone")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		app := args[0]
		if name, ok := strings.CutPrefix(app, "reflex/"); ok {
			return c.deleteRule(cmd.Context(), "reflex", "/v1/reflexes/", name, yes)
		}
		if name, ok := strings.CutPrefix(app, "sense/"); ok {
			return c.deleteRule(cmd.Context(), "sense", "/v1/senses/", name, yes)
		}
		if err := checkName("delete", app); err != nil {
			return err
		}
		if err := c.confirm(yes, "delete "+app, fmt.Sprintf("Stop all copies of %s and remove it and its state?", app)); err != nil {
			return err
		}
		return c.delete(cmd.Context(), app, detach, timeout)
	}
	return cmd
}

func (c *cli) delete(ctx context.Context, app string, detach bool, timeout time.Duration) error {
	client, err := c.dial()
	if err != nil {
		return err
	}
	defer client.CloseIdle()
	if err := client.Delete(ctx, "/v1/apps/"+app, nil); err != nil {
		return err
	}
	if !detach {
		lost, err := c.awaitGone(ctx, client, app, timeout)
		if err != nil {
			return fmt.Errorf("delete %s: %w", app, err)
		}
		for _, cp := range lost {
			fmt.Fprintf(c.errs, "%s was on %s, which is lost: it ends there if the host comes back\n", cp.ID, cp.Host)
		}
	}
	fmt.Fprintf(c.out, "%s: deleted\n", app)
	return nil
}

// awaitGone waits until a deleted app and all its copies have ended. Nobody can
// say what runs on a host that is lost: what was there is returned.
func (c *cli) awaitGone(ctx context.Context, client *api.Client, app string, timeout time.Duration) (lost []topology.CopyStatus, err error) {
	w := &watch{client: client, app: app, patience: readPatience}
	err = c.await(ctx, w, timeout, func(list []topology.AppStatus) verdict {
		lost = nil
		if len(list) == 0 {
			return verdict{done: true}
		}
		var hosts []api.Host
		if err := client.Get(ctx, "/v1/hosts", nil, &hosts); err != nil {
			return verdict{wait: err.Error()}
		}
		var v verdict
		v, lost = gone(list[0], hosts)
		return v
	})
	return lost, err
}

// gone judges whether all copies of a deleted app have ended, those on lost
// hosts aside.
func gone(st topology.AppStatus, hosts []api.Host) (v verdict, lost []topology.CopyStatus) {
	there := map[string]bool{}
	for _, h := range hosts {
		there[h.Name] = h.Status == "alive" || h.Status == "suspect"
	}
	for _, cp := range st.Copies {
		if there[cp.Host] {
			return verdict{wait: copyLine(cp)}, nil
		}
		lost = append(lost, cp)
	}
	return verdict{done: len(lost) > 0, wait: st.App + " is still there"}, lost
}

func (c *cli) drainCommand() *cobra.Command {
	var detach bool
	var timeout time.Duration
	cmd := &cobra.Command{Use: "drain HOST", Short: "Move everything off a host and place nothing on it", Args: args(cobra.ExactArgs(1))}
	cmd.Flags().BoolVar(&detach, "detach", false, "return when it is committed")
	cmd.Flags().DurationVar(&timeout, "timeout", 10*time.Minute, "how long to wait until the host is empty")
	cmd.Flags().DurationVar(&timeout, "deadline", 10*time.Minute, "the same as --timeout")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		host := args[0]
		if err := checkName("drain", host); err != nil {
			return err
		}
		if err := c.post(cmd.Context(), "/v1/hosts/"+host+"/drain", nil, nil); err != nil {
			return err
		}
		if detach {
			fmt.Fprintf(c.out, "%s: draining\n", host)
			return nil
		}
		if err := c.awaitDrained(cmd.Context(), host, timeout); err != nil {
			return fmt.Errorf("drain %s: %w; it goes on, unless the host is taken back (ganglion undrain %s)", host, err, host)
		}
		fmt.Fprintf(c.out, "%s: drained\n", host)
		return nil
	}
	return cmd
}

// awaitDrained follows the status of all apps, since it is their moves that
// empty the host, and looks at the host after each.
func (c *cli) awaitDrained(ctx context.Context, host string, timeout time.Duration) error {
	client, err := c.dial()
	if err != nil {
		return err
	}
	defer client.CloseIdle()
	w := &watch{client: client, patience: readPatience}
	return c.await(ctx, w, timeout, func(list []topology.AppStatus) verdict {
		var hosts []api.Host
		if err := client.Get(ctx, "/v1/hosts", nil, &hosts); err != nil {
			return verdict{wait: err.Error()}
		}
		for _, h := range hosts {
			if h.Name == host {
				return drainVerdict(h, list)
			}
		}
		return verdict{fail: fmt.Errorf("host %s is not in the mesh any more", host)}
	})
}

func drainVerdict(h api.Host, list []topology.AppStatus) verdict {
	switch h.Drain {
	case topology.DrainDrained:
		return verdict{done: true}
	case topology.DrainDraining:
	default:
		return verdict{fail: fmt.Errorf("the drain was ended by somebody else (ganglion undrain)")}
	}
	wait := fmt.Sprintf("%d copies are still on it", h.Copies)
	for _, st := range list {
		for _, cp := range st.Copies {
			if cp.Host == h.Name {
				return verdict{wait: wait + ": " + copyLine(cp)}
			}
		}
	}
	return verdict{wait: wait}
}

func (c *cli) undrainCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "undrain HOST", Short: "Take a drained host back", Args: args(cobra.ExactArgs(1))}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := checkName("undrain", args[0]); err != nil {
			return err
		}
		if err := c.post(cmd.Context(), "/v1/hosts/"+args[0]+"/undrain", nil, nil); err != nil {
			return err
		}
		fmt.Fprintf(c.out, "%s: takes copies again\n", args[0])
		return nil
	}
	return cmd
}

func hostPort(addr string, port int) string { return net.JoinHostPort(addr, strconv.Itoa(port)) }

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
