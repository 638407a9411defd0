package agent

import (
	"context"
	"encoding/json"
	"slices"

	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/intent"
	"github.com/ganglion-mesh/ganglion/reflexes"
	"github.com/ganglion-mesh/ganglion/reflexes/senses"
	"github.com/ganglion-mesh/ganglion/workload/hook"
)

// senseOutput is how much a command that senses may say.
const senseOutput = 4 << 10

// ownSense is a sense that a user declared, as this host has it.
type ownSense struct {
	text  string          // of what was declared
	sense senses.Targeted // nil: this host cannot have it
}

// senseOwn has the senses of a slice, and only those. Belongs to run.
func (n *nerves) senseOwn(sl topology.Slice) {
	next := map[string]ownSense{}
	var list []senses.Targeted
	same := len(n.declaredSenses) == len(sl.Senses)
	for _, spec := range sl.Senses {
		text, _ := json.Marshal(spec) // what came as JSON
		one, known := n.declaredSenses[spec.Name]
		if !known || one.text != string(text) {
			same = false
			one = ownSense{text: string(text)}
			var err error
			if one.sense, err = n.newSense(spec); err != nil {
				n.log.Warn("a sense is off on this host: what it would tell is not known", "sense", spec.Name, "error", err)
				one.sense = nil
			}
		}
		next[spec.Name] = one
		if one.sense != nil {
			list = append(list, one.sense)
		}
	}
	n.declaredSenses = next
	n.hearOnly(next)
	if !same {
		n.own.Set(list)
	}
}

// newSense makes a sense of what was declared.
func (n *nerves) newSense(s intent.Sense) (senses.Targeted, error) {
	now := func() reflexes.Boot { return n.bootTime() }
	if len(s.Files) > 0 {
		f, err := senses.NewFiles(senses.FilesConfig{Target: s.Name, Paths: slices.Clone(s.Files), Now: now})
		if err != nil {
			return nil, err
		}
		return f, nil
	}
	if len(s.Events) > 0 {
		return n.newEvents(s)
	}
	if !n.cfg.AllowRun {
		return nil, errNoRun
	}
	command := hook.Command{
		Name: n.hookTag(), Argv: s.Command, User: s.User, Timeout: s.Timeout.Std(), Output: senseOutput, Strict: true,
		Env: []string{"GANGLION_HOST=" + n.cfg.Name, "GANGLION_SENSE=" + s.Name},
	}
	c, err := senses.NewCommand(senses.CommandConfig{
		Target: s.Name, Interval: s.Every.Std(), Now: now,
		Run: func(ctx context.Context) ([]byte, error) { return hook.Run(ctx, command) },
	})
	if err != nil {
		return nil, err
	}
	return c, nil
}
