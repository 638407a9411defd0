//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/events"
	"github.com/ganglion-mesh/ganglion/intent"
	"github.com/ganglion-mesh/ganglion/pause"
)

// demoApp is the app that the demo declares: copies of this binary.
func (d *demo) demoApp(count int) intent.App {
	return intent.App{
		Name: "web", Count: &count,
		Run:    intent.Run{Command: []string{d.mesh.bin, workloadCommand}},
		Ports:  map[string]intent.Port{"http": {}},
		Checks: []intent.Check{{Type: intent.CheckHTTP, Path: "/healthz", Every: 500 * intent.Millisecond}},
		Update: intent.Update{HealthyFor: intent.Second, Parallel: 3},
		Stop:   intent.Stop{Grace: 2 * intent.Second},
	}
}

// joinStep starts the agents and waits until all see all and each is a voter.
func (d *demo) joinStep(ctx context.Context) error {
	begun := time.Now()
	if err := d.mesh.start(ctx); err != nil {
		return err
	}
	d.tell.seen(time.Since(begun), "h1 created mesh demo; h2 and h3 joined through it with a token")
	for _, h := range d.mesh.hosts {
		if err := h.awaitHosts(ctx, len(d.mesh.hosts)); err != nil {
			return err
		}
	}
	d.tell.seen(time.Since(begun), "every host sees all three alive")
	m, err := awaitMesh(ctx, d.mesh.hosts[0], func(m api.Mesh) bool { return m.Leader != "" && len(m.Voters) == 3 })
	if err != nil {
		return err
	}
	d.tell.seen(time.Since(begun), "%s leads; %s vote, so that any one of them may be lost", m.Leader, strings.Join(m.Voters, ", "))
	return nil
}

// declare applies the app through h, and tells how long it took until a leader
// accepted it.
func (d *demo) declare(ctx context.Context, h *localHost, app intent.App) (api.ApplyResponse, time.Duration, error) {
	begun := time.Now()
	key := newKey() // of all tries: it is one change
	req := api.ApplyRequest{Intents: intent.Intents{Apps: []intent.App{app}}}
	for {
		var resp api.ApplyResponse
		err := h.client.PostOnce(ctx, "/v1/apply", key, req, &resp)
		if err == nil {
			return resp, time.Since(begun), nil
		}
		if !passing(err) || !pause.For(ctx, 20*time.Millisecond) {
			return resp, 0, h.blame(fmt.Errorf("declare web: %w", err))
		}
	}
}

// settled waits until the app is steady as committed, asked through h, and every
// copy answers at its port as the process that the mesh says it is.
func (d *demo) settled(ctx context.Context, h *localHost, resp api.ApplyResponse) (topology.AppStatus, error) {
	w := &watch{client: h.client, app: "web", patience: readPatience}
	var st topology.AppStatus
	err := (&cli{out: d.tell.out, errs: d.tell.errs, env: d.tell.env}).await(ctx, w, stepLimit, func(list []topology.AppStatus) verdict {
		if len(list) > 0 {
			st = list[0]
		}
		return applied(resp.Versions, list)
	})
	if err != nil {
		return st, err
	}
	d.remember(st)
	for _, cp := range st.Copies {
		if err := answers(ctx, cp); err != nil {
			return st, err
		}
	}
	return st, nil
}

// remember notes the ports and cgroups that copies have, to look at them in the
// end.
func (d *demo) remember(st topology.AppStatus) {
	for _, cp := range st.Copies {
		if g := ownCgroup(cp.Pid); g != "" {
			d.groups[g], d.groups[filepath.Dir(g)] = true, true
		}
		for _, port := range cp.Ports {
			d.used[port] = true
		}
	}
}

// applyStep declares the app.
func (d *demo) applyStep(ctx context.Context) error {
	begun := time.Now()
	resp, took, err := d.declare(ctx, d.mesh.hosts[0], d.demoApp(3))
	if err != nil {
		return err
	}
	d.tell.seen(took, "the leader committed it, as revision %d", resp.Revision)
	st, err := d.settled(ctx, d.mesh.hosts[0], resp)
	if err != nil {
		return err
	}
	d.tell.seen(time.Since(begun), "three copies run, have passed their checks for 1 s, and answer")
	d.tell.detail(places(st))
	return nil
}

// places tells which copy is where.
func places(st topology.AppStatus) []string {
	var out []string
	for _, cp := range st.Copies {
		out = append(out, cp.ID+" on "+cp.Host)
	}
	return out
}

// reflexStep kills a copy and watches its port until another process answers
// there.
func (d *demo) reflexStep(ctx context.Context) error {
	st, err := d.status(ctx, d.mesh.hosts[0])
	if err != nil {
		return err
	}
	victim := st.Copies[len(st.Copies)-1]
	begun := time.Now()
	if err := syscall.Kill(victim.Pid, syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill %s (pid %d): %w", victim.ID, victim.Pid, err)
	}
	pid, err := successor(ctx, victim)
	if err != nil {
		return d.host(victim.Host).blame(err)
	}
	took := time.Since(begun)
	e, err := d.restarted(ctx, victim, pid)
	if err != nil {
		return d.host(victim.Host).blame(err)
	}
	d.tell.say("SIGKILL to pid %d, which is %s on %s.", victim.Pid, victim.ID, victim.Host)
	d.tell.seen(time.Duration(e.AfterUS)*time.Microsecond, "its agent restarted it by itself, asking nobody (event restarted)")
	d.tell.seen(took, "pid %d answers at the same port, counted from the kill", pid)
	return nil
}

// restarted reads the event of a restart from the recorder of its host.
func (d *demo) restarted(ctx context.Context, cp topology.CopyStatus, pid int) (events.AppRestarted, error) {
	query := url.Values{"since": {"1m"}, "filter": {strings.ReplaceAll("app/"+cp.ID, "/", ".") + ".restarted"}}
	for {
		var found *events.AppRestarted
		err := d.host(cp.Host).client.Stream(ctx, "/v1/local/events", query, func(line []byte) bool {
			if e, err := events.Parse(line); err == nil {
				if p, err := e.Payload(); err == nil {
					if r, ok := p.(*events.AppRestarted); ok && r.Pid == pid {
						found = r
					}
				}
			}
			return true
		})
		if found != nil {
			return *found, nil
		}
		if !pause.For(ctx, 20*time.Millisecond) {
			return events.AppRestarted{}, fmt.Errorf("no event tells of the restart of %s as pid %d (%w)", cp.ID, pid, err)
		}
	}
}

// leaderStep kills the leader's agent, has another leader accept a change, and
// lets the agent come back to its copies.
func (d *demo) leaderStep(ctx context.Context) error {
	m, err := awaitMesh(ctx, d.mesh.hosts[0], func(m api.Mesh) bool { return m.Leader != "" })
	if err != nil {
		return err
	}
	old, other := d.host(m.Leader), d.notOn(m.Leader)
	before, err := d.status(ctx, other)
	if err != nil {
		return err
	}
	kept, err := processesOn(before, old.name)
	if err != nil {
		return err
	}
	if err := old.kill(); err != nil {
		return err
	}
	d.tell.say("kill -9 of the agent of %s. At once %s is asked for a fourth copy.", old.name, other.name)
	resp, took, err := d.declare(ctx, other, d.demoApp(4))
	if err != nil {
		return err
	}
	now, err := awaitMesh(ctx, other, func(m api.Mesh) bool { return m.Leader != "" && m.Leader != old.name })
	if err != nil {
		return err
	}
	d.tell.seen(took, "%s was elected and committed the change", now.Leader)
	if err := kept.same(ctx); err != nil {
		return err
	}
	d.tell.seen(0, "what runs on %s never stopped", old.name)
	d.tell.detail(kept.lines())
	return d.comeBack(ctx, old, resp, kept)
}

// comeBack starts a killed agent again, which must take up its copies as they
// are.
func (d *demo) comeBack(ctx context.Context, old *localHost, resp api.ApplyResponse, kept processes) error {
	begun := time.Now()
	if err := old.startAgent(); err != nil {
		return err
	}
	if err := old.awaitAgent(ctx); err != nil {
		return err
	}
	if err := old.adopted(ctx, kept); err != nil {
		return err
	}
	d.tell.seen(time.Since(begun), "the agent of %s came back and adopted it: the same pids", old.name)
	st, err := d.settled(ctx, old, resp)
	if err != nil {
		return err
	}
	if err := errors.Join(kept.same(ctx), kept.in(st)); err != nil {
		return err
	}
	d.tell.seen(time.Since(begun), "all four copies run and answer")
	d.tell.detail(places(st))
	return nil
}

// adopted waits until this host's agent, asked for what it knows itself, runs
// the copies as the processes that they were.
func (h *localHost) adopted(ctx context.Context, kept processes) error {
	for {
		var list []topology.AppStatus
		err := h.client.Get(ctx, "/v1/local/status", nil, &list)
		if err == nil {
			err = errors.New("it knows of no app")
			if len(list) > 0 {
				err = kept.in(list[0])
			}
		}
		if err == nil {
			return nil
		}
		if !pause.For(ctx, 10*time.Millisecond) {
			return h.blame(fmt.Errorf("it did not adopt its copies: %w", err))
		}
	}
}

// hostStep kills a host that does not lead, with all that runs on it.
func (d *demo) hostStep(ctx context.Context) error {
	m, err := awaitMesh(ctx, d.mesh.hosts[0], func(m api.Mesh) bool { return m.Leader != "" && len(m.Voters) == 3 })
	if err != nil {
		return err
	}
	other := d.host(m.Leader)
	before, err := d.status(ctx, other)
	if err != nil {
		return err
	}
	lost := d.busiest(before, m.Leader)
	var rest processes
	gone := map[string]bool{}
	for _, h := range d.mesh.hosts {
		on, err := processesOn(before, h.name)
		if err != nil {
			return err
		}
		if h == lost {
			for _, p := range on {
				gone[p.copy.ID] = true
			}
			continue
		}
		rest = append(rest, on...)
	}
	begun := time.Now()
	if err := errors.Join(lost.kill(), killProcesses(lost.dir)); err != nil {
		return lost.blame(err)
	}
	d.tell.say("%s is gone, with %s.", lost.name, strings.Join(sortedKeys(gone), " and "))
	st, err := d.replaced(ctx, other, lost.name, before.Want)
	if err != nil {
		return err
	}
	d.tell.seen(time.Since(begun), "what it ran runs elsewhere, and answers")
	d.tell.detail(places(st))
	if err := errors.Join(rest.same(ctx), rest.in(st)); err != nil {
		return err
	}
	d.tell.seen(0, "the other copies were not touched")
	d.tell.detail(rest.lines())
	return nil
}

// busiest is the host with the most copies that does not lead.
func (d *demo) busiest(st topology.AppStatus, leader string) *localHost {
	count := map[string]int{}
	for _, cp := range st.Copies {
		count[cp.Host]++
	}
	hosts := slices.DeleteFunc(slices.Clone(d.mesh.hosts), func(h *localHost) bool { return h.name == leader })
	return slices.MaxFunc(hosts, func(a, b *localHost) int { return count[a.name] - count[b.name] })
}

// replaced waits until all copies that are wanted are ready on hosts other than
// lost, and answer.
func (d *demo) replaced(ctx context.Context, h *localHost, lost string, want int) (topology.AppStatus, error) {
	for {
		st, err := d.status(ctx, h)
		if err == nil {
			d.remember(st)
			err = elsewhere(ctx, st, lost, want)
		}
		if err == nil {
			return st, nil
		}
		if !pause.For(ctx, 20*time.Millisecond) {
			return st, h.blame(fmt.Errorf("the work of %s does not run elsewhere in time: %w", lost, err))
		}
	}
}

func elsewhere(ctx context.Context, st topology.AppStatus, lost string, want int) error {
	if len(st.Copies) != want {
		return fmt.Errorf("%d copies instead of %d", len(st.Copies), want)
	}
	for _, cp := range st.Copies {
		if cp.Host == lost || !cp.Ready {
			return errors.New(copyLine(cp))
		}
		if err := answers(ctx, cp); err != nil {
			return err
		}
	}
	return nil
}

// deleteStep removes the app and waits until its copies have ended.
func (d *demo) deleteStep(ctx context.Context) error {
	begun := time.Now()
	i := slices.IndexFunc(d.mesh.hosts, (*localHost).alive)
	h := d.mesh.hosts[i]
	if err := h.client.Delete(ctx, "/v1/apps/web", nil); err != nil {
		return h.blame(fmt.Errorf("delete web: %w", err))
	}
	if _, err := (&cli{env: d.tell.env}).awaitGone(ctx, h.client, "web", 10*time.Second); err != nil {
		return h.blame(fmt.Errorf("delete web: %w", err))
	}
	d.tell.seen(time.Since(begun), "web was deleted and its copies have ended")
	return nil
}

// status reads the app's status through h.
func (d *demo) status(ctx context.Context, h *localHost) (topology.AppStatus, error) {
	var st topology.AppStatus
	if err := h.client.Get(ctx, "/v1/status", url.Values{"app": {"web"}}, &st); err != nil {
		return st, h.blame(err)
	}
	return st, nil
}

func (d *demo) host(name string) *localHost {
	for _, h := range d.mesh.hosts {
		if h.name == name {
			return h
		}
	}
	return d.mesh.hosts[0]
}

func (d *demo) notOn(name string) *localHost {
	for _, h := range d.mesh.hosts {
		if h.name != name {
			return h
		}
	}
	return nil
}
