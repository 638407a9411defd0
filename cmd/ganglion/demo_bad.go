//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/intent"
	"github.com/ganglion-mesh/ganglion/pause"
)

// breakVariable, set in its environment, makes a copy of the demo's app end at
// once with an error.
const breakVariable = "DEMO_BREAK"

// badApp is the demo's app in a version that cannot work, to be tried in one
// copy first.
func (d *demo) badApp(count int) intent.App {
	app := d.demoApp(count)
	app.Run.Env = map[string]string{breakVariable: "the database is not there"}
	app.Update.Canary = 1
	app.Restart.Limit = 1
	return app
}

// served is what was seen of an app while a version was brought out.
type served struct {
	least   int // copies that answered, at the worst moment
	looks   int
	reached int // copies that had the version, at most
}

// badStep ships a version that ends at once, and measures at the ports of the
// copies that nobody who uses the app would have noticed.
func (d *demo) badStep(ctx context.Context) error {
	h := d.mesh.hosts[slices.IndexFunc(d.mesh.hosts, (*localHost).alive)]
	before, err := d.status(ctx, h)
	if err != nil {
		return err
	}
	var kept processes
	for _, host := range d.mesh.hosts {
		if !slices.ContainsFunc(before.Copies, func(cp topology.CopyStatus) bool { return cp.Host == host.name }) {
			continue // it is lost
		}
		on, err := processesOn(before, host.name)
		if err != nil {
			return err
		}
		kept = append(kept, on...)
	}
	begun := time.Now()
	resp, _, err := d.declare(ctx, h, d.badApp(before.Want))
	if err != nil {
		return err
	}
	d.tell.say("Version %s ends at once with an error. One copy is to try it first (canary = 1).", resp.Versions["web"])
	after, seen, err := d.untilRolledBack(ctx, h, before, resp)
	if err != nil {
		return h.blame(err)
	}
	d.tell.seen(time.Since(begun), "it was rolled back: %s", oneLine(after.Rollout.Reason))
	switch {
	case after.Version != before.Version:
		return h.blame(fmt.Errorf("the app has version %s, not %s", after.Version, before.Version))
	case seen.reached > 1:
		return h.blame(fmt.Errorf("the version reached %d copies instead of 1", seen.reached))
	case seen.least < before.Want:
		return h.blame(fmt.Errorf("only %d of %d copies answered at the worst moment", seen.least, before.Want))
	}
	if err := errors.Join(kept.same(ctx), kept.in(after)); err != nil {
		return err
	}
	d.tell.seen(0, "%d of %d copies answered each of the %d times they were asked meanwhile; none was touched", seen.least, before.Want, seen.looks)
	return nil
}

// untilRolledBack asks every copy, again and again, until the version that was
// applied has been given up.
func (d *demo) untilRolledBack(ctx context.Context, h *localHost, before topology.AppStatus, resp api.ApplyResponse) (topology.AppStatus, served, error) {
	seen := served{least: len(before.Copies)}
	for {
		answered := 0
		for _, cp := range before.Copies {
			if answers(ctx, cp) == nil {
				answered++
			}
		}
		seen.least, seen.looks = min(seen.least, answered), seen.looks+1
		st, err := d.status(ctx, h)
		if err == nil {
			d.remember(st)
			reached := 0
			for _, cp := range st.Copies {
				if cp.Version == resp.Versions["web"] {
					reached++
				}
			}
			seen.reached = max(seen.reached, reached)
			if r := st.Rollout; r.Failed == resp.Versions["web"] && r.Outcome == topology.OutcomeRolledBack {
				return st, seen, nil
			}
		}
		if !pause.For(ctx, 20*time.Millisecond) {
			return st, seen, fmt.Errorf("the bad version was not rolled back in time: %s", unwell(st))
		}
	}
}
