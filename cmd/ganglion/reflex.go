package main

import (
	"context"
	"fmt"
	"net/url"
	"path"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/events"
	"github.com/ganglion-mesh/ganglion/intent"
)

func (c *cli) reflexCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "reflex", Short: "Rules that hosts run by themselves: list, show, vars, history, test",
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			return usagef("%s", unknownCommand(cmd, args[0]))
		},
	}
	cmd.AddCommand(c.reflexListCommand(), c.reflexShowCommand(), c.reflexVarsCommand(), c.reflexHistoryCommand(), c.reflexTestCommand())
	return cmd
}

func (c *cli) reflexListCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Short: "All reflexes that are declared",
		Long: `Lists the reflexes of the mesh, those of apps among them. With --local those
that this host has, and how they stand here; no leader is needed.`,
		Args: args(cobra.NoArgs),
	}
	var local bool
	cmd.Flags().BoolVar(&local, "local", false, "those of this host, asked from nobody else")
	f := formatFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if local {
			return c.listLocalReflexes(cmd.Context(), f)
		}
		var list []api.Reflex
		if err := c.read(cmd.Context(), "/v1/reflexes", nil, &list); err != nil {
			return err
		}
		if f.json() {
			return c.printJSON(list)
		}
		t := newTable("NAME", "APP", "MODE", "SCOPE", "WHEN", "ACT", "LIMIT", "STAGE")
		for _, r := range list {
			t.row(r.Name, orDash(r.App), r.Mode, r.Scope, cutTo(r.When, 60, f.wide()), cutTo(strings.Join(r.Act, ", "), 40, f.wide()), orDash(r.Limit), cutTo(orDash(oneLine(r.Stage)), 50, f.wide()))
		}
		c.printTable(t)
		return nil
	}
	return cmd
}

// read asks the agent for one answer.
func (c *cli) read(ctx context.Context, path string, query url.Values, v any) error {
	client, err := c.dial()
	if err != nil {
		return err
	}
	defer client.CloseIdle()
	return client.Get(ctx, path, query, v)
}

func (c *cli) listLocalReflexes(ctx context.Context, f *format) error {
	var list []api.LocalReflex
	if err := c.read(ctx, "/v1/local/reflexes", nil, &list); err != nil {
		return err
	}
	if f.json() {
		return c.printJSON(list)
	}
	t := newTable("NAME", "APP", "MODE", "TARGET", "STATE", "CONDITION", "NEXT", "WHY")
	for _, r := range list {
		if len(r.Targets) == 0 {
			t.row(r.Name, orDash(r.App), r.Mode, "-", "-", "-", "-", orElse(oneLine(r.Error), "nothing of "+r.Scope+" is here"))
		}
		for _, x := range r.Targets {
			t.row(r.Name, orDash(r.App), r.Mode, orDash(x.Target), x.State, x.Truth, x.Next, cutTo(oneLine(x.Why), 60, f.wide()))
		}
	}
	c.printTable(t)
	return nil
}

func orElse(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// cutTo cuts a cell that is too long, unless everything is to be shown.
func cutTo(s string, most int, whole bool) string {
	if r := []rune(s); !whole && len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return s
}

func (c *cli) reflexShowCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "show NAME", Short: "A reflex, and how it stands on this host with all that it is about",
		Long: `Shows what was declared, and for each target on this host the state of the
rule, the values that it reads and why it does not act. NAME is that of a reflex
or APP/NAME. No leader is needed.`,
		Args: args(cobra.ExactArgs(1)),
	}
	f := formatFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var list []api.LocalReflex
		if err := c.read(cmd.Context(), "/v1/local/reflexes", url.Values{"name": {args[0]}}, &list); err != nil {
			return err
		}
		if f.json() {
			return c.printJSON(list)
		}
		for i, r := range list {
			if i > 0 {
				fmt.Fprintln(c.out)
			}
			c.showReflex(r)
		}
		return nil
	}
	return cmd
}

func (c *cli) showReflex(r api.LocalReflex) {
	d := r.Declared
	fmt.Fprintln(c.out, c.colour(c.outTerm, bold, api.RuleName(r.Name, r.App)))
	for _, line := range [][2]string{
		{"when", d.When}, {"for", spanText(d.For)}, {"clear", d.Clear}, {"clear_for", spanText(d.ClearFor)}, {"max_age", spanText(d.MaxAge)},
		{"act", strings.Join(r.Act, ", ")}, {"cooldown", spanText(d.Cooldown)}, {"limit", r.Limit}, {"scope", r.Scope}, {"mode", r.Mode}, {"class", r.Class},
		{"stage", oneLine(r.Stage)}, {"error", oneLine(r.Error)},
	} {
		if line[1] != "" {
			fmt.Fprintf(c.out, "  %-9s  %s\n", line[0], line[1])
		}
	}
	for _, x := range r.Targets {
		fmt.Fprintf(c.out, "  %s: %s for %s; the condition is %s", x.Target, x.State, millis(x.ForMS), x.Truth)
		if x.Why != "" {
			fmt.Fprintf(c.out, "; %s", oneLine(x.Why))
		}
		if x.RetryMS > 0 {
			fmt.Fprintf(c.out, "; tried again in %s", millis(x.RetryMS))
		}
		fmt.Fprintln(c.out)
		for _, line := range x.Holds {
			fmt.Fprintf(c.out, "    %s\n", line)
		}
		for _, v := range x.Facts {
			fmt.Fprintf(c.out, "    %s = %s, %s ago\n", v.Var, v.Value, millis(v.AgeMS))
		}
	}
	if len(r.Targets) == 0 && r.Error == "" {
		fmt.Fprintf(c.out, "  nothing of %s is on this host\n", r.Scope)
	}
}

func spanText(d intent.Duration) string {
	if d == 0 {
		return ""
	}
	return d.String()
}

func millis(ms int64) string { return (time.Duration(ms) * time.Millisecond).String() }

func (c *cli) reflexVarsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "vars [PATTERN]", Short: "The variables of conditions, with their values on this host now",
		Long: `Lists what conditions can read, and what this host senses now. PATTERN is a name
in which * stands for anything: host.memory.*. No leader is needed. What no rule
reads is sensed for the asking, which takes a second.`,
		Args: args(cobra.MaximumNArgs(1)),
	}
	f := formatFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		pattern := "*"
		if len(args) == 1 {
			pattern = args[0]
		}
		if _, err := path.Match(pattern, ""); err != nil {
			return usagef("reflex vars %s: want a name in which * stands for anything", pattern)
		}
		var list, shown []api.ReflexVar
		if err := c.read(cmd.Context(), "/v1/local/reflexes/vars", nil, &list); err != nil {
			return err
		}
		for _, v := range list {
			if ok, _ := path.Match(pattern, v.Name); ok {
				shown = append(shown, v)
			}
		}
		if len(shown) == 0 {
			return fmt.Errorf("reflex vars %s: no variable has such a name; see ganglion reflex vars", pattern)
		}
		if f.json() {
			return c.printJSON(shown)
		}
		c.printVars(shown, f.wide())
		return nil
	}
	return cmd
}

func (c *cli) printVars(list []api.ReflexVar, wide bool) {
	head := []string{"VARIABLE", "TYPE", "KIND", "TARGET", "VALUE", "AGE"}
	if wide {
		head = append(head, "FROM", "MEANING")
	}
	t := newTable(head...)
	for _, v := range list {
		values := v.Values
		if len(values) == 0 {
			values = []api.ReflexFact{{Target: v.Scope + ":-", AgeMS: -1}}
		}
		for _, x := range values {
			value, age := "-", "-"
			if x.AgeMS >= 0 {
				value, age = x.Value.String(), millis(x.AgeMS)
			}
			row := []string{v.Name, v.Type, v.Kind, x.Target, value, age}
			if wide {
				row = append(row, v.Source, v.Doc)
			}
			t.row(row...)
		}
	}
	c.printTable(t)
}

func (c *cli) reflexHistoryCommand() *cobra.Command {
	var follow bool
	var since time.Duration
	cmd := &cobra.Command{
		Use: "history [NAME]", Short: "What reflexes did and did not do, on all hosts, with the reasons",
		Long: `Prints the events of a reflex, or of all, from the recorders of the hosts: what
fired and how it ended, what a rule that only observes would have done, what was
held back and why, and what is over.`,
		Args: args(cobra.MaximumNArgs(1)),
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what happens")
	cmd.Flags().DurationVar(&since, "since", 0, "how far back, such as 10m (default: everything, with -f nothing)")
	f := formatFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		filter := "reflex.>"
		if len(args) == 1 {
			name, _ := api.SplitRule(args[0])
			if err := checkName("reflex history", name); err != nil {
				return err
			}
			filter = "reflex." + name + ".>"
		}
		if _, err := events.CompileFilter(filter); err != nil {
			return usagef("reflex history: %w", err)
		}
		query, err := eventQuery(follow, since, []string{filter})
		if err != nil {
			return err
		}
		return c.streamEvents(cmd.Context(), query, f)
	}
	return cmd
}

// deleteRule removes a reflex that is declared outside of apps, or a sense.
func (c *cli) deleteRule(ctx context.Context, kind, path, name string, yes bool) error {
	if err := checkName("delete "+kind, name); err != nil {
		return err
	}
	if err := c.confirm(yes, "delete "+kind+"/"+name, fmt.Sprintf("Remove the %s %s from all hosts?", kind, name)); err != nil {
		return err
	}
	client, err := c.dial()
	if err != nil {
		return err
	}
	defer client.CloseIdle()
	if err := client.Delete(ctx, path+name, nil); err != nil {
		return err
	}
	fmt.Fprintf(c.out, "%s/%s: deleted\n", kind, name)
	return nil
}
