package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
)

func (c *cli) meshSetCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "set KEY=VALUE", Short: "Change a setting of the mesh: rebalance, reflex_stage", Args: args(cobra.ExactArgs(1)),
		Long: `Change a setting of the mesh.

rebalance=10/10m   after a host has joined or come back, move copies that are well
                   onto it, for an even spread alone: one at a time, at most 10 in
                   any 10 minutes, each begun on its new host before the old one
                   stops. on stands for ` + topology.DefaultRebalance().String() + `; off is the default.

reflex_stage=2m    a new or changed reflex that reaches beyond the copies of its host
                   is in force on one host first, then on those of its zone, then on
                   all, each after so long a calm; off: on all at once. on is the
                   default, ` + topology.ReflexStage{}.String() + `.`,
	}
	f := formatFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		req, err := meshSetting(args[0])
		if err != nil {
			return err
		}
		var set api.MeshSet
		if err := c.post(cmd.Context(), "/v1/mesh", req, &set); err != nil {
			return err
		}
		if f.json() {
			return c.printJSON(set)
		}
		if set.Rebalance != "" {
			fmt.Fprintln(c.out, "rebalance="+set.Rebalance)
		}
		if set.ReflexStage != "" {
			fmt.Fprintln(c.out, "reflex_stage="+set.ReflexStage)
		}
		return nil
	}
	return cmd
}

// meshSetting reads KEY=VALUE, so that what is misspelt is found before anything
// is asked of an agent.
func meshSetting(arg string) (req api.MeshSettings, err error) {
	key, value, ok := strings.Cut(arg, "=")
	if !ok {
		return req, usagef("mesh set %s: want KEY=VALUE, such as rebalance=%s", arg, topology.DefaultRebalance())
	}
	switch key {
	case "rebalance":
		_, err = topology.ParseRebalance(value)
		req.Rebalance = value
	case "reflex_stage":
		_, err = topology.ParseReflexStage(value)
		req.ReflexStage = value
	default:
		return req, usagef("mesh set %s: there is no setting %q; there is rebalance, and reflex_stage", arg, key)
	}
	if err != nil {
		return req, usagef("mesh %w", err)
	}
	return req, nil
}

// rebalanceLine tells what the setting does at the moment.
func rebalanceLine(m api.Mesh) string {
	if m.Balance == "" {
		return "Rebalance " + m.Rebalance + ": nothing to move"
	}
	return "Rebalance " + m.Rebalance + ": " + oneLine(m.Balance)
}
