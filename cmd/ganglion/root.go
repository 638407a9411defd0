package main

import (
	"fmt"
	"runtime"
	"strings"

	"github.com/spf13/cobra"
)

// The groups of commands in the help text.
const (
	groupTry  = "try"
	groupHost = "host"
	groupApps = "apps"
	groupMesh = "mesh"
)

func (c *cli) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "ganglion",
		Short:         "The nervous system of your hosts: runs apps, heals them, moves them, with no central controller",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			return usagef("%s", unknownCommand(cmd, args[0]))
		},
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usagef("%s: %w; see %s --help", cmd.CommandPath(), err, cmd.CommandPath())
	})
	root.AddGroup(
		&cobra.Group{ID: groupTry, Title: "Try it:"},
		&cobra.Group{ID: groupHost, Title: "This host:"},
		&cobra.Group{ID: groupApps, Title: "Apps:"},
		&cobra.Group{ID: groupMesh, Title: "The mesh:"},
	)
	add := func(group string, commands ...*cobra.Command) {
		for _, cmd := range commands {
			cmd.GroupID = group
			root.AddCommand(cmd)
		}
	}
	root.SuggestionsMinimumDistance = 2
	add(groupTry, c.demoCommand(), c.devCommand())
	add(groupHost, c.agentCommand(), c.initCommand(), c.joinCommand(), c.leaveCommand())
	add(groupApps, c.applyCommand(), c.planCommand(), c.deleteCommand(), c.statusCommand(), c.endpointsCommand(),
		c.logsCommand(), c.actCommand("stop"), c.actCommand("start"), c.actCommand("restart"), c.artifactCommand(),
		c.historyCommand(), c.rollbackCommand(), c.reflexCommand())
	add(groupMesh, c.meshCommand(), c.hostsCommand(), c.peersCommand(), c.eventsCommand(), c.drainCommand(),
		c.undrainCommand(), c.freezeCommand(), c.thawCommand(), c.removeCommand(), c.tokenCommand(), c.snapshotCommand(), c.natsCommand())
	root.AddCommand(c.versionCommand())
	addLater(root)
	return root
}

// unknownCommand is the line for a command that does not exist.
func unknownCommand(cmd *cobra.Command, name string) string {
	line := fmt.Sprintf("%s: unknown command %q; see %s --help", cmd.CommandPath(), name, cmd.CommandPath())
	if near := cmd.SuggestionsFor(name); len(near) > 0 {
		line = fmt.Sprintf("%s: unknown command %q; did you mean %s?", cmd.CommandPath(), name, strings.Join(near, " or "))
	}
	return line
}

// later are the commands of the reference that come with later work: known, so
// that nobody takes them for typing errors, and absent from the help.
var later = []string{"why", "secret", "keys", "recover", "top", "debug"}

func addLater(root *cobra.Command) {
	for _, name := range later {
		root.AddCommand(laterCommand(name))
	}
}

func laterCommand(name string) *cobra.Command {
	return &cobra.Command{
		Use: name, Hidden: true, DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usagef("%s is not in this version yet", cmd.CommandPath())
		},
	}
}

func (c *cli) versionCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "version", Short: "Print the version of this binary", Args: args(cobra.NoArgs)}
	f := formatFlag(cmd)
	cmd.RunE = func(*cobra.Command, []string) error {
		v := struct {
			Version string `json:"version"`
			Go      string `json:"go"`
			OS      string `json:"os"`
			Arch    string `json:"arch"`
		}{version, runtime.Version(), runtime.GOOS, runtime.GOARCH}
		if f.json() {
			return c.printJSON(v)
		}
		fmt.Fprintf(c.out, "ganglion %s (%s %s/%s)\n", v.Version, v.Go, v.OS, v.Arch)
		return nil
	}
	return cmd
}
