package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ganglion-mesh/ganglion/agent/api"
)

func (c *cli) freezeCommand() *cobra.Command {
	var req api.FreezeRequest
	cmd := &cobra.Command{
		Use: "freeze [--app A] [--hard]", Short: "Stop all automatic action, of the mesh or of apps, with no leader", Args: args(cobra.NoArgs),
		Long: `Stop all automatic action: rollouts, drains and balancing pause between steps,
the copies of lost hosts stay where they are, schedules begin no run, a copy that
is unhealthy is left alone. A copy that has ended is restarted where it is, unless
--hard. Leases of singletons end as ever. What you ask for is done: apply of
something new, stop, start, restart, drain.

It needs no leader and no quorum: it holds on this host when the command returns,
and on every host it can reach within a second or two. Only ganglion thaw ends
it, and that needs both. Where nothing else works: touch freeze in the data_dir
of any host; each line of it may be --hard or the name of an app.`,
	}
	cmd.Flags().StringSliceVar(&req.Apps, "app", nil, "freeze only this app; may be repeated")
	cmd.Flags().BoolVar(&req.Hard, "hard", false, "do not restart copies that have ended either")
	f := formatFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		for _, app := range req.Apps {
			if err := checkName("freeze", app); err != nil {
				return err
			}
		}
		var st api.FreezeState
		if err := c.post(cmd.Context(), "/v1/freeze", req, &st); err != nil {
			return err
		}
		if f.json() {
			return c.printJSON(st.Frozen)
		}
		fmt.Fprintf(c.out, "Host %s is frozen, and tells the others: %s.\n", st.Host, frozenText(st.Frozen))
		return nil
	}
	return cmd
}

func (c *cli) thawCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "thaw", Short: "End all freezes; needs a leader and its quorum", Args: args(cobra.NoArgs)}
	f := formatFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		client, err := c.dial()
		if err != nil {
			return err
		}
		defer client.CloseIdle()
		var here, st api.FreezeState
		if err := client.Get(cmd.Context(), "/v1/local/freeze", nil, &here); err != nil {
			return err
		}
		if err := client.PostOnce(cmd.Context(), "/v1/thaw", newKey(), api.ThawRequest{Records: here.Records}, &st); err != nil {
			return err
		}
		if st.Frozen != nil {
			return fmt.Errorf("thaw: frozen again meanwhile: %s", frozenText(st.Frozen))
		}
		if err := awaitThaw(cmd.Context(), client, st.Thawed); err != nil {
			return err
		}
		switch {
		case f.json():
			return c.printJSON(st)
		case here.Frozen == nil && st.Thawed == here.Thawed:
			fmt.Fprintln(c.out, "Nothing was frozen.")
		default:
			fmt.Fprintf(c.out, "Thawed (epoch %d): what was held goes on.\n", st.Thawed)
		}
		return nil
	}
	return cmd
}

// thawPatience is how long a host may take to hear of a thaw.
const thawPatience = 15 * time.Second

// awaitThaw waits until the host that was asked has heard of the thaw too, so that
// what is asked of it next finds it thawed.
func awaitThaw(ctx context.Context, client *api.Client, epoch uint64) error {
	ctx, cancel := context.WithTimeout(ctx, thawPatience)
	defer cancel()
	for {
		var st api.FreezeState
		err := client.Get(ctx, "/v1/local/freeze", nil, &st)
		if err == nil && st.Thawed >= epoch {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("thaw: the mesh is thawed (epoch %d), but this host has not heard of it within %s; look with ganglion mesh", epoch, thawPatience)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// frozenText says what is frozen, in a line.
func frozenText(f *api.Frozen) string {
	what := "everything"
	if len(f.Apps) > 0 {
		what = strings.Join(f.Apps, ", ")
	}
	if f.Hard {
		what += ", restarts in place too"
	}
	return fmt.Sprintf("%s (epoch %d)", what, f.Epoch)
}
