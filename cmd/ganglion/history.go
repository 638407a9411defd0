package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
)

func (c *cli) historyCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "history APP", Short: "Show the versions of an app and what came of them", Args: args(cobra.ExactArgs(1))}
	f := formatFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := checkName("history", args[0]); err != nil {
			return err
		}
		client, err := c.dial()
		if err != nil {
			return err
		}
		defer client.CloseIdle()
		var list []api.AppVersion
		if err := client.Get(cmd.Context(), "/v1/apps/"+args[0]+"/history", nil, &list); err != nil {
			return err
		}
		if f.json() {
			return c.printJSON(list)
		}
		c.printHistory(list)
		return nil
	}
	return cmd
}

func (c *cli) printHistory(list []api.AppVersion) {
	t := newTable("VERSION", "APPLIED", "OUTCOME", "WHY")
	for _, v := range list {
		applied, why := "-", oneLine(v.Why)
		if v.Applied != nil {
			applied = v.Applied.Local().Format(time.DateTime)
		}
		if v.Back && why == "" {
			why = "by a rollback"
		}
		version := v.Version
		if v.Current {
			version += " *"
		}
		t.row(version, applied, v.Outcome, why)
	}
	c.printTable(t)
}

// rollingBack is one rollback command.
type rollingBack struct {
	*cli
	to      string
	detach  bool
	timeout time.Duration
}

func (c *cli) rollbackCommand() *cobra.Command {
	b := &rollingBack{cli: c}
	cmd := &cobra.Command{
		Use: "rollback APP", Short: "Take an app back to an earlier version",
		Long: `Takes an app back to the last version that was proved, or with --to to another
one of its history. What a version embodies goes back: run, ports, resources
and checks. count, place, update and the like stay as they were last applied.`,
		Args: args(cobra.ExactArgs(1)),
	}
	cmd.Flags().StringVar(&b.to, "to", "", "a version of ganglion history APP")
	cmd.Flags().BoolVar(&b.detach, "detach", false, "return when it is committed")
	cmd.Flags().DurationVar(&b.timeout, "timeout", 2*time.Minute, "how long to wait without progress")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := checkName("rollback", args[0]); err != nil {
			return err
		}
		return b.run(cmd.Context(), args[0])
	}
	return cmd
}

func (b *rollingBack) run(ctx context.Context, app string) error {
	client, err := b.dial()
	if err != nil {
		return err
	}
	defer client.CloseIdle()
	var resp api.ApplyResponse
	if err := client.PostOnce(ctx, "/v1/apps/"+app+"/rollback", newKey(), api.RollbackRequest{To: b.to}, &resp); err != nil {
		return err
	}
	version := resp.Versions[app]
	if b.detach {
		fmt.Fprintf(b.out, "%s goes back to version %s\n", app, version)
		return nil
	}
	w := &watch{client: client, app: app, patience: readPatience, renews: true}
	err = b.await(ctx, w, b.timeout, func(list []topology.AppStatus) verdict { return applied(resp.Versions, list) })
	if err != nil {
		return fmt.Errorf("rollback %s: %w", app, err)
	}
	fmt.Fprintf(b.out, "%s %s runs and is ready\n", app, version)
	return nil
}
