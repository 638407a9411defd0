package copies

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/intent"
	"github.com/ganglion-mesh/ganglion/workload"
)

// order is one assignment made ready to be carried out: every placeholder is
// filled, every rule read. It is not changed once made.
type order struct {
	id     workload.CopyID
	target workload.Target
	spec   workload.Spec // without Package
	run    intent.Run    // names the package
	ports  map[string]int
	static map[string]bool // ports that the user chose
	checks []intent.Check
	smokes []intent.Check
	smoke  uint64 // asks to run smokes, once for each value; 0: it does not
	fault  error  // why it cannot be carried out as it is

	singleton bool // it runs under a lease or not at all
}

// newOrder never fails: what is wrong with an assignment is the state of its
// copy, told like any other.
func (m *Manager) newOrder(a topology.Assignment) order {
	p, app := a.Placement, a.Spec
	o := order{
		id:     workload.CopyID{App: p.App, N: p.N},
		run:    app.Run,
		ports:  p.Ports,
		smoke:  a.Smoke,
		static: map[string]bool{},

		singleton: app.Singleton,
	}
	for name, port := range app.Ports {
		o.static[name] = port.Static != 0
	}
	policy, err := workload.PolicyOf(app)
	if err != nil {
		o.fault = err
		app.Stop = intent.Stop{} // all that a policy can be refused for
		policy, _ = workload.PolicyOf(app)
	}
	policy.Stable = m.cfg.Stable
	o.target = workload.Target{Version: p.Version, Generation: p.Generation, Policy: policy}
	if p.Stopped {
		o.target.Stopped = "stopped; start it with: ganglion start " + o.id.String()
	}
	f := filler{m: m, o: &o}
	o.spec = workload.Spec{
		ID: o.id, Version: p.Version, Generation: p.Generation,
		Command: f.all(app.Run.Command), Env: f.env(app.Run.Env),
		User: app.Run.User, Dir: app.Run.Dir,
		CPU: app.Resources.CPU, Memory: int64(app.Resources.Memory),
		SelfHeal: !app.Singleton && !app.Once && app.Schedule == "",
		Once:     app.Once || app.Schedule != "",
	}
	for _, c := range workload.Probes(app) {
		c.Path, c.Port, c.Command = f.one(c.Path), f.one(c.Port), f.all(c.Command)
		o.checks = append(o.checks, c)
	}
	for _, c := range app.Checks {
		if c.Type == intent.CheckSmoke {
			c.Command = f.all(c.Command)
			o.smokes = append(o.smokes, c)
		}
	}
	o.fault = errors.Join(o.fault, f.err)
	return o
}

// filler fills placeholders and keeps the first error.
type filler struct {
	m   *Manager
	o   *order
	err error
}

func (f *filler) one(s string) string {
	out, err := intent.Expand(s, f.value)
	if err != nil && f.err == nil {
		f.err = err
	}
	return out
}

func (f *filler) all(in []string) []string {
	out := make([]string, len(in))
	for i, s := range in {
		out[i] = f.one(s)
	}
	return out
}

// env adds PORT_<NAME> to what the user wrote.
func (f *filler) env(in map[string]string) map[string]string {
	out := make(map[string]string, len(in)+len(f.o.ports))
	for _, name := range slices.Sorted(maps.Keys(in)) {
		out[name] = f.one(in[name])
	}
	for name, port := range f.o.ports {
		out["PORT_"+strings.ToUpper(strings.ReplaceAll(name, "-", "_"))] = strconv.Itoa(port)
	}
	return out
}

func (f *filler) value(name string) (string, error) {
	switch name {
	case intent.PlaceholderCopy:
		return strconv.Itoa(f.o.id.N), nil
	case intent.PlaceholderHostName:
		return f.m.cfg.Host, nil
	case intent.PlaceholderHostAddr:
		return f.m.cfg.HostAddr, nil
	}
	if port, ok := f.o.ports[strings.TrimPrefix(name, intent.PortPlaceholder)]; ok && strings.HasPrefix(name, intent.PortPlaceholder) {
		return strconv.Itoa(port), nil
	}
	return "", fmt.Errorf("this copy has no %s", name)
}
