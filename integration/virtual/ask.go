package virtual

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/intent"
)

// askPatience is how long a client waits for one agent before it asks another.
const askPatience = 2 * time.Second

// App is an app of count copies that run until they are stopped.
func App(name string, count int) intent.App {
	return intent.App{Name: name, Count: &count, Run: intent.Run{Command: []string{"sleep"}}}
}

// Stubborn is an app whose copies heed no SIGTERM: to stop one takes the grace.
func Stubborn(name string, count int, grace time.Duration) intent.App {
	a := App(name, count)
	a.Run.Command = []string{"stubborn"}
	a.Stop.Grace = intent.Duration(grace)
	return a
}

// Ask asks the agents of the named hosts in turn, all that are up if none is
// named, each for at most two seconds, until one has an answer or ctx ends.
func (m *Mesh) Ask(ctx context.Context, f func(ctx context.Context, h *Host) error, hosts ...*Host) error {
	if len(hosts) == 0 {
		hosts = m.Up()
	}
	err := errors.New("no agent runs")
	for _, h := range hosts {
		if ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
		actx, cancel := context.WithTimeout(ctx, askPatience)
		err = f(actx, h)
		cancel()
		if err == nil || final(err) {
			return err
		}
	}
	return err
}

// final tells whether another agent would say the same.
func final(err error) bool {
	switch api.CodeOf(err) {
	case api.CodeInvalid, api.CodeNotYet, api.CodeRejected, api.CodeNotFound, api.CodeDenied:
		return true
	}
	return false
}

// Get reads path at any agent that answers.
func (m *Mesh) Get(ctx context.Context, path string, q url.Values, out any, hosts ...*Host) error {
	return m.Ask(ctx, func(ctx context.Context, h *Host) error { return h.Get(ctx, path, q, out) }, hosts...)
}

// Apply commits apps, by any agent that answers within half a minute.
func (m *Mesh) Apply(apps ...intent.App) {
	m.t.Helper()
	m.Await(30*time.Second, "apply", func(ctx context.Context) error { return m.TryApply(ctx, apps) })
}

// TryApply asks once for apps to be committed. More copies count as wanted from
// then on, for it may have happened whatever the answer is; fewer count when the
// answer says so.
func (m *Mesh) TryApply(ctx context.Context, apps []intent.App, hosts ...*Host) error {
	for _, a := range apps {
		m.ledger.wantAtLeast(a.Name, a.Copies())
	}
	req := api.ApplyRequest{Intents: intent.Intents{Apps: apps}}
	key := rand.Text() // as the command does: a write that is asked for twice is made once
	err := m.Ask(ctx, func(ctx context.Context, h *Host) error {
		return h.PostOnce(ctx, "/v1/apply", key, req, nil)
	}, hosts...)
	for _, a := range apps {
		if err == nil {
			m.ledger.want(a.Name, a.Copies())
		}
	}
	return err
}

// Delete removes an app.
func (m *Mesh) Delete(ctx context.Context, app string) error {
	err := m.Ask(ctx, func(ctx context.Context, h *Host) error { return h.Delete(ctx, "/v1/apps/"+app, nil) })
	if err == nil {
		m.ledger.want(app, 0)
	}
	return err
}

// Drain empties a host, or with undrain lets it have copies again.
func (m *Mesh) Drain(ctx context.Context, host string, undrain bool) error {
	verb := "drain"
	if undrain {
		verb = "undrain"
	}
	return m.Ask(ctx, func(ctx context.Context, h *Host) error {
		return h.Post(ctx, "/v1/hosts/"+host+"/"+verb, nil, nil, nil)
	})
}

// Set changes settings of the mesh.
func (m *Mesh) Set(ctx context.Context, set api.MeshSettings) error {
	return m.Ask(ctx, func(ctx context.Context, h *Host) error { return h.Post(ctx, "/v1/mesh", nil, set, nil) })
}

// Status returns what the leader says of an app.
func (m *Mesh) Status(ctx context.Context, app string, hosts ...*Host) (topology.AppStatus, error) {
	var st topology.AppStatus
	err := m.Get(ctx, "/v1/status", url.Values{"app": {app}}, &st, hosts...)
	return st, err
}

// About returns what any of the hosts says of the mesh.
func (m *Mesh) About(ctx context.Context, hosts ...*Host) (api.Mesh, error) {
	var about api.Mesh
	err := m.Get(ctx, "/v1/mesh", nil, &about, hosts...)
	return about, err
}

// Leader returns the host that leads, waiting for one for half a minute.
func (m *Mesh) Leader(hosts ...*Host) *Host {
	m.t.Helper()
	var about api.Mesh
	m.Await(30*time.Second, "find leader", func(ctx context.Context) (err error) {
		if about, err = m.About(ctx, hosts...); err == nil && about.Leader == "" {
			err = errors.New("none is known")
		}
		return err
	})
	return m.Host(about.Leader)
}

// AwaitMembers waits until n hosts are alive and report, by the leader's word,
// and the agent of every host that is up passes that word on.
func (m *Mesh) AwaitMembers(within time.Duration, n int) time.Duration {
	m.t.Helper()
	return m.Await(within, "members", func(ctx context.Context) error { return m.members(ctx, n) })
}

func (m *Mesh) members(ctx context.Context, n int) error {
	for _, h := range m.Up() {
		var hosts []api.Host
		if err := m.Get(ctx, "/v1/hosts", nil, &hosts, h); err != nil {
			return fmt.Errorf("%s: %w", h.Name, err)
		}
		alive := 0
		for _, x := range hosts {
			if x.Status == "alive" && x.Note == "" {
				alive++
			}
		}
		if alive != n {
			return fmt.Errorf("asked at %s: %d alive of %+v", h.Name, alive, hosts)
		}
	}
	return nil
}

// AwaitVoters waits until there are n voters, and returns them.
func (m *Mesh) AwaitVoters(within time.Duration, n int) []string {
	m.t.Helper()
	var voters []string
	m.Await(within, fmt.Sprintf("%d voters", n), func(ctx context.Context) error {
		about, err := m.About(ctx)
		if voters = about.Voters; err == nil && len(voters) != n {
			err = fmt.Errorf("there are %v", voters)
		}
		return err
	})
	return voters
}

// AwaitReady waits until an app has all of its copies, count of them ready, and
// what runs is what the leader says. It returns how long that took.
func (m *Mesh) AwaitReady(within time.Duration, app string, count int) time.Duration {
	m.t.Helper()
	return m.Await(within, app+" ready", func(ctx context.Context) error { return m.Ready(ctx, app, count) })
}

// Ready tells why an app is not as it should be: count copies ready by the
// leader's word, and exactly these running, by the word of the kernels.
func (m *Mesh) Ready(ctx context.Context, app string, count int) error {
	st, err := m.Status(ctx, app)
	if err != nil {
		return err
	}
	if st.Ready != count || st.Want != count || len(st.Copies) != count {
		return fmt.Errorf("%d of %d ready, %d wanted: %+v", st.Ready, len(st.Copies), count, st)
	}
	running := m.History().Running(app)
	for _, c := range st.Copies {
		if !slices.ContainsFunc(running, func(s Span) bool { return s.Copy.String() == c.ID && s.Host == c.Host }) {
			return fmt.Errorf("%s does not run on %s: %v", c.ID, c.Host, running)
		}
	}
	if len(running) != count {
		return fmt.Errorf("%d run, want %d: %v", len(running), count, running)
	}
	return nil
}

// Gone tells why a deleted app is not gone.
func (m *Mesh) Gone(ctx context.Context, app string) error {
	if running := m.History().Running(app); len(running) > 0 {
		return fmt.Errorf("still running: %v", running)
	}
	if _, err := m.Status(ctx, app); err == nil || api.CodeOf(err) != api.CodeNotFound {
		return fmt.Errorf("status of a deleted app: %w", errors.Join(err, errors.New("want not found")))
	}
	return nil
}
