package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/workload/signature"
)

// errChanges ends a plan that found changes. It prints nothing.
var errChanges = errors.New("")

func (c *cli) planCommand() *cobra.Command {
	var req api.ApplyRequest
	var from string
	cmd := &cobra.Command{
		Use: "plan [PATH]", Short: "Show what apply, or the loss or drain of hosts, would change",
		Long: `Shows as a diff what apply PATH would change, and with --lose and --drain what
would move if those hosts were lost or drained, what could not be placed and
why, what would be down, and what would be left on each host. With PATH too, all
of it is supposed at once. Nothing is changed.

The mesh is rehearsed on paper until it comes to rest, by the same decisions that
the leader makes: hosts that are up do what they are told, new copies are well.
With --from FILE it is the mesh that snapshot save wrote down, and no agent is
needed.

Where signatures of packages are required, it looks for those that apply would
bring, and says which packages would be refused.

Exit code: 0 nothing would change, 2 something would, 1 error, or apply would be
refused.`,
		Args: args(cobra.MaximumNArgs(1)),
	}
	cmd.Flags().StringArrayVar(&req.Lose, "lose", nil, "as if this host were lost (repeatable)")
	cmd.Flags().StringArrayVar(&req.Drain, "drain", nil, "as if this host were drained (repeatable)")
	cmd.Flags().StringVar(&req.Set, "set", "", "as for apply")
	cmd.Flags().BoolVar(&req.Prune, "prune", false, "as for apply")
	cmd.Flags().StringVar(&from, "from", "", "plan for the mesh in this file of snapshot save, with no agent")
	f := formatFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		preview, err := c.plan(cmd.Context(), req, args, from)
		if err != nil {
			return err
		}
		if f.json() {
			err = c.printJSON(preview)
		} else {
			c.printPreview(preview, len(req.Lose)+len(req.Drain) > 0, f.wide())
		}
		switch {
		case err != nil:
		case len(preview.Refused) > 0:
			err = refusedError(preview.Refused)
		case changes(preview, req):
			err = &exitError{exitChanges, errChanges}
		}
		return err
	}
	return cmd
}

// changes tells whether what was asked about would change anything.
func changes(p topology.Preview, req api.ApplyRequest) bool {
	if len(p.Changes)+len(p.Moves) > 0 {
		return true
	}
	hosts := len(req.Lose)+len(req.Drain) > 0
	return hosts && (len(p.Unplaced)+len(p.Placed)+len(p.Ended)+len(p.Down) > 0 || p.IfRemoved != nil || p.Held != "")
}

// plan asks the leader for a preview, or finds it itself in a snapshot.
func (c *cli) plan(ctx context.Context, req api.ApplyRequest, args []string, from string) (topology.Preview, error) {
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
	bag := &baggage{}
	if len(args) == 1 {
		var err error
		if req.Intents, err = c.readIntents(ctx, args[0]); err != nil {
			return preview, err
		}
		if bag, err = c.pack(ctx, &req.Intents, args[0]); err != nil { // for the digests and the signatures
			return preview, err
		}
		defer bag.close()
	}
	var err error
	var keys []signature.Key
	if from != "" {
		preview, keys, err = c.planFrom(from, req)
	} else if err = c.post(ctx, "/v1/plan", req, &preview); err == nil && len(preview.Refused) > 0 {
		keys, err = c.keysOfMesh(ctx)
	}
	if err == nil && len(preview.Refused) > 0 {
		preview.Refused, err = bag.wouldBring(ctx, preview.Refused, keys, from == "")
	}
	// An agent of another release may leave out what this one knows.
	full(&preview.Changes)
	full(&preview.Moves)
	full(&preview.Unplaced)
	full(&preview.Placed)
	full(&preview.Ended)
	full(&preview.Down)
	full(&preview.Capacity)
	return preview, err
}

// planFrom does what the leader would do, for the mesh in a file. It also returns
// the keys whose signatures count there.
func (c *cli) planFrom(path string, req api.ApplyRequest) (topology.Preview, []signature.Key, error) {
	in, err := api.CheckIntents(req.Intents)
	if err != nil {
		return topology.Preview{}, nil, err
	}
	b, err := c.readBackup(path)
	if err != nil {
		return topology.Preview{}, nil, err
	}
	what := topology.WhatIf{Lose: req.Lose, Drain: req.Drain, Voters: b.Voters}
	if len(in.Apps) > 0 || req.Prune {
		what.Put = &topology.PutIntents{Intents: in, Set: req.Set, Prune: req.Prune}
	}
	p := topology.Plan(b.State, b.Seen, what)
	if p.Err != nil {
		return p, nil, fmt.Errorf("plan from %s: %w", path, p.Err)
	}
	fmt.Fprintf(c.errs, "as of %s\n", describeBackup(path, b))
	var lines []string
	for _, k := range b.State.Signing().Keys {
		lines = append(lines, k.Key)
	}
	return p, trustedKeys(lines), nil
}

// full makes a list that is absent an empty one: scripts want no null.
func full[T any](list *[]T) {
	if *list == nil {
		*list = []T{}
	}
}
