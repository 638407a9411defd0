package senses

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/ganglion-mesh/ganglion/reflexes"
)

// CommandConfig configures a sense of a user's own.
type CommandConfig struct {
	// Target is the sense's name, as rules know it: letters, digits and dashes;
	// required.
	Target string
	// Run runs the command once, until it has ended or ctx ends, and returns what it
	// wrote; required. An *fs.PathError says that it could not even be started.
	Run func(ctx context.Context) ([]byte, error)
	// Interval from start to start. Default: 10 s; from 100 ms to 1 min.
	Interval time.Duration
	// Now is the boot clock; required.
	Now Clock
}

func (c *CommandConfig) validate() error {
	c.Interval = defaulted(c.Interval, 10*time.Second)
	switch {
	case c.Now == nil:
		return errNoClock
	case !isName(c.Target):
		return errBadName
	case c.Run == nil:
		return errors.New("it needs a command to run")
	case c.Interval < 100*time.Millisecond || c.Interval > time.Minute:
		return fmt.Errorf("interval %s: want 100ms to 1m", c.Interval)
	}
	return nil
}

var errBadName = errors.New("its name (Target) is not of 1 to 63 lower-case letters, digits and dashes")

// isName tells whether s is a name such as users give to things.
func isName(s string) bool {
	for i, c := range s {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && (c != '-' || i == 0) {
			return false
		}
	}
	return s != "" && len(s) <= 63
}

// Command has a command run again and again and tells what it says: the first
// line of its output, as text and, if it is one, as a number. One that fails has
// told nothing.
type Command struct {
	cfg    CommandConfig
	target reflexes.Target
}

// NewCommand returns a sense of a user's own.
func NewCommand(cfg CommandConfig) (*Command, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("set up the sense %q: %w", cfg.Target, err)
	}
	return &Command{cfg: cfg, target: reflexes.Target{Scope: reflexes.ScopeSense, Name: cfg.Target}}, nil
}

// Target is whom the sense tells of.
func (c *Command) Target() reflexes.Target { return c.target }

// Name implements Sense.
func (c *Command) Name() string { return "command:" + c.cfg.Target }

// Vars implements Sense.
func (c *Command) Vars() []reflexes.VarID {
	return []reflexes.VarID{reflexes.SenseOK, reflexes.SenseValue, reflexes.SenseText}
}

// Run implements Sense.
func (c *Command) Run(ctx context.Context, emit Emit) error {
	return every(ctx, c.cfg.Now, c.cfg.Interval, func() error {
		out, err := c.cfg.Run(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if failed, ok := errors.AsType[*fs.PathError](err); ok {
			return failed // it cannot even be started
		}
		emit(c.facts(out, err))
		return nil
	})
}

func (c *Command) facts(out []byte, err error) []reflexes.Fact {
	at := c.cfg.Now()
	facts := []reflexes.Fact{fact(reflexes.SenseOK, c.target, reflexes.Bool(err == nil), at)}
	text := firstWords(out)
	if err != nil || text == "" {
		return gone(facts, c.target, at, reflexes.SenseValue, reflexes.SenseText)
	}
	facts = append(facts, fact(reflexes.SenseText, c.target, reflexes.Text(text), at))
	v, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsInf(v, 0) || math.IsNaN(v) {
		return gone(facts, c.target, at, reflexes.SenseValue)
	}
	return append(facts, fact(reflexes.SenseValue, c.target, reflexes.Float(v), at))
}

// firstWords is the first line that says something, cut to the size of a text.
func firstWords(out []byte) string {
	const most = 256
	line := firstLine(out)
	if len(line) > most {
		line = strings.ToValidUTF8(line[:most], "")
	}
	return line
}
