package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/intent"
)

// The exit codes. `plan` differs: 1 is any error and 2 says that there are
// changes.
const (
	exitFailed  = 1
	exitUsage   = 2 // wrong in what was typed or written
	exitUnknown = 3 // the outcome of a write is not known
	exitChanges = 2 // plan alone
)

// cli is one invocation: its streams, its environment, and what it may do with
// a terminal.
type cli struct {
	in        io.Reader
	out, errs io.Writer
	env       func(string) (string, bool)
	outTerm   bool // out is a terminal that takes colour
	errTerm   bool // errs is one: progress may be shown
	asks      bool // somebody can answer a question
}

// exitError ends the invocation with a code of its own. A nil err prints
// nothing.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// usage marks err as something wrong in what was typed or written.
func usage(err error) error {
	if err == nil {
		return nil
	}
	return &exitError{exitUsage, err}
}

func usagef(format string, args ...any) error { return usage(fmt.Errorf(format, args...)) }

// run executes one command line and returns its exit code.
func (c *cli) run(ctx context.Context, args []string) int {
	root := c.rootCommand()
	root.SetArgs(args)
	root.SetIn(c.in)
	root.SetOut(c.out)
	root.SetErr(c.errs)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	if text := err.Error(); text != "" {
		fmt.Fprintln(c.errs, strings.TrimRight(text, "\n"))
	}
	return exitCode(cmd, err)
}

// exitCode sorts an error by what a script can do about it.
func exitCode(cmd *cobra.Command, err error) int {
	code := exitFailed
	var own *exitError
	switch {
	case errors.As(err, &own):
		code = own.code
	case isCode(err, api.CodeInvalid), isCode(err, api.CodeNotYet):
		code = exitUsage
	case isCode(err, api.CodeUnknown):
		code = exitUnknown
	}
	if cmd != nil && cmd.Name() == "plan" && !errors.Is(err, errChanges) {
		return exitFailed
	}
	return code
}

func isCode(err error, code api.Code) bool { return err != nil && api.CodeOf(err) == code }

// confirm asks before something is destroyed. Where nobody can answer, --yes
// has to say it.
func (c *cli) confirm(yes bool, what, question string) error {
	if yes {
		return nil
	}
	if !c.asks {
		return usagef("%s: this cannot be undone and there is no terminal to ask on; say --yes", what)
	}
	fmt.Fprintf(c.errs, "%s [y/N] ", question)
	line, err := bufio.NewReader(c.in).ReadString('\n')
	if err != nil && line == "" {
		return fmt.Errorf("%s: no answer; nothing was done", what)
	}
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return nil
	}
	return fmt.Errorf("%s: not confirmed; nothing was done", what)
}

// args wraps an argument check so that what it refuses is a usage error with a
// line that helps.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usagef("%s: %w; want %s", cmd.CommandPath(), err, cmd.UseLine())
		}
		return nil
	}
}

// checkName refuses a name that no app or host can have, before it is sent.
func checkName(what, name string) error {
	if err := intent.CheckName(name); err != nil {
		return usagef("%s: %w", what, err)
	}
	return nil
}
