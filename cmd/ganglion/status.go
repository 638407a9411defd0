package main

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/pause"
)

// statusView is one status command.
type statusView struct {
	*cli
	app    string
	follow bool
	local  bool
	format *format
	client *api.Client
}

func (c *cli) statusCommand() *cobra.Command {
	v := &statusView{cli: c}
	cmd := &cobra.Command{Use: "status [APP] [-f]", Short: "Show apps and their copies: where, since when, why not if not", Args: args(cobra.MaximumNArgs(1))}
	cmd.Flags().BoolVarP(&v.follow, "follow", "f", false, "go on with each change")
	cmd.Flags().BoolVar(&v.local, "local", false, "only what this host runs, with no leader")
	v.format = formatFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 1 {
			if err := checkName("status", args[0]); err != nil {
				return err
			}
			v.app = args[0]
		}
		var err error
		if v.client, err = c.dial(); err != nil {
			return err
		}
		defer v.client.CloseIdle()
		if v.follow {
			return v.run(cmd.Context())
		}
		list, err := v.read(cmd.Context(), &watch{client: v.client, app: v.app})
		if err != nil {
			return err
		}
		return v.show(list)
	}
	return cmd
}

// read reads the status once, from this host alone if that was asked for.
func (v *statusView) read(ctx context.Context, w *watch) ([]topology.AppStatus, error) {
	if !v.local {
		return w.next(ctx)
	}
	query := url.Values{}
	if v.app != "" {
		query.Set("app", v.app)
	}
	list := []topology.AppStatus{}
	if err := v.client.Get(ctx, "/v1/local/status", query, &list); err != nil {
		return nil, err
	}
	if v.app != "" && len(list) == 0 {
		return nil, api.Errorf(api.CodeNotFound, "status %s: no copy of it is on this host", v.app)
	}
	return list, nil
}

// show prints one answer.
func (v *statusView) show(list []topology.AppStatus) error {
	for i := range list {
		list[i] = complete(list[i])
	}
	switch {
	case v.format.json() && v.app != "":
		return v.printJSON(list[0])
	case v.format.json():
		return v.printJSON(list)
	case v.app != "":
		v.printApp(list[0])
	case len(list) == 0:
		fmt.Fprintln(v.errs, "No app is declared; try ganglion apply.")
	default:
		v.printApps(list)
	}
	return nil
}

// complete makes absent lists empty ones, as scripts rely on.
func complete(st topology.AppStatus) topology.AppStatus {
	st.Copies = slices.Clone(st.Copies)
	if st.Copies == nil {
		st.Copies = []topology.CopyStatus{}
	}
	for i := range st.Copies {
		if st.Copies[i].Ports == nil {
			st.Copies[i].Ports = map[string]int{}
		}
	}
	return st
}

func (v *statusView) printApps(list []topology.AppStatus) {
	t := newTable("APP", "KIND", "VERSION", "STATE", "READY", "WHY")
	for _, st := range list {
		t.row(st.App, st.Kind, st.Version, string(st.State), fmt.Sprintf("%d/%d", st.Ready, st.Want), appWhy(st))
	}
	v.printTable(t)
	if frozen := frozenApps(list); frozen != "" {
		fmt.Fprintln(v.errs, v.colour(v.errTerm, dim, frozen))
	}
	if v.format.wide() {
		for _, st := range list {
			fmt.Fprintln(v.out)
			v.printTable(copyTable(st, true))
		}
	}
}

// frozenApps says that no automatic action is taken; empty if it is.
func frozenApps(list []topology.AppStatus) string {
	var apps []string
	for _, st := range list {
		if st.Frozen {
			apps = append(apps, st.App)
		}
	}
	switch len(apps) {
	case 0:
		return ""
	case len(list):
		return "Frozen: no automatic action is taken; ganglion thaw ends it (see ganglion mesh)."
	}
	return "Frozen: no automatic action is taken on " + strings.Join(apps, ", ") + "; ganglion thaw ends it (see ganglion mesh)."
}

// appWhy is why an app is not steady: of a halted change its reason, else that
// of the first copy that is not ready.
func appWhy(st topology.AppStatus) string {
	switch st.State {
	case topology.AppSteady: // of a job: how its last run ended, and when the next is due
		return oneLine(st.Why)
	case topology.AppStopped:
		return ""
	case topology.AppHeld:
		return oneLine(st.Why)
	}
	for _, cp := range st.Copies {
		if !cp.Ready && cp.Why != "" {
			return oneLine(cp.ID + ": " + cp.Why)
		}
	}
	return oneLine(st.Why)
}

func (v *statusView) printApp(st topology.AppStatus) {
	paint := v.painter(v.outTerm)
	line := fmt.Sprintf("%s  %s  version %s  %s  %d/%d ready", v.colour(v.outTerm, bold, st.App), st.Kind, orDash(st.Version), paint(string(st.State)), st.Ready, st.Want)
	if st.Frozen {
		line += "  frozen"
	}
	if st.Why != "" {
		line += "  " + oneLine(st.Why)
	}
	fmt.Fprintln(v.out, line)
	if len(st.Copies) > 0 {
		v.printTable(copyTable(st, v.format.wide()))
	}
}

func copyTable(st topology.AppStatus, wide bool) *table {
	t := newTable("COPY", "HOST", "STATE", "READY", "SINCE", "PID", "RESTARTS", "PORTS", "WHY")
	if wide {
		t.head = append(slices.Clone(t.head[:8]), "ADDR", "VERSION", "WHY")
	}
	now := time.Now()
	for _, cp := range st.Copies {
		ready, pid := "no", "-"
		if cp.Ready {
			ready = "yes"
		}
		if cp.Pid > 0 {
			pid = fmt.Sprint(cp.Pid)
		}
		state := string(cp.State)
		if cp.Role != "" {
			state += " (" + string(cp.Role) + ")"
		}
		cells := []string{cp.ID, orDash(cp.Host), state, ready, ago(cp.Since, now), pid, fmt.Sprint(cp.Restarts), portText(cp.Ports)}
		if wide {
			cells = append(cells, orDash(cp.Addr), orDash(cp.Version))
		}
		t.row(append(cells, oneLine(cp.Why))...)
	}
	return t
}

func portText(ports map[string]int) string {
	var out []string
	for name, port := range ports {
		out = append(out, fmt.Sprintf("%s=%d", name, port))
	}
	slices.Sort(out)
	return orDash(strings.Join(out, ","))
}

// run follows until it is interrupted: on a terminal the picture is drawn anew,
// elsewhere each app that changed is printed again.
func (v *statusView) run(ctx context.Context) error {
	w := &watch{client: v.client, app: v.app, patience: readPatience}
	seen := changed{}
	for {
		list, err := v.read(ctx, w)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		if err := v.step(list, seen); err != nil {
			return err
		}
		if (v.local || w.cursor == "") && !pause.For(ctx, time.Second) {
			return nil
		}
	}
}

func (v *statusView) step(list []topology.AppStatus, seen changed) error {
	var news []topology.AppStatus
	gone := map[string]bool{}
	for app := range seen {
		gone[app] = true
	}
	for _, st := range list {
		delete(gone, st.App)
		if st = complete(st); seen.note(st.App, st) {
			news = append(news, st)
		}
	}
	for app := range gone {
		delete(seen, app)
	}
	switch {
	case v.format.json():
		for _, st := range news {
			if err := v.printLine(st); err != nil {
				return err
			}
		}
	case v.outTerm && (len(news) > 0 || len(gone) > 0):
		fmt.Fprint(v.out, "\x1b[H\x1b[2J")
		return v.show(list)
	case len(news) > 0 && v.app != "":
		v.printApp(news[0])
	default:
		for _, st := range news {
			fmt.Fprintln(v.out, strings.TrimSpace(fmt.Sprintf("%s  %s  %d/%d ready  %s", st.App, st.State, st.Ready, st.Want, appWhy(st))))
		}
	}
	return nil
}

func (c *cli) endpointsCommand() *cobra.Command {
	var follow bool
	cmd := &cobra.Command{Use: "endpoints APP [-f]", Short: "List host:port of the ready copies", Args: args(cobra.ExactArgs(1))}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with each change")
	f := formatFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := checkName("endpoints", args[0]); err != nil {
			return err
		}
		client, err := c.dial()
		if err != nil {
			return err
		}
		defer client.CloseIdle()
		if follow {
			return c.followEndpoints(cmd.Context(), client, args[0], f)
		}
		list, err := readEndpoints(cmd.Context(), client, args[0])
		if err != nil {
			return err
		}
		if f.json() {
			return c.printJSON(list)
		}
		c.printEndpoints(list)
		return nil
	}
	return cmd
}

func readEndpoints(ctx context.Context, client *api.Client, app string) ([]api.Endpoint, error) {
	list := []api.Endpoint{}
	err := client.Get(ctx, "/v1/endpoints/"+url.PathEscape(app), nil, &list)
	return list, err
}

func (c *cli) printEndpoints(list []api.Endpoint) {
	t := newTable("COPY", "HOST", "PORT", "ENDPOINT")
	for _, e := range list {
		names := make([]string, 0, len(e.Ports))
		for name := range e.Ports {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			t.row(e.Copy, e.Host, name, hostPort(e.Addr, e.Ports[name]))
		}
		if len(names) == 0 {
			t.row(e.Copy, e.Host, "-", e.Addr)
		}
	}
	c.printTable(t)
}

// followEndpoints prints the endpoints again whenever they differ.
func (c *cli) followEndpoints(ctx context.Context, client *api.Client, app string, f *format) error {
	w := &watch{client: client, app: app, patience: readPatience}
	seen := changed{}
	for {
		_, err := w.next(ctx)
		var list []api.Endpoint
		if err == nil {
			list, err = readEndpoints(ctx, client, app)
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && !passing(err):
			return err
		case err != nil:
			pause.For(ctx, retryPause)
			continue
		}
		if !seen.note(app, list) {
			continue
		}
		if f.json() {
			if err := c.printLine(list); err != nil {
				return err
			}
			continue
		}
		c.printEndpoints(list)
	}
}
