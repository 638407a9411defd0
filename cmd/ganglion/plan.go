package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/intent"
)

// errChanges ends a plan that found changes. It prints nothing.
var errChanges = errors.New("")

func (c *cli) planCommand() *cobra.Command {
	var req api.ApplyRequest
	cmd := &cobra.Command{
		Use: "plan [PATH]", Short: "Show what apply, or the loss or drain of hosts, would change",
		Long: `Shows as a diff what apply PATH would change, and with --lose and --drain what
would move if those hosts were lost or drained, and what could not be placed.

Exit code: 0 nothing would change, 2 something would, 1 error.`,
		Args: args(cobra.MaximumNArgs(1)),
	}
	cmd.Flags().StringArrayVar(&req.Lose, "lose", nil, "as if this host were lost (repeatable)")
	cmd.Flags().StringArrayVar(&req.Drain, "drain", nil, "as if this host were drained (repeatable)")
	cmd.Flags().StringVar(&req.Set, "set", "", "as for apply")
	cmd.Flags().BoolVar(&req.Prune, "prune", false, "as for apply")
	f := formatFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		preview, err := c.plan(cmd.Context(), req, args)
		if err != nil {
			return err
		}
		if f.json() {
			err = c.printJSON(preview)
		} else {
			c.printPreview(preview)
		}
		hosts := len(req.Lose)+len(req.Drain) > 0
		if err == nil && (len(preview.Changes)+len(preview.Moves) > 0 || hosts && len(preview.Unplaced) > 0) {
			err = &exitError{exitChanges, errChanges}
		}
		return err
	}
	return cmd
}

// plan asks the leader for a preview.
func (c *cli) plan(ctx context.Context, req api.ApplyRequest, args []string) (topology.Preview, error) {
	preview := topology.Preview{}
	if len(args) == 0 && len(req.Lose)+len(req.Drain) == 0 {
		return preview, usagef("plan: name what to plan: PATH, --lose HOST or --drain HOST")
	}
	if err := checkSet("plan", req.Set, req.Prune); err != nil {
		return preview, err
	}
	for _, host := range append(append([]string{}, req.Lose...), req.Drain...) {
		if err := checkName("plan", host); err != nil {
			return preview, err
		}
	}
	if len(args) == 1 {
		var err error
		if req.Intents, err = c.readIntents(ctx, args[0]); err != nil {
			return preview, err
		}
	}
	err := c.post(ctx, "/v1/plan", req, &preview)
	if preview.Changes == nil {
		preview.Changes = []intent.Change{}
	}
	if preview.Moves == nil {
		preview.Moves = []topology.Move{}
	}
	if preview.Unplaced == nil {
		preview.Unplaced = []topology.Unplaced{}
	}
	return preview, err
}

func (c *cli) printPreview(p topology.Preview) {
	if len(p.Changes) > 0 || len(p.Moves)+len(p.Unplaced) == 0 {
		c.printChanges(p.Changes)
	}
	if len(p.Moves) > 0 {
		t := newTable("MOVES", "FROM", "TO", "WHY")
		for _, m := range p.Moves {
			t.row(m.Copy.String(), m.From, m.To, oneLine(m.Reason))
		}
		c.printTable(t)
	}
	if len(p.Unplaced) > 0 {
		t := newTable("NO PLACE FOR", "WHY")
		for _, u := range p.Unplaced {
			t.row(u.Copy.String(), oneLine(u.Reason))
		}
		c.printTable(t)
	}
	if p.Held != "" {
		fmt.Fprintln(c.out, "held: "+oneLine(p.Held))
	}
}
