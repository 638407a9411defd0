package topology

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/intent"
	"pgregory.net/rapid"
)

// Names are few, so that commands meet.
var (
	names        = rapid.SampledFrom([]string{"", "a", "b", "c", "A/b", "x\x00y"})
	numbers      = rapid.SampledFrom([]int{-1, 0, 1, 2, 9999, 10000, 1 << 40})
	texts        = rapid.SampledFrom([]string{"", "v", "w", "\xff", strings.Repeat("x", 2000)})
	drains       = rapid.SampledFrom([]Drain{"", DrainNone, DrainDraining, DrainDrained})
	packageNames = rapid.SampledFrom([]string{"", "", digestOf("1"), digestOf("2"), "sha256:x"})
	loans        = rapid.SampledFrom([]uint64{0, 0, 1, 2, 3, 5, 8})
	optionalN    = rapid.Ptr(numbers, true)
)

func drawApp(t *rapid.T) intent.App {
	a := intent.App{
		Name: names.Draw(t, "name"), Count: rapid.Ptr(rapid.SampledFrom([]int{-1, 0, 1, 3, 10001}), true).Draw(t, "count"),
		PerHost: rapid.Bool().Draw(t, "per_host"), Singleton: rapid.IntRange(0, 9).Draw(t, "singleton") == 0,
	}
	a.Once = rapid.IntRange(0, 4).Draw(t, "once") == 0
	a.Schedule = rapid.SampledFrom([]string{"", "", "", "@every 1h", "@daily", "odd"}).Draw(t, "schedule")
	a.Run.Artifact = packageNames.Draw(t, "artifact")
	a.Run.Command = rapid.SliceOfN(texts, 0, 2).Draw(t, "command")
	a.Run.User = rapid.SampledFrom([]string{"", "", "root"}).Draw(t, "user")
	a.Ports = rapid.MapOfN(rapid.SampledFrom([]string{"p", "q"}), rapid.Custom(func(t *rapid.T) intent.Port {
		return intent.Port{Static: rapid.SampledFrom([]int{-5, 0, 0, 80, 70000}).Draw(t, "static")}
	}), 0, 2).Draw(t, "ports")
	a.Resources.CPU = rapid.Float64().Draw(t, "cpu")
	a.Resources.Memory = intent.Bytes(rapid.Int64().Draw(t, "memory"))
	a.Place.Require = rapid.SliceOfN(rapid.SampledFrom([]string{"zone == 'a'", "((", ""}), 0, 2).Draw(t, "require")
	a.Place.Spread = texts.Draw(t, "spread")
	a.Update.Parallel = rapid.IntRange(-1, 3).Draw(t, "parallel")
	a.Update.HealthyFor = intent.Duration(rapid.Int64().Draw(t, "healthy"))
	return a
}

func drawPlacement(t *rapid.T) Placement {
	return Placement{
		App: names.Draw(t, "app"), N: numbers.Draw(t, "n"), Host: names.Draw(t, "host"),
		Version: texts.Draw(t, "version"), Leaving: texts.Draw(t, "leaving"),
		Ports: rapid.MapOfN(texts, rapid.IntRange(-1, 70000), 0, 2).Draw(t, "ports"),
	}
}

func drawCommand(t *rapid.T) Command {
	c := Command{RequestID: rapid.SampledFrom([]string{"", "", "r1", "r2"}).Draw(t, "request")}
	switch rapid.IntRange(0, 26).Draw(t, "kind") {
	case 0:
		c.Found = &Found{MeshID: texts.Draw(t, "id"), Name: names.Draw(t, "name")}
	case 1, 2, 3:
		c.PutIntents = &PutIntents{
			Intents: intent.Intents{Apps: rapid.SliceOfN(rapid.Custom(drawApp), 0, 2).Draw(t, "apps")},
			Set:     texts.Draw(t, "set"), Prune: rapid.Bool().Draw(t, "prune"),
			Expect: rapid.MapOfN(names, rapid.Uint64Range(0, 3), 0, 1).Draw(t, "expect"),
		}
	case 4:
		c.DeleteApp = &DeleteApp{Name: names.Draw(t, "name")}
	case 5:
		c.SetRunning = &SetRunning{App: names.Draw(t, "app"), N: optionalN.Draw(t, "n"), Stopped: rapid.Bool().Draw(t, "stopped")}
	case 6:
		c.RestartApp = &RestartApp{App: names.Draw(t, "app"), N: optionalN.Draw(t, "n")}
	case 7, 8:
		c.EnrolHost = &EnrolHost{Name: names.Draw(t, "name"), ID: texts.Draw(t, "id")}
	case 9:
		c.RemoveHost = &RemoveHost{
			Name: names.Draw(t, "name"), ID: texts.Draw(t, "id"), Drained: rapid.Bool().Draw(t, "drained"), Left: rapid.Bool().Draw(t, "left"),
		}
	case 10:
		c.SetDrain = &SetDrain{Host: names.Draw(t, "host"), Drain: drains.Draw(t, "drain"), Removing: rapid.Bool().Draw(t, "removing"), Loan: loans.Draw(t, "loan")}
	case 11:
		c.PutToken = &PutToken{ID: texts.Draw(t, "id"), Hash: rapid.SliceOfN(rapid.Byte(), 0, 4).Draw(t, "hash")}
	case 12:
		c.Place = &Place{
			Put:    rapid.SliceOfN(rapid.Custom(drawPlacement), 0, 3).Draw(t, "put"),
			Remove: []CopyKey{{names.Draw(t, "app"), numbers.Draw(t, "n")}},
		}
	case 14:
		c.RecordRuns = &RecordRuns{Runs: []RunRecord{{
			App: names.Draw(t, "app"), Of: rapid.Uint64Range(0, 30).Draw(t, "of"), Begin: rapid.Bool().Draw(t, "begin"),
			Outcome: rapid.SampledFrom([]RunOutcome{"", RunDone, RunFailed, "odd"}).Draw(t, "outcome"), Due: rapid.Int64Range(0, 9).Draw(t, "due"),
		}}}
	case 15:
		c.SetSigning = rapid.SampledFrom([]*SetSigning{
			{}, {Require: new(true)}, {Require: new(false)}, {Trust: &SigningKey{"a", "key a"}}, {Trust: &SigningKey{"b", "key b"}},
			{Trust: &SigningKey{"a", "key b"}}, {Distrust: "a"}, {Distrust: "b"}, {Distrust: "a", Require: new(false)},
		}).Draw(t, "signing")
	case 16:
		c.PutSignature = &PutSignature{Digest: packageNames.Draw(t, "digest"), Key: rapid.SampledFrom([]string{"key a", "key b", ""}).Draw(t, "key"), Text: texts.Draw(t, "text")}
	case 17:
		c.Rebalance = &SetRebalance{Rebalance: rapid.SampledFrom([]Rebalance{{}, DefaultRebalance(), {Moves: -1}}).Draw(t, "rebalance")}
	case 18:
		c.Told = &Told{Index: rapid.Uint64Range(0, 30).Draw(t, "told")}
	case 19:
		c.Thaw = &Thaw{Epoch: rapid.Uint64Range(0, 9).Draw(t, "epoch"), By: names.Draw(t, "by")}
	case 20:
		c.Lend = &Lend{
			Host: names.Draw(t, "host"), Boot: texts.Draw(t, "boot"), Tokens: rapid.IntRange(-1, 2).Draw(t, "tokens"), Time: time.Duration(rapid.Int64Range(-1, 2).Draw(t, "time")) * time.Minute,
			Returned: rapid.SliceOfN(rapid.Uint64Range(0, 30), 0, 2).Draw(t, "returned"),
		}
	case 23:
		c.Sweep = &Sweep{Remnants: []Remnant{{App: names.Draw(t, "app"), N: numbers.Draw(t, "n"), Host: names.Draw(t, "host"), Index: rapid.Uint64Range(0, 30).Draw(t, "index")}}}
	case 21:
		c.SettleLoan = &SettleLoan{ID: rapid.Uint64Range(0, 30).Draw(t, "id"), Host: names.Draw(t, "host"), Spent: rapid.IntRange(-1, 2).Draw(t, "spent")}
	case 22:
		c.Evict = &Evict{App: names.Draw(t, "app"), N: optionalN.Draw(t, "n"), Host: names.Draw(t, "host"), Why: texts.Draw(t, "why"), Loan: loans.Draw(t, "loan")}
	case 24:
		list := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) intent.Reflex {
			return intent.Reflex{Name: names.Draw(t, "reflex"), When: texts.Draw(t, "when")}
		}), 0, 2).Draw(t, "reflexes")
		c.PutIntents = &PutIntents{Intents: intent.Intents{Reflexes: list}, Far: []string{"a", "b"}}
	case 25:
		c.SetStage = &SetStage{
			Rule: names.Draw(t, "rule"), Expect: rapid.Uint64Range(0, 30).Draw(t, "step"), Why: texts.Draw(t, "why"), Hosts: rapid.SliceOfN(names, 0, 2).Draw(t, "hosts"),
			Reach: rapid.SampledFrom([]Reach{ReachNone, ReachHost, ReachPart, ReachAll, ReachTaken, ReachDone, "odd"}).Draw(t, "reach"),
		}
	case 26:
		c.NoteAct = &NoteAct{Host: names.Draw(t, "host"), Loan: loans.Draw(t, "loan"), For: RuleRef{names.Draw(t, "rule"), rapid.Uint64Range(0, 30).Draw(t, "begun")}}
	case 13:
		c.SetRollout = &SetRollout{App: names.Draw(t, "app"), Rollout: Rollout{Version: texts.Draw(t, "version"), Outcome: rapid.SampledFrom([]Outcome{"", OutcomeDone, OutcomeHeld}).Draw(t, "outcome")}}
	}
	return c
}

func drawObservations(t *rapid.T) Observations {
	obs := Observations{
		Hosts: map[string]HostObs{}, Settled: rapid.IntRange(0, 5).Draw(t, "settled") > 0, GateShut: rapid.Bool().Draw(t, "gate"), Freeze: Freeze{Apps: rapid.SliceOfN(names, 0, 1).Draw(t, "frozen")},
		Now: noon.Add(time.Duration(rapid.Int64Range(-1e9, 1e9).Draw(t, "now")) * time.Second),
	}
	for _, name := range []string{"a", "b", "c"} {
		o := HostObs{
			Alive: rapid.IntRange(0, 3).Draw(t, "alive") > 0, Reported: rapid.IntRange(0, 5).Draw(t, "reported") > 0,
			ReportAge: time.Duration(rapid.SampledFrom([]int{0, 1, 4, 6, 60}).Draw(t, "age")) * time.Second,
			CPU:       4, Memory: 1 << 30, PortMin: rapid.IntRange(-1, 3).Draw(t, "min"), PortMax: rapid.IntRange(0, 4).Draw(t, "max"),
			Labels: map[string]string{"zone": rapid.SampledFrom([]string{"a", "b"}).Draw(t, "zone")},
			Ports:  rapid.SliceOfN(rapid.IntRange(0, 4), 0, 2).Draw(t, "taken"), CanUser: rapid.Bool().Draw(t, "can_user"),
			Copies: map[CopyKey]CopyObs{},
		}
		for _, app := range []string{"a", "b"} {
			o.Copies[CopyKey{app, rapid.IntRange(0, 2).Draw(t, "n")}] = CopyObs{
				Generation: rapid.Uint64Range(0, 30).Draw(t, "generation"), Ready: rapid.Bool().Draw(t, "ready"),
				ReadyFor: time.Hour, Age: time.Hour, Failed: rapid.IntRange(0, 4).Draw(t, "failed") == 0,
				Done:  rapid.Uint64Range(0, 30).Draw(t, "done"),
				State: rapid.SampledFrom([]CopyState{CopyRunning, CopyStopped, CopyFailed, "odd"}).Draw(t, "state"),
			}
		}
		if rapid.IntRange(0, 6).Draw(t, "known") > 0 {
			obs.Hosts[name] = o
		}
	}
	return obs
}

// Whatever is committed, in whatever order: nothing panics, two voters agree,
// what is rejected changes nothing, a snapshot is the same state, and what
// Decide proposes is accepted.
func TestAnythingGoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, twin := New(), New()
		index := uint64(0)
		var told hearer
		apply := func(c Command) Result {
			index++
			next, r := s.Apply(index, c)
			other, r2 := twin.Apply(index, c)
			if !reflect.DeepEqual(r, r2) {
				t.Fatalf("two voters answer %+v and %+v", r, r2)
			}
			if (r.Err != nil || r.Repeated) && next != s {
				t.Fatalf("%+v changed the state", r)
			}
			if r.Changed != (next.Revision() == index) || next.Revision() < s.Revision() {
				t.Fatalf("%+v: revision %d → %d at %d", r, s.Revision(), next.Revision(), index)
			}
			if s, twin = next, other; r.Changed {
				told.read(s.Untold(index))
			}
			if why := told.differs(s); why != "" {
				t.Fatalf("what is told of %+v: %s", c, why)
			}
			return r
		}
		for range rapid.IntRange(1, 25).Draw(t, "steps") {
			c := drawCommand(t)
			s.Apply(index+1, c) // must not panic, even on what no log can hold
			data, err := EncodeCommand(c)
			if err != nil {
				continue
			}
			back, err := DecodeCommand(data)
			if err != nil {
				t.Fatalf("what was encoded does not decode: %v", err)
			}
			checkStable(t, back)
			apply(back)
			if rapid.IntRange(0, 2).Draw(t, "decide") > 0 {
				continue
			}
			obs := drawObservations(t)
			for _, c := range Decide(s, obs).Commands {
				if why := takesWhatIsKept(s, obs, c); why != "" {
					t.Fatal(why)
				}
				if r := apply(c); r.Err != nil {
					t.Fatalf("the leader's %+v is rejected: %v", c, r.Err)
				}
			}
			Status(s, obs)
			Explain(s, obs, CopyKey{"a", 0})
			Plan(s, obs, WhatIf{Lose: []string{"a"}, Drain: []string{"b"}})
		}
		checkInvariants(t, s)
		data := snapshot(t, s)
		if !bytes.Equal(data, snapshot(t, twin)) {
			t.Fatal("two voters have different states")
		}
		back, err := Read(bytes.NewReader(data))
		if err != nil {
			t.Fatalf("read snapshot: %v", err)
		}
		if !bytes.Equal(data, snapshot(t, back)) {
			t.Fatal("a snapshot read and written differs")
		}
	})
}

// checkStable: what was decoded survives any further journey as it is.
func checkStable(t *rapid.T, c Command) {
	data, err := EncodeCommand(c)
	if err != nil {
		t.Fatalf("what was decoded does not encode: %v", err)
	}
	back, err := DecodeCommand(data)
	if err != nil {
		t.Fatalf("decode: %v", err)
	}
	again, err := EncodeCommand(back)
	if err != nil || !bytes.Equal(data, again) {
		t.Fatalf("encoding is not stable: %x, %x, %v", data, again, err)
	}
}

// checkInvariants: the two orders of placements agree, versions are there and
// no more of them than needed, no port is assigned twice.
func checkInvariants(t *rapid.T, s *State) {
	all, onHosts := s.Placements(), 0
	for _, h := range s.Hosts() {
		ports := map[int]bool{}
		for _, p := range s.PlacementsOn(h.Name) {
			onHosts++
			if same, ok := s.Placement(p.Key()); !ok || !reflect.DeepEqual(same, p) {
				t.Fatalf("%+v on %s, %+v by name", p, h.Name, same)
			}
			for _, port := range p.Ports {
				if ports[port] {
					t.Fatalf("port %d twice on %s", port, h.Name)
				}
				ports[port] = true
			}
		}
		if slice := s.Slice(h.Name); slice.Index > s.Revision() || len(slice.Assignments) != len(s.PlacementsOn(h.Name)) {
			t.Fatalf("slice %+v at revision %d", slice, s.Revision())
		}
	}
	if onHosts != len(all) {
		t.Fatalf("%d placements by name, %d by host", len(all), onHosts)
	}
	for _, m := range s.Remnants() {
		if p, ok := s.Placement(m.Key()); ok && p.Host == m.Host {
			t.Fatalf("%+v was taken from where it is placed", m)
		}
		if _, ok := s.Host(m.Host); !ok || m.Index > s.Revision() {
			t.Fatalf("%+v at revision %d", m, s.Revision())
		}
	}
	for _, a := range s.Apps() {
		used := map[string]bool{a.Version: true}
		if a.Stable != "" {
			used[a.Stable] = true
		}
		for _, h := range a.History {
			used[h.Version] = true
		}
		for _, p := range s.PlacementsOf(a.Spec.Name) {
			used[p.Version] = true
			if p.Stopped != a.stops(p) {
				t.Fatalf("%+v of %+v: stopped", p, a)
			}
		}
		for v := range used {
			if _, ok := a.Versions[v]; !ok {
				t.Fatalf("app %s lacks version %q", a.Spec.Name, v)
			}
		}
		if len(used) != len(a.Versions) {
			t.Fatalf("app %s keeps %d versions, %d are used", a.Spec.Name, len(a.Versions), len(used))
		}
	}
}

func TestCopyKeyText(t *testing.T) {
	data, err := json.Marshal(Move{Copy: CopyKey{"web", 2}, From: "h1", To: "h2", Reason: "r"})
	if want := `{"copy":"web/2","from":"h1","to":"h2","reason":"r"}`; err != nil || string(data) != want {
		t.Errorf("%s, %v; want %s", data, err, want)
	}
	var k CopyKey
	if err := k.UnmarshalText([]byte("web/2")); err != nil || k != (CopyKey{"web", 2}) {
		t.Errorf("%v, %v", k, err)
	}
	for _, bad := range []string{"", "web", "/2", "web/", "web/-1", "web/x"} {
		if k.UnmarshalText([]byte(bad)) == nil {
			t.Errorf("%q was read as %v", bad, k)
		}
	}
}

// An entry that a release does not know halts it, unless it may be skipped.
func TestUnknownCommands(t *testing.T) {
	encode := func(e envelope) []byte {
		data, err := commandCodec.enc.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	empty := []byte{0xa0}
	var unknown *UnknownCommandError
	if _, err := DecodeCommand(encode(envelope{Version: 1, Kind: "teleport", Body: empty})); !errors.As(err, &unknown) || unknown.Kind != "teleport" {
		t.Errorf("unknown kind: %v", err)
	}
	if _, err := DecodeCommand(encode(envelope{Version: 2, Kind: "heartbeat", Body: empty})); !errors.As(err, &unknown) {
		t.Errorf("later version: %v", err)
	}
	c, err := DecodeCommand(encode(envelope{Version: 9, Ignorable: true, Kind: "teleport", Body: empty, RequestID: "r"}))
	if err != nil || c.Heartbeat == nil || c.RequestID != "r" {
		t.Errorf("ignorable: %+v, %v", c, err)
	}
	for name, data := range map[string][]byte{
		"nothing": nil, "half": encode(envelope{Version: 1, Kind: "heartbeat", Body: empty})[:5],
		"unknown field":  encode(envelope{Version: 1, Kind: "delete_app", Body: []byte{0xa1, 0x61, 'x', 0x00}}),
		"request_id":     encode(envelope{Version: 1, Kind: "request_id", Body: empty}),
		"trailing bytes": append(encode(envelope{Version: 1, Kind: "heartbeat", Body: empty}), 0),
		"too large":      make([]byte, MaxCommand+1),
	} {
		if c, err := DecodeCommand(data); err == nil {
			t.Errorf("%s was read as %+v", name, c)
		}
	}
	if _, err := EncodeCommand(Command{}); err == nil {
		t.Error("an empty command was encoded")
	}
	if _, err := EncodeCommand(Command{DeleteApp: &DeleteApp{Name: "A/b"}}); err != nil {
		t.Errorf("a name that Apply rejects must still encode: %v", err)
	}
	if _, err := EncodeCommand(Command{DeleteApp: &DeleteApp{Name: "a\xff"}}); err == nil {
		t.Error("a command was encoded that no voter could decode")
	}
	if _, err := EncodeCommand(Command{PutToken: &PutToken{ID: "t", Hash: make([]byte, MaxCommand)}}); err == nil {
		t.Error("a command was encoded that is too large to decode")
	}
}
