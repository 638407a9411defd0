package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/agent/reflexer"
	"github.com/ganglion-mesh/ganglion/workload"
	"github.com/ganglion-mesh/ganglion/workload/hook"
)

const (
	// hooksAtOnce is how many hooks run on a host at a time; others wait.
	hooksAtOnce = 4
	// hookOutput is how much of the end of a hook's output is kept.
	hookOutput = 2 << 10
)

// errNoRun is why a host runs no commands of reflexes.
var errNoRun = errors.New("this host runs no commands of reflexes: allow_run is off in its agent's configuration")

// runHook runs the command of a run action, whose record is on the disk, and
// returns what it said.
func (n *nerves) runHook(ctx context.Context, o reflexer.Order) (said string, err error) {
	if !n.cfg.AllowRun {
		return "", errNoRun
	}
	h, err := o.Do.Hook()
	if err != nil {
		return "", err
	}
	select {
	case n.hooks <- struct{}{}:
		defer func() { <-n.hooks }()
	case <-ctx.Done():
		return "", ctx.Err()
	}
	if err := n.unfrozen(appOf(o.On), false); err != nil {
		return "", err
	}
	out, err := hook.Run(ctx, hook.Command{
		Name: n.hookTag(), Argv: h.Argv, Env: n.evidence(o), User: h.User, Timeout: h.Timeout.Std(), Output: hookOutput, Errors: true,
	})
	said = plainText(out)
	switch {
	case err == nil:
		return said, nil
	case said == "":
		return "", fmt.Errorf("%s: %w", h.Argv[0], hookFailure(err))
	}
	return "", fmt.Errorf("%s: %w; its output: %s", h.Argv[0], hookFailure(err), said)
}

// hookTag names what this agent's hooks run in, as no other agent's.
func (n *nerves) hookTag() string {
	sum := sha256.Sum256([]byte(n.cfg.DataDir))
	return hex.EncodeToString(sum[:6])
}

// hookFailure says how a command failed.
func hookFailure(err error) error {
	exit, ok := errors.AsType[*exec.ExitError](err)
	switch {
	case !ok:
		return err
	case exit.Exited():
		return fmt.Errorf("it ended with status %d", exit.ExitCode())
	}
	return fmt.Errorf("it was ended by a signal: %s", exit)
}

// evidence is what a hook is told, in its environment.
func (n *nerves) evidence(o reflexer.Order) []string {
	rule, app := api.SplitRule(o.Rule)
	facts, _ := json.Marshal(factsOf(o.Facts)) // of what came as JSON
	env := []string{
		"GANGLION_HOST=" + n.cfg.Name, "GANGLION_REFLEX=" + rule, "GANGLION_TARGET=" + o.Target.String(),
		"GANGLION_ACT=" + strconv.FormatUint(uint64(o.ID), 10), "GANGLION_FACTS=" + string(facts),
	}
	if app != "" {
		env = append(env, "GANGLION_APP="+app)
	} else if app := appOf(o.On); app != "" {
		env = append(env, "GANGLION_APP="+app)
	}
	if id, err := workload.ParseCopyID(o.Target.Name); err == nil {
		env = append(env, "GANGLION_COPY="+strconv.Itoa(id.N))
	}
	return env
}

// plainText is output as it may stand in an event: no control characters but
// the ends of lines between others.
func plainText(out []byte) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' && r != '\t' || r == 0x7f {
			return -1
		}
		return r
	}, strings.ToValidUTF8(string(out), "")))
}
