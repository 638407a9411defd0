package copies

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/ganglion-mesh/ganglion/intent"
	"github.com/ganglion-mesh/ganglion/reflexes/senses"
	"github.com/ganglion-mesh/ganglion/workload"
)

// pauseGap is how much later than its timeout a probe may return before the
// agent itself is taken to have been stopped or starved.
const pauseGap = 2 * time.Second

// probe is one check of the copy that runs.
type probe struct {
	look    senses.Probe
	timeout time.Duration
}

// probed is the result of a probe, with the life of the instance it looked at.
type probed struct {
	life   context.Context
	result workload.Probed
}

// beginLife starts to look at a new instance; what was found of the one before
// no longer counts.
func (r *runner) beginLife(ctx context.Context) {
	r.endLife()
	r.life, r.endLife = context.WithCancel(ctx)
}

// makeProbes makes the probes of the order's checks.
func (r *runner) makeProbes() {
	o := r.order
	r.probes = make([]probe, 0, len(o.checks))
	for i, c := range o.checks {
		r.probes = append(r.probes, probe{look: r.probeOf(o, c), timeout: o.target.Policy.Checks[i].Timeout})
	}
}

// probeOf makes the probe of one check. A check that cannot be carried out
// fails, and says why.
func (r *runner) probeOf(o order, c intent.Check) senses.Probe {
	look, err := senses.NewProbe(c, senses.Target{
		Addrs: slices.Compact([]string{r.m.cfg.HostAddr, "127.0.0.1"}),
		Ports: o.ports,
		Exec: func(ctx context.Context, argv []string) ([]byte, error) {
			return r.m.cfg.Driver.Exec(ctx, o.spec, argv)
		},
	})
	if err != nil {
		return func(context.Context) error { return err }
	}
	return look
}

// look carries out one check beside the runner.
func (r *runner) look(check int) {
	if check >= len(r.probes) {
		return
	}
	life, p := r.life, r.probes[check]
	r.probers.Go(func() {
		result := r.m.carryOut(life, p)
		result.Check = check
		select {
		case r.results <- probed{life: life, result: result}:
		case <-life.Done():
		}
	})
}

// carryOut probes once. A timeout that the host or the agent is to blame for
// says nothing about the copy.
func (m *Manager) carryOut(life context.Context, p probe) workload.Probed {
	ctx, cancel := context.WithTimeout(life, p.timeout)
	defer cancel()
	begun := time.Now()
	err := p.look(ctx)
	if err == nil {
		return workload.Probed{Outcome: workload.Passed}
	}
	late := errors.Is(ctx.Err(), context.DeadlineExceeded)
	out := workload.Probed{Outcome: workload.Failed, Why: err.Error(), Timeout: late}
	if late && (m.cfg.Starved() || time.Since(begun) > p.timeout+pauseGap) {
		out.Outcome = workload.Unknown
	}
	return out
}
