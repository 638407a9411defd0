package topology

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// TestRemovedHostIsRevoked: its id is refused for good, every host hears of it,
// and it is told itself with a slice newer than its last.
func TestRemovedHostIsRevoked(t *testing.T) {
	w := newWorld(t)
	for _, name := range []string{"h1", "h2"} {
		w.enrol(name)
	}
	last, other := w.state.Slice("h2"), w.state.Slice("h1")
	w.refuse(RejectConflict, Command{RemoveHost: &RemoveHost{Name: "h2", ID: "id-h2", Drained: true}})
	w.must(Command{SetDrain: &SetDrain{Host: "h2", Drain: DrainDraining, Removing: true}})
	if sl := w.state.Slice("h2"); !sl.Removing || sl.Index <= last.Index {
		t.Errorf("it is not told that it is being removed: %+v", sl)
	}
	w.must(Command{SetDrain: &SetDrain{Host: "h2", Drain: DrainDrained}})
	if sl := w.state.Slice("h2"); !sl.Removing || sl.Drain != DrainDrained {
		t.Errorf("drained, it is not being removed any more: %+v", sl)
	}
	last = w.state.Slice("h2")
	w.must(Command{RemoveHost: &RemoveHost{Name: "h2", ID: "id-h2", Drained: true, Unproved: []string{"copies"}}})

	if sl := w.state.Slice("h1"); sl.Index <= other.Index || !reflect.DeepEqual(sl.Revoked, []string{"id-h2"}) {
		t.Errorf("the other host is not told: %+v", sl)
	}
	gone, ok := w.state.Farewell("id-h2")
	if !ok || gone.Index <= last.Index || gone.Host != "h2" || gone.Gone == nil || len(gone.Assignments) > 0 || gone.Gone.Left {
		t.Errorf("farewell %+v, %v", gone, ok)
	}
	if why := w.refuse(RejectConflict, Command{EnrolHost: &EnrolHost{Name: "h3", ID: "id-h2"}}); !strings.Contains(why, "was removed") {
		t.Errorf("enrolled again: %s", why)
	}
	w.must(Command{EnrolHost: &EnrolHost{Name: "h2", ID: "new"}}) // the name is free
	if sl := w.state.Slice("h2"); sl.Gone != nil || sl.Removing || sl.Index <= gone.Index {
		t.Errorf("a new host of that name: %+v", sl)
	}
	var b bytes.Buffer
	if err := w.state.Write(&b); err != nil {
		t.Fatal(err)
	}
	again, err := Read(&b)
	if err != nil {
		t.Fatal(err)
	}
	if r, ok := again.Revoked("id-h2"); !ok || !reflect.DeepEqual(r.Unproved, []string{"copies"}) {
		t.Errorf("a snapshot forgets it: %+v, %v", r, ok)
	}
}

func TestUndrainEndsRemoval(t *testing.T) {
	w := newWorld(t)
	w.enrol("h1")
	w.must(Command{SetDrain: &SetDrain{Host: "h1", Drain: DrainDraining}})
	w.must(Command{SetDrain: &SetDrain{Host: "h1", Drain: DrainDrained}})
	w.must(Command{SetDrain: &SetDrain{Host: "h1", Drain: DrainDraining, Removing: true}})
	if h, _ := w.state.Host("h1"); !h.Removing || h.Drain != DrainDrained {
		t.Errorf("a drained host is not being removed, or must be drained again: %+v", h)
	}
	w.must(Command{SetDrain: &SetDrain{Host: "h1", Drain: DrainNone}})
	if h, _ := w.state.Host("h1"); h.Removing || h.Drain != DrainNone {
		t.Errorf("taken back: %+v", h)
	}
	w.refuse(RejectInvalid, Command{SetDrain: &SetDrain{Host: "h1", Drain: DrainNone, Removing: true}})
}

func TestRevocationsAreBounded(t *testing.T) {
	w := newWorld(t)
	for i := range MaxRevoked + 5 {
		name := fmt.Sprintf("h%d", i)
		w.must(Command{EnrolHost: &EnrolHost{Name: name, ID: name}})
		w.must(Command{RemoveHost: &RemoveHost{Name: name, ID: name}})
	}
	if n := len(w.state.revokedIDs()); n != MaxRevoked {
		t.Errorf("%d are remembered", n)
	}
	if _, ok := w.state.Revoked("h4"); ok {
		t.Error("an old one is")
	}
	if _, ok := w.state.Revoked("h5"); !ok {
		t.Error("a later one is not")
	}
}
