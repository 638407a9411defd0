package topology

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/ganglion-mesh/ganglion/intent"
)

// memory is what was ever said under an index: nothing may be said twice.
type memory struct {
	generations map[string]string // copy and generation → placement
	modified    map[string]string // app and modified → what users asked for
	slices      map[string]Slice  // last of each host
}

func newMemory() *memory {
	return &memory{generations: map[string]string{}, modified: map[string]string{}, slices: map[string]Slice{}}
}

// look holds a state against all that came before it.
func (m *memory) look(t *rapid.T, s *State) {
	once := func(in map[string]string, key, what string) {
		if before, ok := in[key]; ok && before != what {
			t.Fatalf("%s means two things:\n%s\n%s", key, before, what)
		}
		in[key] = what
	}
	for _, p := range s.Placements() {
		once(m.generations, fmt.Sprintf("%s generation %d", p.Key(), p.Generation), fmt.Sprintf("%+v", p))
	}
	for _, a := range s.Apps() {
		spec, err := commandCodec.enc.Marshal(a.Spec)
		if err != nil {
			t.Fatal(err)
		}
		once(m.modified, fmt.Sprintf("%s modified %d", a.Spec.Name, a.Modified), fmt.Sprintf("%x %q %v %v", spec, a.Set, a.Stopped, a.StoppedCopies))
	}
	for _, h := range s.Hosts() {
		now, last := s.Slice(h.Name), m.slices[h.Name]
		if now.Era < last.Era || now.Era == last.Era && now.Index < last.Index {
			t.Fatalf("%s is told (%d, %d) after (%d, %d)", h.Name, now.Era, now.Index, last.Era, last.Index)
		}
		if now.Era == last.Era && now.Index == last.Index && !reflect.DeepEqual(now, last) {
			t.Fatalf("two slices at one index:\n%+v\n%+v", last, now)
		}
		m.slices[h.Name] = now
	}
}

// Whatever happened before and after a backup: a restore goes forward in the
// order of S3, declares what the backup did, touches nothing that is as it was,
// and leaves alone what is not a wish.
func TestRestoreGoesForward(t *testing.T) {
	restored, foreign := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		s, index, mem := New(), uint64(0), newMemory()
		apply := func(c Command) Result {
			data, err := EncodeCommand(c)
			if err != nil {
				return Result{} // text that no log can hold
			}
			decoded, err := DecodeCommand(data)
			if err != nil {
				t.Fatal(err)
			}
			index++
			next, r := s.Apply(index, decoded)
			s = next
			mem.look(t, s)
			return r
		}
		apply(Command{Found: &Found{MeshID: "m", Name: "main"}})
		for _, host := range []string{"a", "b", "c"} {
			apply(Command{EnrolHost: &EnrolHost{Name: host, ID: "id-" + host}})
		}
		var saved []*State
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			switch rapid.IntRange(0, 5).Draw(t, "do") {
			case 0:
				saved = append(saved, s)
			case 1:
				if len(saved) == 0 {
					continue
				}
				c := rapid.SampledFrom(saved).Draw(t, "backup").Restoration()
				if rapid.IntRange(0, 9).Draw(t, "foreign") == 0 {
					c.MeshID = "other"
				}
				before := s
				r := apply(Command{Restore: &c})
				if c.MeshID != "m" {
					foreign++
					if r.Err == nil || r.Err.Kind != RejectConflict || !strings.Contains(r.Err.Why, "another mesh") {
						t.Fatalf("of another mesh: %+v", r)
					}
					continue
				}
				restored++
				checkRestored(t, before, s, c, r)
			case 2:
				obs := drawObservations(t)
				for _, c := range Decide(s, obs).Commands {
					apply(c)
				}
			default:
				apply(drawCommand(t))
			}
		}
		checkInvariants(t, s)
	})
	if restored == 0 || foreign == 0 {
		t.Errorf("%d restores, %d of another mesh: nothing was tested", restored, foreign)
	}
}

func checkRestored(t *rapid.T, before, after *State, c Restore, r Result) {
	if r.Err != nil {
		t.Fatalf("restore: %v", r.Err)
	}
	if after.Era() <= before.Era() || after.Era() <= c.Era {
		t.Fatalf("era %d after %d, the backup's %d", after.Era(), before.Era(), c.Era)
	}
	if !reflect.DeepEqual(before.Tokens(), after.Tokens()) || !reflect.DeepEqual(before.Trust(), after.Trust()) || !reflect.DeepEqual(before.Hosts(), after.Hosts()) ||
		!reflect.DeepEqual(before.Leases(), after.Leases()) {
		t.Fatal("the roster, tokens, keys or leases changed")
	}
	if len(after.Apps()) != len(c.Apps) {
		t.Fatalf("%d apps, the backup has %d", len(after.Apps()), len(c.Apps))
	}
	for _, want := range c.Apps {
		name := want.Spec.Name
		got, _ := after.App(name)
		if got.Created > after.Revision() || got.Modified > after.Revision() || got.RestartAt > after.Revision() {
			t.Fatalf("an index from the future: %+v", got)
		}
		if !sameStored(got.Spec, want.Spec) || got.Set != want.Set || got.Stopped != want.Stopped || fmt.Sprint(got.StoppedCopies) != fmt.Sprint(want.StoppedCopies) {
			t.Fatalf("app %+v, the backup has %+v", got, want)
		}
		now, had := before.App(name)
		if had && sameStored(now.Spec, want.Spec) && now.Stopped == want.Stopped && fmt.Sprint(now.StoppedCopies) == fmt.Sprint(want.StoppedCopies) &&
			!reflect.DeepEqual(before.PlacementsOf(name), after.PlacementsOf(name)) {
			t.Fatalf("%s is as it was, and yet its copies were touched", name)
		}
	}
}

// A restored mesh: what was deleted is back where it was, unless it cannot be;
// what was declared since is gone; what is as it was is left alone.
func TestRestoreBringsBack(t *testing.T) {
	w, obs := ten(t)
	w.put(app("gone", 6, func(a *intent.App) { a.Ports = map[string]intent.Port{"http": {}} }))
	w.put(app("same", 3))
	converge(w, obs)
	saved := w.state
	where := map[CopyKey]string{}
	for _, p := range saved.PlacementsOf("gone") {
		where[p.Key()] = p.Host
	}
	removed, drained, taken := where[CopyKey{"gone", 0}], where[CopyKey{"gone", 1}], saved.PlacementsOf("gone")[2]

	w.must(Command{DeleteApp: &DeleteApp{Name: "gone"}})
	w.must(Command{PutToken: &PutToken{ID: "later", Hash: []byte{1}}})
	w.put(app("new", 1, func(a *intent.App) {
		a.Ports = map[string]intent.Port{"x": {Static: taken.Ports["http"]}}
		a.Place.Require = []string{"zone == 'here'"}
	}))
	w.put(app("web", 4))
	o := obs.Hosts[taken.Host]
	o.Labels = map[string]string{"zone": "here"}
	obs.Hosts[taken.Host] = o
	w.must(Command{SetDrain: &SetDrain{Host: drained, Drain: DrainDraining}})
	h, _ := w.state.Host(removed)
	w.must(Command{RemoveHost: &RemoveHost{Name: removed, ID: h.ID}})
	w.enrol("h77")
	converge(w, obs)
	same := w.state.PlacementsOf("same")

	c := saved.Restoration().Trimmed(w.state, obs)
	if len(c.Placements) != 6 {
		t.Fatalf("%d placements travel", len(c.Placements))
	}
	if changes := RestoreChanges(w.state, c); len(changes) != 3 {
		t.Errorf("changes %+v", changes)
	}
	c.Placements[3].Leaving = "it was on its way"
	w.must(Command{Restore: &c})
	if got := w.state.PlacementsOf("same"); !reflect.DeepEqual(got, same) {
		t.Errorf("copies that are as they were: %+v, before %+v", got, same)
	}
	if _, ok := w.state.App("new"); ok {
		t.Error("an app that was declared later is still there")
	}
	if w.app("web").Spec.Copies() != 10 || len(w.state.PlacementsOf("web")) > 10 {
		t.Error("web does not have its count back")
	}
	back := w.state.PlacementsOf("gone")
	for _, p := range back {
		if p.Host != where[p.Key()] || p.Generation != w.state.Revision() || p.N < 3 && p.N != 2 || p.N == 3 {
			t.Errorf("%+v", p)
		}
	}
	if len(back) != 3 { // not on the removed host, nor on the drained one, nor the one that was leaving
		t.Errorf("%+v", back)
	}
	if _, ok := w.state.Token("later"); !ok {
		t.Error("a token made later is gone")
	}
	if _, ok := w.state.Host("h77"); !ok {
		t.Error("a host enrolled later is locked out")
	}
	if _, ok := w.state.Host(removed); ok {
		t.Error("a host removed later is back")
	}
	converge(w, obs)
	if n := len(w.state.PlacementsOf("gone")); n != 6 {
		t.Errorf("%d copies in the end", n)
	}
}

func TestRestoreKeepsWhatIsTaken(t *testing.T) {
	w, obs := ten(t)
	w.put(app("gone", 1, func(a *intent.App) { a.Ports = map[string]intent.Port{"http": {Static: 80}} }))
	converge(w, obs)
	saved := w.state
	host := saved.PlacementsOf("gone")[0].Host
	w.must(Command{DeleteApp: &DeleteApp{Name: "gone"}})
	w.must(Command{Place: &Place{Put: []Placement{{App: "web", N: 0, Host: host, Version: w.app("web").Version, Ports: map[string]int{"x": 80}}}}})
	c := saved.Restoration().Trimmed(w.state, obs)
	w.must(Command{Restore: &c})
	if back := w.state.PlacementsOf("gone"); len(back) != 0 {
		t.Errorf("its port is taken: %+v", back)
	}
	var bad = c
	bad.Apps = append([]App{}, c.Apps...)
	bad.Apps = append(bad.Apps, c.Apps[0])
	w.refuse(RejectInvalid, Command{Restore: &bad})
	bad.Apps = []App{{Spec: intent.App{Name: "UP"}}}
	w.refuse(RejectInvalid, Command{Restore: &bad})
	bad.Apps = []App{{Spec: app("x", 1), Stable: "lost"}}
	w.refuse(RejectInvalid, Command{Restore: &bad})
	bad.Apps = []App{{Spec: app("x", 1), StoppedCopies: []int{1, 1}}}
	w.refuse(RejectInvalid, Command{Restore: &bad})
	empty := &world{t: t, state: New()}
	empty.refuse(RejectConflict, Command{Restore: &c})
}

// A restore in the middle of anything breaks no bound, and the mesh comes to
// rest as the backup says.
func TestRestoreInTrouble(t *testing.T) {
	for seed := range uint64(40) {
		s := &sim{world: newWorld(t), rnd: rand.New(rand.NewPCG(seed, 11)), hosts: map[string]*simHost{}, excused: map[string]bool{}}
		for i, zone := range []string{"a", "b", "c", "a"} {
			s.addHost("h"+string(rune('1'+i)), zone)
		}
		for range 3 {
			s.declare()
		}
		var saved *State
		for now := range 120 {
			if s.rnd.IntN(6) == 0 {
				s.trouble()
			}
			if s.tick(); now == 50 {
				saved = s.state
			}
		}
		if s.rnd.IntN(3) == 0 {
			name := s.anyApp()
			s.say("user: delete %s", name)
			s.apply(Command{DeleteApp: &DeleteApp{Name: name}})
			s.tick()
		}
		s.say("restore")
		c := saved.Restoration().Trimmed(s.state, s.observe())
		s.must(Command{Restore: &c})
		for _, name := range simApps {
			s.excused[name] = true // what had halted may be tried again
		}
		s.heal()
		for _, a := range saved.Apps() {
			if got := s.app(a.Spec.Name); !sameStored(got.Spec, a.Spec) && got.Rollout.Failed != a.Version {
				s.mistake("%s: %+v, the backup has %+v", a.Spec.Name, got.Spec, a.Spec)
			}
		}
		if len(s.mistakes) > 0 {
			t.Fatalf("seed %d:\n%s\n\n%s", seed, strings.Join(s.log, "\n"), strings.Join(s.mistakes, "\n"))
		}
	}
}

func TestBackupKeepsEverything(t *testing.T) {
	s, w := foretold(t, 3)
	s.must(Command{PutToken: &PutToken{ID: "t", Hash: []byte{1}}})
	s.hosts["h1"].taken = []int{20001}
	b := Backup{State: s.state, Seen: s.observe(), Voters: []string{"h1", "h2"}, Saved: time.Unix(1234, 0), By: "v1"}
	var file bytes.Buffer
	if err := b.Write(&file); err != nil {
		t.Fatal(err)
	}
	back, err := ReadBackup(bytes.NewReader(file.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(snapshot(t, back.State), snapshot(t, s.state)) || !back.Saved.Equal(b.Saved) || back.By != "v1" || !reflect.DeepEqual(back.Voters, b.Voters) {
		t.Errorf("%+v", back)
	}
	if want, got := Plan(s.state, s.observe(), w), Plan(back.State, back.Seen, w); !reflect.DeepEqual(want, got) {
		t.Errorf("a plan from the file is another:\n%+v\n%+v", got, want)
	}
	bare := s.state.WithoutSecrets()
	if tr := bare.Trust(); len(tr.CAKey)+len(tr.GossipKey) > 0 || len(bare.Tokens()) > 0 || len(tr.CACert) == 0 {
		t.Errorf("%+v", tr)
	}
	whole, err := bare.WithKeys(s.state.Trust())
	if err != nil || !reflect.DeepEqual(whole.Trust(), s.state.Trust()) {
		t.Errorf("%+v, %v", whole, err)
	}
	if _, err := bare.WithKeys(Trust{CACert: []byte("x")}); err == nil {
		t.Error("keys of another mesh were taken")
	}
}

func TestBackupRefusesDamage(t *testing.T) {
	s, _ := seeded(t)
	var file bytes.Buffer
	if err := (Backup{State: s}).Write(&file); err != nil {
		t.Fatal(err)
	}
	data := file.Bytes()
	for i := range data {
		bad := bytes.Clone(data)
		bad[i] ^= 0x40
		if _, err := ReadBackup(bytes.NewReader(bad)); err == nil {
			t.Fatalf("a flipped bit in byte %d went unnoticed", i)
		}
		if _, err := ReadBackup(bytes.NewReader(data[:i])); err == nil || !strings.Contains(err.Error(), "short") {
			t.Fatalf("a file cut to %d bytes: %v", i, err)
		}
	}
	if _, err := ReadBackup(bytes.NewReader(snapshot(t, s))); err == nil || !strings.Contains(err.Error(), "is not a file of ganglion snapshot save") {
		t.Errorf("a snapshot of Raft's: %v", err)
	}
	if err := (Backup{State: s}).Write(failing{}); err == nil {
		t.Error("a failed write went unnoticed")
	}
}

func FuzzReadBackup(f *testing.F) {
	s, _ := seeded(f)
	var file bytes.Buffer
	if err := (Backup{State: s, Seen: Observations{Hosts: map[string]HostObs{"h1": {Copies: map[CopyKey]CopyObs{{"web", 1}: {}}}}}}).Write(&file); err != nil {
		f.Fatal(err)
	}
	f.Add(file.Bytes()[snapshotHeader : file.Len()-32])
	f.Fuzz(func(t *testing.T, body []byte) {
		b, err := decodeBackup(body) // past the checksum, where the fuzzer would never get
		if err != nil {
			return
		}
		Plan(b.State, b.Seen, WhatIf{})
		c := b.State.Restoration()
		c.MeshID = s.MeshID()
		next, _ := s.Apply(s.Revision()+1, Command{Restore: &c})
		if _, err := Read(bytes.NewReader(snapshot(t, next))); err != nil {
			t.Errorf("%+v makes a state that cannot be read: %v", c, err)
		}
	})
}

// A lease is of the world, not of a wish: a restore neither ends nor grants any.
// The file was saved under an earlier grant, and the present holder is lost: it
// is waited out whole, and the next token is higher than any.
func TestRestoreWaitsOutLeases(t *testing.T) {
	l := newLeased(t, "h1", "h2", "h3")
	saved, old := l.state, l.lease()
	holder := l.host()
	l.must(Command{SetDrain: &SetDrain{Host: holder, Drain: DrainDraining}})
	l.settle() // to another host, under another grant
	granted := l.lease()
	if granted.Token <= old.Token || l.host() == holder {
		t.Fatalf("%+v after %+v", granted, old)
	}
	l.must(Command{DeleteApp: &DeleteApp{Name: "db"}})
	lose(l.obs, time.Minute, granted.Host)
	c := saved.Restoration().Trimmed(l.state, l.obs)
	l.must(Command{Restore: &c})
	if now := l.lease(); now != granted {
		t.Fatalf("the restore made %+v of %+v", now, granted)
	}
	for _, age := range []time.Duration{0, granted.Timers.Hold, granted.Timers.Grace - 1} {
		l.age(age)
		for _, c := range Decide(l.state, l.obs).Commands {
			if c.Place != nil && len(c.Place.Grant) > 0 {
				t.Fatalf("granted after %s: %+v", age, c.Place)
			}
			l.apply(c)
		}
	}
	l.age(granted.Timers.Grace)
	l.settle()
	if now := l.lease(); now.Token <= granted.Token || now.Host == granted.Host {
		t.Errorf("%+v after %+v", now, granted)
	}
}

// A one-shot that has run does not run again because it was restored.
func TestRestoreRunsNothingTwice(t *testing.T) {
	w, obs := ten(t)
	once := app("once", 0, func(a *intent.App) { a.Count, a.Once = nil, true })
	w.put(once)
	converge(w, obs)
	a := w.app("once")
	w.must(Command{RecordRuns: &RecordRuns{Runs: []RunRecord{{App: "once", Of: a.Job.Run.Index, At: 1, Outcome: RunDone, Host: "h1"}}}})
	converge(w, obs)
	saved := w.state
	w.must(Command{DeleteApp: &DeleteApp{Name: "once"}})
	converge(w, obs)
	c := saved.Restoration().Trimmed(w.state, obs)
	w.must(Command{Restore: &c})
	converge(w, obs)
	if a := w.app("once"); a.Job.active() || a.Job.Run.Outcome != RunDone {
		t.Errorf("%+v", a.Job)
	}
}
