package topology

import (
	"bytes"
	"slices"
	"testing"

	"github.com/ganglion-mesh/ganglion/intent"
)

// upToDate is the slice of a host that has taken up, and reported on, whatever it
// was told.
const upToDate = 1 << 40

// world applies commands with rising indexes.
type world struct {
	t     testing.TB
	state *State
	index uint64
	heard hearer // of every history: what is told must account for what is
}

func newWorld(t testing.TB) *world {
	w := &world{t: t, state: New()}
	w.must(Command{Found: &Found{MeshID: "mesh-id", Name: "main", CACert: []byte("cert"), CAKey: []byte("key"), GossipKey: []byte("gossip")}})
	return w
}

// apply runs a command the way a voter does: through its encoding.
func (w *world) apply(c Command) Result {
	w.t.Helper()
	data, err := EncodeCommand(c)
	if err != nil {
		w.t.Fatalf("encode %+v: %v", c, err)
	}
	decoded, err := DecodeCommand(data)
	if err != nil {
		w.t.Fatalf("decode %+v: %v", c, err)
	}
	w.index++
	next, result := w.state.Apply(w.index, decoded)
	if result.Err != nil && next != w.state {
		w.t.Fatalf("rejected %+v, and yet the state changed", c)
	}
	if w.state = next; result.Changed {
		w.heard.read(next.Untold(w.index))
	}
	if w.index%8 == 0 {
		if why := w.heard.differs(next); why != "" {
			w.t.Fatalf("what is told of %+v: %s", c, why)
		}
	}
	return result
}

func (w *world) must(c Command) {
	w.t.Helper()
	if r := w.apply(c); r.Err != nil {
		w.t.Fatalf("apply %+v: %v", c, r.Err)
	}
}

func (w *world) refuse(kind RejectKind, c Command) string {
	w.t.Helper()
	r := w.apply(c)
	if r.Err == nil || r.Err.Kind != kind {
		w.t.Fatalf("apply %+v: got %v, want a rejection of kind %s", c, r.Err, kind)
	}
	return r.Err.Why
}

func (w *world) enrol(names ...string) {
	w.t.Helper()
	for _, name := range names {
		w.must(Command{EnrolHost: &EnrolHost{Name: name, ID: "id-" + name}})
	}
}

func (w *world) put(apps ...intent.App) {
	w.t.Helper()
	w.must(Command{PutIntents: &PutIntents{Intents: intent.Intents{Apps: apps}.Normalize()}})
}

func (w *world) app(name string) App {
	w.t.Helper()
	a, ok := w.state.App(name)
	if !ok {
		w.t.Fatalf("app %s is missing", name)
	}
	return a
}

// ends is the command that records how the app's rollout ended.
func (w *world) ends(name string, outcome Outcome) Command {
	w.t.Helper()
	r := w.app(name).Rollout
	r.Outcome = outcome
	return Command{SetRollout: &SetRollout{App: name, Rollout: r}}
}

// acts is what a decision does besides forgetting what has stopped.
func acts(d Decision) []Command {
	return slices.DeleteFunc(slices.Clone(d.Commands), func(c Command) bool { return c.Sweep != nil })
}

func app(name string, count int, change ...func(*intent.App)) intent.App {
	a := intent.App{Name: name, Count: &count, Run: intent.Run{Command: []string{"/bin/" + name}}}
	for _, f := range change {
		f(&a)
	}
	return a.WithDefaults()
}

func snapshot(t interface{ Fatalf(string, ...any) }, s *State) []byte {
	var b bytes.Buffer
	if err := s.Write(&b); err != nil {
		t.Fatalf("write snapshot: %v", err)
	}
	return b.Bytes()
}
