package topology

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/ganglion-mesh/ganglion/intent"
)

// hearer is what somebody knows of a mesh who is told its facts and nothing else.
type hearer struct {
	copies  map[CopyKey]string // host of each
	intents map[string]bool
	hosts   map[string]bool
}

func (st *hearer) read(facts []Fact) {
	if st.copies == nil {
		st.copies, st.intents, st.hosts = map[CopyKey]string{}, map[string]bool{}, map[string]bool{}
	}
	for _, f := range facts {
		switch {
		case f.Intent != nil && f.Intent.Op == intent.OpRemove:
			delete(st.intents, f.Intent.Kind+"/"+f.Intent.Name)
		case f.Intent != nil:
			st.intents[f.Intent.Kind+"/"+f.Intent.Name] = true
		case f.Host != nil && f.Host.What == HostJoined:
			st.hosts[f.Host.Name] = true
		case f.Removed != nil:
			delete(st.hosts, f.Removed.Name)
		case f.Copy != nil && (f.Copy.To == "" || f.Copy.As != nil):
			delete(st.copies, f.Copy.Key())
		case f.Copy != nil:
			st.copies[f.Copy.Key()] = f.Copy.To
		}
	}
}

// differs says in what the story is not how the state is.
func (st *hearer) differs(s *State) string {
	if len(st.hosts) != len(s.Hosts()) {
		return fmt.Sprintf("hosts %v, there are %d", st.hosts, len(s.Hosts()))
	}
	if n := s.apps.Len() + s.reflexes.Len() + s.senses.Len(); len(st.intents) != n {
		return fmt.Sprintf("intents %v, there are %d", st.intents, n)
	}
	for _, p := range s.Placements() {
		if host, ok := st.copies[p.Key()]; (!ok || host != p.Host) && !s.Spent(p) {
			return fmt.Sprintf("copy %s on %q, it is on %s", p.Key(), host, p.Host)
		}
	}
	for key, host := range st.copies {
		if p, ok := s.Placement(key); !ok || p.Host != host {
			return fmt.Sprintf("copy %s on %s, it is on %q", key, host, p.Host)
		}
	}
	return ""
}

func (w *world) untold() (list []string) {
	for _, f := range w.state.Untold(0) {
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
	w.must(Command{Told: &Told{Index: w.index}})
	w.must(Command{By: "local", Rebalance: &SetRebalance{Rebalance: DefaultRebalance()}})
	w.must(Command{By: "local", Rebalance: &SetRebalance{Rebalance: DefaultRebalance()}}) // as it is
	w.must(Command{By: "operator/ann", SetSigning: &SetSigning{Trust: &SigningKey{"release", "key r"}}})
	w.must(Command{By: "operator/ann", SetSigning: &SetSigning{Require: new(true)}})
	w.must(Command{By: "local", RemoveHost: &RemoveHost{Name: "h2", ID: "id-h2", Unproved: []string{"files"}}})
	third := w.state.Untold(0)[2].Index
	w.must(Command{RemoveHost: &RemoveHost{Name: "h3", ID: "id-h3", Left: true}})
	want := []string{
		`rebalance "off" -> "10/10m" by local`, `keys "" -> "release key r" by operator/ann`, `signatures "optional" -> "required" by operator/ann`,
		"h2 removed, left false, by local", "h3 removed, left true, by ",
	}
	if got := w.untold(); !slices.Equal(got, want) {
		t.Fatalf("untold:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	back, err := Read(bytes.NewReader(snapshot(t, w.state)))
	if err != nil || len(back.Untold(0)) != len(want) || back.Untold(0)[3].Removed.Unproved[0] != "files" {
		t.Fatalf("after a restart: %+v, %v", back.Untold(0), err)
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
	list := w.state.Untold(0)
	if n := len(list); n != MaxUntold+1 || list[0].Missed != MaxUntold+2 || list[0].Index >= list[1].Index {
		t.Errorf("%d facts are kept, at most %d, and the first is %+v", n, MaxUntold, list[0])
	}
	if _, err := Read(bytes.NewReader(snapshot(t, w.state))); err != nil {
		t.Error(err)
	}
	w.must(Command{Told: &Told{Index: list[0].Index - 1}})
	if w.state.Untold(0)[0].Missed == 0 {
		t.Error("what was not kept is told by what was told before it")
	}
	w.must(Command{Told: &Told{Index: w.index}})
	if !w.state.AllTold() {
		t.Errorf("left to tell: %+v", w.state.Untold(0))
	}
	w.refuse(RejectInvalid, Command{By: strings.Repeat("x", 1000), Rebalance: &SetRebalance{}})
}
