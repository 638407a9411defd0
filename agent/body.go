package agent

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/agent/copies"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/events"
	"github.com/ganglion-mesh/ganglion/workload"
	"github.com/ganglion-mesh/ganglion/workload/output"
)

// starvedAbove is the share of time in which tasks of this host wait for CPU,
// memory or I/O above which a check that timed out says nothing about the copy.
const starvedAbove = 0.6

func (m *member) copiesConfig(d workload.Driver) copies.Config {
	return copies.Config{
		Driver: d, Host: m.cfg.Name, HostAddr: m.cfg.Advertise, Dir: m.store.dir, Logger: m.log,
		BootClock: m.cfg.bootClock(),
		Emit:      m.emitCopy, Packages: m.packages,
		LastOutput: m.lastOutput, Frozen: m.braked,
		Starved: func() bool {
			v, _, ok := m.pool.Vitals(m.cfg.Name)
			return ok && v.Pressure > starvedAbove
		},
	}
}

// lastOutput is the end of what a copy wrote, as one short line; empty if the
// driver keeps no output.
func (m *member) lastOutput(id workload.CopyID) string {
	if m.outputs == nil {
		return ""
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	var last []byte
	_ = m.outputs.Read(ctx, id, output.ReadOptions{Tail: 3}, func(c output.Chunk) error {
		last = append(last, c.Data...)
		return nil
	}) // what cannot be read is left out
	text := strings.Join(strings.FieldsFunc(strings.ToValidUTF8(string(last), "?"), func(r rune) bool { return r < ' ' || r == 0x7f }), " / ")
	const most = 240
	if len(text) > most {
		text = "…" + strings.ToValidUTF8(text[len(text)-most:], "")
	}
	return text
}

// emitCopy records what happened to a copy: one plain write. What it returns has
// publishers and reflexes know.
func (m *member) emitCopy(e copies.Event) (id string, spread func()) {
	d := events.New(events.AppSubject(e.Copy.App, strconv.Itoa(e.Copy.N)), copyPayload(e.Data))
	d = d.With(e.Cause, m.slices.index()).Along(m.nerves.pulse.chain(e.Copy.String(), m.bootTime()))
	recorded, err := m.recorder.AppendQuietly(d)
	m.unrecorded(d, err)
	return recorded.ID, func() {
		m.nerves.felt(e, recorded.ID)
		m.recorder.Announce()
	}
}

// copyPayload translates the data of a copy's event. The two packages are
// siblings; that their structs agree is checked by the conversions.
func copyPayload(data any) events.Payload {
	switch d := data.(type) {
	case copies.Started:
		return events.AppStarted(d)
	case copies.Ready:
		return events.AppReady(d)
	case copies.Unhealthy:
		return events.AppUnhealthy(d)
	case copies.Exited:
		return events.AppExited(d)
	case copies.Fenced:
		return events.AppFenced(d)
	case copies.Restarted:
		return events.AppRestarted(d)
	case copies.Stopped:
		return events.AppStopped(d)
	case copies.NeedsHuman:
		return events.AppNeedsHuman(d)
	}
	return nil
}

// copyReport translates a copy's report for the leader.
func copyReport(c copies.CopyReport) api.CopyReport {
	out := api.CopyReport{
		ID: c.ID.String(), Version: c.Version, Generation: c.Generation, State: c.State, Ready: c.Ready,
		ReadyMS: c.ReadyFor.Milliseconds(), AgeMS: c.Age.Milliseconds(), Failed: c.Failed, Why: c.Why,
		Pid: c.Pid, Restarts: c.Restarts, Done: c.Done,
		BestMS: c.BestReady.Milliseconds(), LapsedMS: c.LapsedAfter.Milliseconds(), LapsedWhy: c.LapsedWhy, Smoke: c.Smoke, SmokeEnd: c.SmokeEnd, SmokeWhy: c.SmokeWhy,
	}
	if !c.Since.IsZero() {
		out.Since = &c.Since
	}
	return out
}

// localStatus is the status of what runs on this host, from what it knows by
// itself; app empty means all.
func (m *member) localStatus(app string) []topology.AppStatus {
	specs := map[string]topology.Assignment{}
	for _, a := range m.slices.slice().Assignments {
		specs[a.Placement.App] = a
	}
	out := []topology.AppStatus{}
	for _, c := range m.copies.Reports() {
		if app != "" && c.ID.App != app {
			continue
		}
		if len(out) == 0 || out[len(out)-1].App != c.ID.App {
			out = append(out, topology.AppStatus{
				App: c.ID.App, Kind: specs[c.ID.App].Spec.Kind(), Version: c.Version, State: topology.AppSteady,
				Copies: []topology.CopyStatus{},
			})
		}
		st := &out[len(out)-1]
		st.Want++
		if c.Ready {
			st.Ready++
		} else {
			st.State = topology.AppDegraded
		}
		st.Copies = append(st.Copies, m.localCopy(c))
	}
	return out
}

func (m *member) localCopy(c copies.CopyReport) topology.CopyStatus {
	return topology.CopyStatus{
		ID: c.ID.String(), Host: m.cfg.Name, Addr: m.cfg.Advertise, Version: c.Version, State: c.State,
		Ready: c.Ready, Pid: c.Pid, Restarts: c.Restarts, Token: c.Token, Since: c.Since, Ports: c.Ports, Why: c.Why,
	}
}

// postLocalVerb stops, starts or restarts copies of this host with no leader.
func (s *server) postLocalVerb(r *http.Request, _ []byte) (any, error) {
	n, err := copyNumber(r)
	if err != nil {
		return nil, err
	}
	act := map[string]func(workload.CopyID) error{
		"stop": s.copies.StopLocal, "start": s.copies.StartLocal, "restart": s.copies.RestartLocal,
	}[r.PathValue("verb")]
	if act == nil {
		return nil, api.Errorf(api.CodeNotFound, "act on app %s: no such action %q", r.PathValue("app"), r.PathValue("verb"))
	}
	if c, err := s.callerOf(r); err != nil || !c.local {
		return nil, api.Errorf(api.CodeDenied, "act on copies of host %s alone: only through its own socket", s.cfg.Name)
	}
	found := false
	for _, c := range s.copies.Reports() {
		if c.ID.App != r.PathValue("app") || n != nil && c.ID.N != *n {
			continue
		}
		found = true
		if err := act(c.ID); err != nil {
			return nil, err
		}
	}
	if !found {
		return nil, api.Errorf(api.CodeNotFound, "find app %q on host %s: none of its copies are here (ganglion status --local)", r.PathValue("app"), s.cfg.Name)
	}
	return api.Version{Host: s.cfg.Name}, nil
}

// getNATS tells how any NATS client connects.
func (s *server) getNATS(*http.Request, []byte) (any, error) {
	out := api.NATS{URLs: s.nats.urls(), Subjects: "ganglion." + s.meshName() + ".>", Embedded: len(s.cfg.NATS) == 0}
	if out.Embedded {
		out.Note = "without a certificate of the mesh, clients may subscribe from loopback of the serving host, and never publish"
		if local := "nats://127.0.0.1:" + strconv.Itoa(s.ports.NATS); s.nats.cur.Load() != nil && !slices.Contains(out.URLs, local) {
			out.URLs = append([]string{local}, out.URLs...)
		}
	}
	if out.URLs == nil {
		out.URLs = []string{}
	}
	return out, nil
}
