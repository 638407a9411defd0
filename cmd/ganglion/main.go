// Command ganglion is the whole of ganglion in one binary: the agent of a host,
// and the commands that talk to any agent of a mesh.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/term"
)

// version is set at build time by -ldflags "-X main.version=…".
var version = "dev"

func main() {
	// A copy of the demo's app is started many times and has no use for the rest.
	if len(os.Args) == 2 && os.Args[1] == workloadCommand {
		os.Exit(runWorkload(os.Stderr))
	}
	// Neither has the keeper of a singleton, which is to be small and stay.
	if len(os.Args) == 2 && os.Args[1] == keeperCommand {
		os.Exit(runKeeper(os.Stderr))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	code := newCLI().run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

// newCLI returns an invocation on the process's own streams and environment.
func newCLI() *cli {
	terminal := func(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }
	c := &cli{in: os.Stdin, out: os.Stdout, errs: os.Stderr, env: os.LookupEnv}
	c.asks = terminal(os.Stdin) && terminal(os.Stderr)
	if t, _ := c.env("TERM"); t != "dumb" {
		c.outTerm, c.errTerm = terminal(os.Stdout), terminal(os.Stderr)
	}
	return c
}
