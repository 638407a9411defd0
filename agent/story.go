package agent

import "github.com/ganglion-mesh/ganglion/events"

// emit records one event and returns its id, empty if it could not be.
func (m *member) emit(d events.Draft) string { return m.record(d).ID }

// record is emit that returns the event as it was recorded.
func (m *member) record(d events.Draft) events.Event {
	e, _ := m.append(d) // it is logged, and the recorder counts it
	return e
}

// tell is emit that says why an event could not be recorded.
func (m *member) tell(d events.Draft) error {
	_, err := m.append(d)
	return err
}

func (m *member) append(d events.Draft) (events.Event, error) {
	e, err := m.recorder.Append(d)
	m.unrecorded(d, err)
	return e, err
}

// unrecorded logs that an event could not be recorded, if so.
func (m *member) unrecorded(d events.Draft, err error) {
	if err != nil {
		m.log.Warn("record event", "type", d.Type, "subject", d.Subject, "error", err)
	}
}

// upstream is where the mesh has its NATS.
func (m *member) upstream() events.Upstream {
	if len(m.cfg.NATS) > 0 {
		return events.Upstream{Servers: func() []string { return m.cfg.NATS }}
	}
	return events.Upstream{Local: m.nats.local, Servers: m.nats.urls, TLS: m.id.ClientTLS()}
}

func (m *member) publisherConfig() events.PublisherConfig {
	return events.PublisherConfig{Recorder: m.recorder, Mesh: m.meshName(), Logger: m.log, Upstream: m.upstream()}
}
