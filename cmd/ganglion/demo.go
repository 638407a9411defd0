//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// The demo as a whole, and one step of it, may take so long.
const (
	demoLimit = 55 * time.Second
	stepLimit = 25 * time.Second
)

func (c *cli) demoCommand() *cobra.Command {
	return &cobra.Command{
		Use: "demo", Short: "Put a 3-host mesh on this machine to the test, with measured times",
		Long: `Starts a mesh of three hosts on loopback, each its own process, declares an app,
kills a copy, the leader and a whole host, ships a bad version, and tells what
the mesh did and how long it took. It ends with 0 only if every step was seen to hold, and leaves
nothing behind.`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return (&demo{tell: &narrator{cli: c}}).run(cmd.Context())
		},
	}
}

// demo is one run. Nothing in it is assumed: a line is printed for what was
// seen from outside of the agents, in their API, in /proc, and at the ports of
// the copies.
type demo struct {
	tell *narrator
	mesh *localMesh

	used   map[int]bool    // ports that copies were given
	groups map[string]bool // cgroups that copies ran in
}

// errInterrupted ends a demo that was told to end.
var errInterrupted = errors.New("interrupted")

// run takes the steps in order, and cleans up whatever they come to.
func (d *demo) run(ctx context.Context) error {
	begun := time.Now()
	var err error
	if d.mesh, err = newLocalMesh("demo", 3); err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	d.used, d.groups = map[int]bool{}, map[string]bool{}
	d.welcome()
	err = d.steps(ctx)
	switch {
	case ctx.Err() != nil:
		err = errInterrupted
		d.tell.wrong(err)
	case err != nil:
		d.tell.wrong(err)
		d.tell.printLogTail(err, d.mesh)
	}
	// Cleaning up must happen also after ^C.
	after, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	swept := d.sweep(after, err == nil)
	if swept != nil {
		d.tell.wrong(swept)
	}
	if errors.Is(err, errInterrupted) && swept == nil {
		return fmt.Errorf("demo: %w", err)
	}
	if err = errors.Join(err, swept); err != nil {
		first, _, _ := strings.Cut(err.Error(), "\n")
		return fmt.Errorf("demo: a step did not hold: %s", first)
	}
	fmt.Fprintf(d.tell.out, "\nEvery step held. The whole demo took %s.\n", strings.TrimSpace(span(time.Since(begun))))
	return nil
}

func (d *demo) welcome() {
	who := fmt.Sprintf("user %d", os.Getuid())
	if u, err := user.Current(); err == nil {
		who = u.Username
	}
	fmt.Fprintf(d.tell.out, "%s: three hosts on this machine, as %s. Every time below was measured just now.\n",
		d.tell.colour(d.tell.outTerm, bold, "ganglion demo"), who)
	fmt.Fprintln(d.tell.out, d.tell.colour(d.tell.outTerm, dim, "Files are in "+d.mesh.dir+" until the end."))
}

// steps tells the story; the first step that does not hold ends it.
func (d *demo) steps(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, demoLimit)
	defer cancel()
	for _, s := range []struct {
		title string
		run   func(context.Context) error
	}{
		{"Three hosts become a mesh", d.joinStep},
		{"An app is declared: three copies of a small web server", d.applyStep},
		{"A copy is killed", d.reflexStep},
		{"The leader's agent is killed", d.leaderStep},
		{"A whole host is lost: its agent and all its copies", d.hostStep},
		{"A bad version is shipped", d.badStep},
	} {
		d.tell.title(s.title)
		step, cancel := context.WithTimeout(ctx, stepLimit)
		err := s.run(step)
		cancel()
		if err != nil {
			return err
		}
	}
	return nil
}

// sweep removes everything, in the ordinary way if the story went well, and
// then looks whether anything is left.
func (d *demo) sweep(ctx context.Context, well bool) error {
	d.tell.title("Everything is removed")
	begun := time.Now()
	var errs []error
	if well {
		errs = append(errs, d.deleteStep(ctx))
	}
	errs = append(errs, d.mesh.close())
	errs = append(errs, d.leftovers())
	if err := errors.Join(errs...); err != nil {
		return err
	}
	d.tell.seen(time.Since(begun), "no process, no file and none of %d ports is left", len(d.used))
	return nil
}

// leftovers looks for what should not be there any more.
func (d *demo) leftovers() error {
	var errs []error
	if left := processesBelow(d.mesh.dir); len(left) > 0 {
		errs = append(errs, fmt.Errorf("processes are left: %v", left))
	}
	for path := range d.groups {
		if _, err := os.Lstat(path); err == nil {
			errs = append(errs, fmt.Errorf("cgroup %s is left", path))
		}
	}
	if _, err := os.Lstat(d.mesh.dir); !errors.Is(err, os.ErrNotExist) {
		errs = append(errs, fmt.Errorf("files are left in %s", d.mesh.dir))
	}
	for _, h := range d.mesh.hosts {
		for _, port := range h.ports.agents() {
			d.used[port] = true
		}
	}
	for port := range d.used {
		if !portFree(port) {
			errs = append(errs, fmt.Errorf("port %d is still in use", port))
		}
	}
	return errors.Join(errs...)
}

// logTail is how much of an agent's log is shown after a failure.
const logTail = 20

// printLogTail shows the end of the log of the host that a failure blames, or
// of all hosts.
func (c *cli) printLogTail(err error, m *localMesh) {
	hosts := m.hosts
	var blamed *hostError
	if errors.As(err, &blamed) {
		hosts = []*localHost{blamed.host}
	}
	for _, h := range hosts {
		b, err := os.ReadFile(h.logPath())
		if err != nil {
			continue
		}
		lines := bytes.Split(bytes.TrimSpace(b), []byte("\n"))
		lines = lines[max(len(lines)-logTail, 0):]
		fmt.Fprintf(c.errs, "--- the end of the log of %s\n%s\n", h.name, bytes.Join(lines, []byte("\n")))
	}
}
