package topology

import (
	"bytes"
	"reflect"
	"testing"

	"github.com/ganglion-mesh/ganglion/intent"
)

func shed(when string) intent.Reflex {
	return intent.Reflex{Name: "shed", When: when, Act: []intent.Action{{Op: "restart", Target: "web"}}, Mode: intent.ModeEnforce}
}

func putReflexes(set string, list ...intent.Reflex) Command {
	return Command{PutIntents: &PutIntents{Intents: intent.Intents{Reflexes: list}, Set: set}}
}

// TestReflexesReachEveryHost: a reflex outside of apps is in the slice of every
// host, also of one that comes later, and only a change of it moves them.
func TestReflexesReachEveryHost(t *testing.T) {
	w := newWorld(t)
	w.enrol("h1")
	w.must(putReflexes("", shed("a")))
	w.enrol("h2")
	for _, host := range []string{"h1", "h2"} {
		if got := w.state.Slice(host).Reflexes; len(got) != 1 || got[0].When != "a" {
			t.Errorf("slice of %s has reflexes %+v", host, got)
		}
	}
	at := w.state.Slice("h1").Index
	for _, same := range []Command{putReflexes("", shed("a")), putReflexes("ops", shed("a"))} {
		w.must(same)
		if i := w.state.Slice("h1").Index; i != at {
			t.Errorf("a slice moved from %d to %d though its reflexes did not change", at, i)
		}
	}
	w.must(putReflexes("", shed("b")))
	r, _ := w.state.Reflex("shed")
	if sl := w.state.Slice("h2"); sl.Index <= at || sl.Reflexes[0].When != "b" || r.Set != "ops" || r.Created >= r.Modified {
		t.Errorf("after the change: slice %+v, reflex %+v", sl, r)
	}
	w.refuse(RejectConflict, Command{PutIntents: &PutIntents{
		Intents: intent.Intents{Reflexes: []intent.Reflex{shed("c")}}, Expect: map[string]uint64{ReflexKey("shed"): r.Created},
	}})
	if got := Changes(w.state, *putReflexes("", shed("c")).PutIntents); len(got) != 1 || got[0].Op != intent.OpChange || got[0].Kind != intent.ChangeReflex {
		t.Errorf("changes: %+v", got)
	}
}

// TestReflexesGo: by their name, or by an apply of their set that no longer names
// them; those of other sets stay.
func TestReflexesGo(t *testing.T) {
	w := newWorld(t)
	w.enrol("h1")
	other := shed("x")
	other.Name = "other"
	w.must(putReflexes("ops", shed("a")))
	w.must(putReflexes("", other))
	before := w.state.Slice("h1").Index
	prune := Command{PutIntents: &PutIntents{Set: "ops", Prune: true}}
	if got := Changes(w.state, *prune.PutIntents); len(got) != 1 || got[0].Op != intent.OpRemove || got[0].Name != "shed" {
		t.Errorf("changes: %+v", got)
	}
	w.must(prune)
	if sl := w.state.Slice("h1"); len(sl.Reflexes) != 1 || sl.Reflexes[0].Name != "other" || sl.Index <= before {
		t.Errorf("after the prune: %+v", sl)
	}
	w.must(Command{DeleteReflex: &DeleteReflex{Name: "other"}})
	if sl := w.state.Slice("h1"); len(sl.Reflexes) != 0 {
		t.Errorf("after the delete: %+v", sl)
	}
}

// TestReflexesAreKept: by snapshots, and by backups.
func TestReflexesAreKept(t *testing.T) {
	w := newWorld(t)
	w.enrol("h1")
	w.must(putReflexes("ops", shed("a")))
	var file bytes.Buffer
	if err := w.state.Write(&file); err != nil {
		t.Fatal(err)
	}
	again, err := Read(&file)
	if err != nil || !reflect.DeepEqual(again.Reflexes(), w.state.Reflexes()) {
		t.Errorf("read %+v, %v", again.Reflexes(), err)
	}
	saved := w.state.Restoration()
	want := w.state.Reflexes()[0].Spec
	other := shed("x")
	other.Name = "other"
	w.must(putReflexes("", shed("b"), other))
	if got := RestoreChanges(w.state, saved); len(got) != 2 {
		t.Errorf("changes of a restore: %+v", got)
	}
	w.must(Command{Restore: &saved})
	if got := w.state.Reflexes(); len(got) != 1 || !reflect.DeepEqual(got[0].Spec, want) {
		t.Errorf("after the restore: %+v", got)
	}
}
