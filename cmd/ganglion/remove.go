package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/pause"
)

const removeLong = `Decommission a host: its copies move to other hosts, what they kept on it is
removed, it leaves the quorum, and its identity is refused from then on. What
was seen to be gone is printed, and told as the event host.HOST.removed.

A host that does not answer cannot be looked at: --force removes it without that
proof. Should it come back, it is told, ends its copies and clears out by itself.`

func (c *cli) removeCommand() *cobra.Command {
	var yes, force bool
	var timeout time.Duration
	cmd := &cobra.Command{Use: "remove HOST", Short: "Decommission a host, with proof that nothing of it is left", Long: removeLong, Args: args(cobra.ExactArgs(1))}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	cmd.Flags().BoolVar(&force, "force", false, "also a host that does not answer, without proof of what is on it")
	cmd.Flags().DurationVar(&timeout, "timeout", 10*time.Minute, "how long to wait until it is done")
	f := formatFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		host := args[0]
		if err := checkName("remove", host); err != nil {
			return err
		}
		question := fmt.Sprintf("Move the copies off host %s, remove all that they keep there, and refuse it from then on?", host)
		if err := c.confirm(yes, "remove "+host, question); err != nil {
			return err
		}
		done, err := c.remove(cmd.Context(), host, force, timeout)
		if err != nil {
			return err
		}
		if f.json() {
			return c.printJSON(done)
		}
		fmt.Fprintln(c.out, removalLine(done))
		return nil
	}
	return cmd
}

// remove asks for the removal until it is done. Each time is a step, and to ask
// once too often is harmless, so it survives restarts of the agent and changes of
// the leader.
func (c *cli) remove(ctx context.Context, host string, force bool, timeout time.Duration) (out api.Removal, err error) {
	limit, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	p := &progress{c: c}
	defer p.end()
	answered, last := time.Now(), "nothing is known yet"
	for {
		var now api.Removal
		err := c.post(limit, "/v1/hosts/"+host+"/remove", api.RemoveRequest{Force: force}, &now)
		switch {
		case err == nil && now.Done:
			return now, nil
		case err == nil:
			answered, last = time.Now(), now.Waiting
		case ctx.Err() != nil:
			return now, fmt.Errorf("remove %s: interrupted; it stays drained: remove it again, or take it back (ganglion undrain %s)", host, host)
		case limit.Err() == nil && (!passing(err) || time.Since(answered) > readPatience):
			return now, err
		}
		p.show(host + ": " + last)
		if !pause.For(limit, retryPause) && ctx.Err() == nil {
			return now, fmt.Errorf("remove %s: not done after %s: %s; remove it again, or take it back (ganglion undrain %s)", host, timeout, last, host)
		}
	}
}

// removalWords say what each proof means.
func removalWords() map[string]string {
	return map[string]string{
		"copies": "its copies", "files": "what they kept there", "peer": "its part in the quorum", "identity": "its identity",
	}
}

func removalLine(r api.Removal) string {
	words := removalWords()
	list := func(of []string) string {
		var out []string
		for _, p := range of {
			out = append(out, words[p])
		}
		return strings.Join(out, ", ")
	}
	line := fmt.Sprintf("%s: removed; gone for certain: %s", r.Host, list(r.Proved))
	if len(r.Unproved) > 0 {
		line += "; not proved: " + list(r.Unproved)
	}
	return line
}
