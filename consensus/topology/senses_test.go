package topology

import (
	"bytes"
	"reflect"
	"testing"

	"github.com/ganglion-mesh/ganglion/intent"
)

func warmth(name, program string) intent.Sense {
	return intent.Sense{Name: name, Command: []string{program}, Every: intent.Second, Timeout: intent.Second}
}

func putSenses(set string, list ...intent.Sense) Command {
	return Command{PutIntents: &PutIntents{Intents: intent.Intents{Senses: list}, Set: set}}
}

// TestSensesReachEveryHost: a sense is in the slice of every host, and only a
// change of it moves them.
func TestSensesReachEveryHost(t *testing.T) {
	w := newWorld(t)
	w.enrol("h1")
	w.must(putSenses("", warmth("warm", "/a")))
	w.enrol("h2")
	for _, host := range []string{"h1", "h2"} {
		if got := w.state.Slice(host).Senses; len(got) != 1 || got[0].Command[0] != "/a" {
			t.Errorf("slice of %s has senses %+v", host, got)
		}
	}
	at := w.state.Slice("h1").Index
	for _, same := range []Command{putSenses("", warmth("warm", "/a")), putSenses("ops", warmth("warm", "/a"))} {
		w.must(same)
		if i := w.state.Slice("h1").Index; i != at {
			t.Errorf("a slice moved from %d to %d though its senses did not change", at, i)
		}
	}
	w.must(putSenses("", warmth("warm", "/b")))
	x, _ := w.state.Sense("warm")
	if sl := w.state.Slice("h2"); sl.Index <= at || sl.Senses[0].Command[0] != "/b" || x.Set != "ops" || x.Created >= x.Modified {
		t.Errorf("after the change: slice %+v, sense %+v", sl, x)
	}
	w.refuse(RejectConflict, Command{PutIntents: &PutIntents{
		Intents: intent.Intents{Senses: []intent.Sense{warmth("warm", "/c")}}, Expect: map[string]uint64{SenseKey("warm"): x.Created},
	}})
	if got := Changes(w.state, *putSenses("", warmth("warm", "/c")).PutIntents); len(got) != 1 || got[0].Op != intent.OpChange || got[0].Kind != intent.ChangeSense {
		t.Errorf("changes: %+v", got)
	}
	w.refuse(RejectInvalid, putSenses("", warmth("warm", "/c"), warmth("warm", "/d")))
	w.refuse(RejectInvalid, putSenses("", warmth("Warm", "/c")))
	w.refuse(RejectUnknown, Command{DeleteSense: &DeleteSense{Name: "cold"}})
}

// TestSensesGo: by their name, or by an apply of their set that no longer names
// them; those of other sets stay.
func TestSensesGo(t *testing.T) {
	w := newWorld(t)
	w.enrol("h1")
	w.must(putSenses("ops", warmth("warm", "/a")))
	w.must(putSenses("", warmth("other", "/a")))
	prune := Command{PutIntents: &PutIntents{Set: "ops", Prune: true}}
	if got := Changes(w.state, *prune.PutIntents); len(got) != 1 || got[0].Op != intent.OpRemove || got[0].Name != "warm" {
		t.Errorf("changes: %+v", got)
	}
	w.must(prune)
	if sl := w.state.Slice("h1"); len(sl.Senses) != 1 || sl.Senses[0].Name != "other" {
		t.Errorf("after the prune: %+v", sl)
	}
	w.must(Command{DeleteSense: &DeleteSense{Name: "other"}})
	if sl := w.state.Slice("h1"); len(sl.Senses) != 0 {
		t.Errorf("after the delete: %+v", sl)
	}
}

// TestSensesAreKept: by snapshots, and by backups.
func TestSensesAreKept(t *testing.T) {
	w := newWorld(t)
	w.enrol("h1")
	w.must(putSenses("ops", warmth("warm", "/a")))
	var file bytes.Buffer
	if err := w.state.Write(&file); err != nil {
		t.Fatal(err)
	}
	again, err := Read(&file)
	if err != nil || !reflect.DeepEqual(again.Senses(), w.state.Senses()) {
		t.Errorf("read %+v, %v", again.Senses(), err)
	}
	saved := w.state.Restoration()
	want := w.state.Senses()[0].Spec
	w.must(putSenses("", warmth("warm", "/b"), warmth("other", "/x")))
	if got := RestoreChanges(w.state, saved); len(got) != 2 {
		t.Errorf("changes of a restore: %+v", got)
	}
	w.must(Command{Restore: &saved})
	if got := w.state.Senses(); len(got) != 1 || !reflect.DeepEqual(got[0].Spec, want) {
		t.Errorf("after the restore: %+v", got)
	}
}
