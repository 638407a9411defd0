//go:build !linux

package main

import (
	"io"
	"runtime"

	"github.com/spf13/cobra"
)

// workloadCommand does not exist here: no copies run on this system.
const workloadCommand = "demo-copy"

func runWorkload(io.Writer) int { return exitUsage }

// keeperCommand does not exist here either.
const keeperCommand = "keeper"

func runKeeper(io.Writer) int { return exitUsage }

func (c *cli) agentCommand() *cobra.Command { return onLinux("agent", "Run this host's agent") }
func (c *cli) demoCommand() *cobra.Command {
	return onLinux("demo", "A 3-host mesh that is put to the test")
}
func (c *cli) devCommand() *cobra.Command {
	return onLinux("dev", "A mesh on this machine to play with")
}

// onLinux stands for a command that needs Linux; the client commands do not.
func onLinux(name, short string) *cobra.Command {
	return &cobra.Command{
		Use: name, Short: short + " (Linux only)", DisableFlagParsing: true,
		RunE: func(*cobra.Command, []string) error {
			return usagef("%s runs on Linux, not on %s; the client commands work here with GANGLION_ADDR=https://HOST:7947", name, runtime.GOOS)
		},
	}
}
