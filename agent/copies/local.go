package copies

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"

	"github.com/ganglion-mesh/ganglion/durable"
	"github.com/ganglion-mesh/ganglion/workload"
)

// ErrUnknownCopy is returned for a copy that this host does not have.
var ErrUnknownCopy = errors.New("no such copy on this host")

const localFile = "local-stops.json"

// localStops are the copies that were stopped through this host alone, with the
// generation that was stopped. A later decision of the mesh about the copy, which
// makes another generation, is the later word and ends the stop.
type localStops struct {
	path string
	gen  map[workload.CopyID]uint64
}

func loadLocalStops(dir string) (localStops, error) {
	l := localStops{path: filepath.Join(dir, localFile), gen: map[workload.CopyID]uint64{}}
	if err := readFile(l.path, &l.gen); err != nil {
		return l, fmt.Errorf("load local stops: %w; remove %s to forget them", err, l.path)
	}
	return l, nil
}

// change makes fn's change durable before it takes effect.
func (l *localStops) change(fn func(map[workload.CopyID]uint64)) error {
	next := maps.Clone(l.gen)
	fn(next)
	if maps.Equal(next, l.gen) {
		return nil
	}
	if err := writeFile(l.path, next); err != nil {
		return fmt.Errorf("save local stops: %w", err)
	}
	l.gen = next
	return nil
}

// readFile reads JSON that writeFile wrote into v, and leaves v as it is where
// there is no file.
func readFile(path string, v any) error {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return json.Unmarshal(b, v)
}

// writeFile replaces path by v as JSON, on disk when it returns.
func writeFile(path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return durable.Replace(path, b, 0o600)
}

// StopLocal stops a copy through this host alone, with no leader. It holds, over
// restarts of the agent too, until StartLocal, RestartLocal or a later decision
// of the mesh about the copy. It returns when it is decided, not when the copy
// has ended.
func (m *Manager) StopLocal(id workload.CopyID) error {
	return m.setLocal("stop", id, func(stops map[workload.CopyID]uint64, o order) { stops[id] = o.target.Generation })
}

// StartLocal ends a StopLocal. A copy that the mesh has stopped it does not
// start.
func (m *Manager) StartLocal(id workload.CopyID) error {
	return m.setLocal("start", id, func(stops map[workload.CopyID]uint64, _ order) { delete(stops, id) })
}

// RestartLocal restarts a copy now, back-off or not, and ends a StopLocal.
func (m *Manager) RestartLocal(id workload.CopyID) error {
	return m.setLocal("restart", id, func(stops map[workload.CopyID]uint64, _ order) { delete(stops, id) })
}

func (m *Manager) setLocal(verb string, id workload.CopyID, fn func(map[workload.CopyID]uint64, order)) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	o, ok := m.orders[id]
	if !ok {
		return fmt.Errorf("%s %s: %w", verb, id, ErrUnknownCopy)
	}
	if o.target.Stopped != "" && verb != "stop" {
		return fmt.Errorf("%s %s: the mesh has stopped it; use ganglion start without --local", verb, id)
	}
	if err := m.local.change(func(stops map[workload.CopyID]uint64) { fn(stops, o) }); err != nil {
		return fmt.Errorf("%s %s: %w", verb, id, err)
	}
	if verb == "restart" { // with the end of the stop, or the copy would start twice
		m.restarts[id] = true
	}
	m.signal()
	return nil
}

const locallyStopped = "stopped on this host; start it with: ganglion start --local "

// forgetLocal drops the local stops that no longer mean anything. It is called
// with mu held.
func (m *Manager) forgetLocal() {
	err := m.local.change(func(stops map[workload.CopyID]uint64) {
		maps.DeleteFunc(stops, func(id workload.CopyID, gen uint64) bool {
			o, ok := m.orders[id]
			return !ok || o.target.Generation != gen
		})
	})
	if err != nil { // they do no harm: a generation never comes back
		m.log.Warn("forget local stops", "error", err)
	}
}

// effective returns an order as it is to be carried out: the mesh's, unless the
// copy is stopped here. It is called with mu held.
func (m *Manager) effective(o order) order {
	if gen, ok := m.local.gen[o.id]; ok && gen == o.target.Generation && o.target.Stopped == "" {
		o.target.Stopped = locallyStopped + o.id.String()
	}
	return m.underLease(o)
}
