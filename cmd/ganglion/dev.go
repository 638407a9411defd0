//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
)

// maxDevHosts bounds a mesh to play with.
const maxDevHosts = 20

func (c *cli) devCommand() *cobra.Command {
	var hosts int
	cmd := &cobra.Command{
		Use: "dev [--hosts N]", Short: "Run a mesh on this machine to play with, until ^C",
		Long: `Starts a mesh of N hosts on loopback, each its own process, prints how to talk
to it, and runs until it is interrupted. Then it ends every copy and agent and
removes every file.`,
		Args: args(cobra.NoArgs),
	}
	cmd.Flags().IntVar(&hosts, "hosts", 3, "number of hosts")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if hosts < 1 || hosts > maxDevHosts {
			return usagef("dev: --hosts %d: want 1 to %d", hosts, maxDevHosts)
		}
		return c.dev(cmd.Context(), hosts)
	}
	return cmd
}

func (c *cli) dev(ctx context.Context, n int) (err error) {
	m, err := newLocalMesh("dev", n)
	if err != nil {
		return fmt.Errorf("dev: %w", err)
	}
	defer func() {
		err = errors.Join(err, m.close())
		if err == nil {
			fmt.Fprintln(c.out, "\nEnded; nothing is left.")
		}
	}()
	starting, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err = m.start(starting); err == nil {
		err = m.awaitReady(starting)
	}
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		c.printLogTail(err, m)
		return fmt.Errorf("dev: %w", err)
	}
	t := newTable("HOST", "MESH PORT", "NATS", "SOCKET")
	for _, h := range m.hosts {
		t.row(h.name, hostPort("127.0.0.1", h.ports.mesh), hostPort("127.0.0.1", h.ports.nats), h.socket())
	}
	c.printTable(t)
	fmt.Fprintf(c.out, "\nIn another terminal:\n\n  export GANGLION_ADDR=unix://%s\n  ganglion hosts\n\nFiles and logs are in %s. Everything ends, and is removed, with ^C.\n", m.hosts[0].socket(), m.dir)
	<-ctx.Done()
	return nil
}
