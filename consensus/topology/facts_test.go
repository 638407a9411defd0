package topology

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
)

func (w *world) untold() (list []string) {
	for _, f := range w.state.Untold() {
		switch {
		case f.Removed != nil:
			list = append(list, fmt.Sprintf("%s removed, left %v, by %s", f.Removed.Name, f.Removed.Left, f.By))
		default:
			list = append(list, fmt.Sprintf("%s %q -> %q by %s", f.Setting.Setting, f.Setting.From, f.Setting.To, f.By))
		}
	}
	return list
}

// What no later look could find out is kept until a leader has told it.
func TestFactsAreKeptUntilTheyAreTold(t *testing.T) {
	w := newWorld(t)
	w.enrol("h1", "h2", "h3")
	w.must(Command{Rebalance: &SetRebalance{Rebalance: DefaultRebalance(), By: "local"}})
	w.must(Command{Rebalance: &SetRebalance{Rebalance: DefaultRebalance(), By: "local"}}) // as it is
	w.must(Command{SetSigning: &SetSigning{Trust: &SigningKey{"release", "key r"}, By: "operator/ann"}})
	w.must(Command{SetSigning: &SetSigning{Require: new(true), By: "operator/ann"}})
	w.must(Command{RemoveHost: &RemoveHost{Name: "h2", ID: "id-h2", By: "local", Unproved: []string{"files"}}})
	third := w.state.Untold()[2].Index
	w.must(Command{RemoveHost: &RemoveHost{Name: "h3", ID: "id-h3", Left: true}})
	want := []string{
		`rebalance "off" -> "10/10m" by local`, `keys "" -> "release key r" by operator/ann`, `signatures "optional" -> "required" by operator/ann`,
		"h2 removed, left false, by local", "h3 removed, left true, by ",
	}
	if got := w.untold(); !slices.Equal(got, want) {
		t.Fatalf("untold:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	back, err := Read(bytes.NewReader(snapshot(t, w.state)))
	if err != nil || len(back.Untold()) != len(want) || back.Untold()[3].Removed.Unproved[0] != "files" {
		t.Fatalf("after a restart: %+v, %v", back.Untold(), err)
	}
	revision := w.state.Revision()
	w.must(Command{Told: &Told{Index: third}})
	if got := w.untold(); !slices.Equal(got, want[3:]) || w.state.Revision() != revision {
		t.Errorf("once some are told: %v, at revision %d, before %d", got, w.state.Revision(), revision)
	}
	w.must(Command{Told: &Told{Index: w.index}})
	w.must(Command{SetSigning: &SetSigning{Require: new(false)}})
	w.must(Command{SetSigning: &SetSigning{Distrust: "release"}})
	if got := w.untold(); !slices.Equal(got, []string{`signatures "required" -> "optional" by `, `keys "release key r" -> "" by `}) {
		t.Errorf("%v", got)
	}
	for range MaxUntold {
		w.must(Command{SetSigning: &SetSigning{Trust: &SigningKey{"a", "key a"}}})
		w.must(Command{SetSigning: &SetSigning{Distrust: "a"}})
	}
	if n := len(w.state.Untold()); n != MaxUntold {
		t.Errorf("%d facts are kept, at most %d", n, MaxUntold)
	}
	if _, err := Read(bytes.NewReader(snapshot(t, w.state))); err != nil {
		t.Error(err)
	}
	w.refuse(RejectInvalid, Command{Rebalance: &SetRebalance{By: strings.Repeat("x", 1000)}})
}
