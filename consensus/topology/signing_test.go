package topology

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/ganglion-mesh/ganglion/intent"
)

// digestOf makes a digest that is easy to tell from others.
func digestOf(s string) string { return "sha256:" + strings.Repeat("0", 64-len(s)) + s }

// packaged makes an app run from a package.
func packaged(digest string) func(*intent.App) {
	return func(a *intent.App) { a.Run.Artifact, a.Run.Command = digest, []string{"./run"} }
}

// fetched makes an app run from a package at an address.
func fetched(digest string) func(*intent.App) {
	return func(a *intent.App) {
		a.Run.Artifact, a.Run.Digest, a.Run.Command = "https://example.org/x.tar.gz", digest, []string{"./run"}
	}
}

func (w *world) trust(name, key string) {
	w.t.Helper()
	w.must(Command{SetSigning: &SetSigning{Trust: &SigningKey{name, key}}})
}

func (w *world) require(required bool) {
	w.t.Helper()
	w.must(Command{SetSigning: &SetSigning{Require: &required}})
}

func (w *world) sign(digest, key string) {
	w.t.Helper()
	w.must(Command{PutSignature: &PutSignature{Digest: digest, Key: key, Text: "signature of " + digest + " by " + key}})
}

func putting(apps ...intent.App) Command {
	return Command{PutIntents: &PutIntents{Intents: intent.Intents{Apps: apps}.Normalize()}}
}

// signingWorld requires signatures of one key.
func signingWorld(t *testing.T) *world {
	w := newWorld(t)
	w.enrol("h1", "h2")
	w.trust("release", "key r")
	w.require(true)
	return w
}

func TestRequiredSignatures(t *testing.T) {
	w := signingWorld(t)
	for _, change := range []func(*intent.App){packaged(digestOf("1")), fetched(digestOf("1"))} {
		why := w.refuse(RejectConflict, putting(app("plain", 1), app("web", 1, change)))
		if !strings.Contains(why, "apply app web") || !strings.Contains(why, "release") || !strings.Contains(why, digestOf("1")) || strings.Contains(why, "\n") {
			t.Errorf("%s", why)
		}
		if _, ok := w.state.App("plain"); ok {
			t.Error("half of an apply was stored")
		}
	}
	w.sign(digestOf("1"), "key r")
	w.put(app("web", 1, packaged(digestOf("1"))), app("far", 1, fetched(digestOf("1"))), app("plain", 1))
	if got := w.state.SignedBy(digestOf("1")); !slices.Equal(got, []string{"release"}) {
		t.Errorf("signed by %v", got)
	}
	if a := w.app("web"); a.Signed[a.Version] != "key r" || w.app("plain").Signed != nil {
		t.Errorf("%v, %v", a.Signed, w.app("plain").Signed)
	}
	w.refuse(RejectConflict, putting(app("web", 1, packaged(digestOf("2")))))
	w.require(false)
	w.put(app("web", 1, packaged(digestOf("2"))))
}

// TestLetInStaysIn: neither the policy nor a key that goes touches what was
// declared before; whoever changes it needs a signature.
func TestLetInStaysIn(t *testing.T) {
	w := newWorld(t)
	w.enrol("h1")
	old := app("old", 1, packaged(digestOf("1")))
	w.put(old)
	w.must(Command{Place: &Place{Put: []Placement{{App: "old", N: 0, Host: "h1", Version: w.app("old").Version}}}})
	w.trust("release", "key r")
	w.trust("second", "key s")
	w.require(true)
	slice := w.state.Slice("h1")
	if p := slice.Packages; !slice.SignaturesRequired || len(slice.Signatures) != 0 || len(p) != 1 || p[0].Key != "" {
		t.Errorf("%+v", slice)
	}
	w.put(old) // as it is: nothing is asked
	more := old
	more.Count = new(2)
	w.refuse(RejectConflict, putting(more))
	w.sign(digestOf("1"), "key r")
	w.put(more)
	after := w.state.Slice("h1")
	if after.Index == slice.Index || len(after.Signatures) != 1 || after.Packages[0].Key != "key r" {
		t.Errorf("%+v", after)
	}
	w.must(Command{SetSigning: &SetSigning{Distrust: "release"}})
	if now := w.state.Slice("h1"); len(now.Signatures) != 1 || now.Index != after.Index {
		t.Errorf("a key that is gone changes what runs: %+v", now)
	}
	w.put(more)
	more.Count = new(3)
	w.refuse(RejectConflict, putting(more))
	w.sign(digestOf("1"), "key s")
	w.put(more)
	if got := w.state.Slice("h1").Signatures; len(got) != 1 || got[0].Key != "key s" {
		t.Errorf("%+v", got)
	}
}

// TestRollbackAndSignatures: to go back is to declare, but to give up a change is
// not.
func TestRollbackAndSignatures(t *testing.T) {
	w := signingWorld(t)
	w.trust("second", "key s")
	version := map[string]string{}
	for _, d := range []string{"1", "2", "3"} {
		w.sign(digestOf(d), map[string]string{"1": "key r", "2": "key s", "3": "key r"}[d])
		w.put(app("web", 1, packaged(digestOf(d))))
		w.must(w.ends("web", OutcomeDone))
		version[d] = w.app("web").Version
	}
	back := func(d string) Command { return Command{Rollback: &Rollback{App: "web", To: version[d]}} }
	w.must(back("1"))
	w.must(w.ends("web", OutcomeDone))
	w.must(Command{SetSigning: &SetSigning{Distrust: "release"}})
	if why := w.refuse(RejectConflict, back("3")); !strings.Contains(why, "roll back app web to version "+version["3"]) {
		t.Error(why)
	}
	w.must(back("2"))
	if w.app("web").Version != version["2"] {
		t.Errorf("%+v", w.app("web"))
	}
	// Version 2 is on trial now, and 1, whose key is gone, runs: it may go on.
	w.must(back("1"))
	if a := w.app("web"); a.Version != version["1"] || a.Signed[version["1"]] != "key r" {
		t.Errorf("%+v", a)
	}
}

// TestFailedChangeGoesBack: the mesh's own rollback asks nobody.
func TestFailedChangeGoesBack(t *testing.T) {
	w := signingWorld(t)
	w.trust("second", "key s")
	w.sign(digestOf("1"), "key r")
	w.sign(digestOf("2"), "key s")
	w.put(app("web", 1, packaged(digestOf("1"))))
	w.must(w.ends("web", OutcomeDone))
	first := w.app("web").Version
	w.put(app("web", 1, packaged(digestOf("2"))))
	w.must(Command{SetSigning: &SetSigning{Distrust: "release"}})
	r := w.app("web").Rollout
	r.Reason = "it failed"
	w.must(Command{SetRollout: &SetRollout{App: "web", Rollout: r, Revert: true}})
	if a := w.app("web"); a.Version != first || a.Signed[first] != "key r" {
		t.Errorf("%+v", a)
	}
}

func TestHaltedChangeTriesAgainIfSigned(t *testing.T) {
	w := signingWorld(t)
	w.trust("second", "key s")
	w.sign(digestOf("1"), "key r")
	w.put(app("web", 1, packaged(digestOf("1"))))
	w.must(w.ends("web", OutcomeHeld))
	w.must(Command{SetSigning: &SetSigning{Distrust: "release"}})
	w.refuse(RejectConflict, putting(app("web", 1, packaged(digestOf("1")))))
	w.trust("release", "key r")
	w.put(app("web", 1, packaged(digestOf("1"))))
}

func TestPolicyRefusals(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		kind RejectKind
		cmd  SetSigning
		want string
	}{
		{RejectConflict, SetSigning{Require: new(true)}, "trusts no key"},
		{RejectInvalid, SetSigning{}, "exactly one"},
		{RejectInvalid, SetSigning{Distrust: "a", Trust: &SigningKey{"a", "k"}}, "exactly one"},
		{RejectInvalid, SetSigning{Trust: &SigningKey{"A/b", "k"}}, "trust key"},
		{RejectInvalid, SetSigning{Trust: &SigningKey{"a", ""}}, "bytes"},
		{RejectInvalid, SetSigning{Trust: &SigningKey{"a", strings.Repeat("k", 2000)}}, "bytes"},
		{RejectUnknown, SetSigning{Distrust: "a"}, "no key of that name"},
	} {
		if why := w.refuse(c.kind, Command{SetSigning: &c.cmd}); !strings.Contains(why, c.want) {
			t.Errorf("%+v: %s", c.cmd, why)
		}
	}
	w.trust("a", "key a")
	w.trust("a", "key a")
	w.refuse(RejectConflict, Command{SetSigning: &SetSigning{Trust: &SigningKey{"a", "key b"}}})
	w.refuse(RejectConflict, Command{SetSigning: &SetSigning{Trust: &SigningKey{"b", "key a"}}})
	w.require(true)
	w.refuse(RejectConflict, Command{SetSigning: &SetSigning{Distrust: "a"}})
	for i := range MaxSigningKeys - 1 {
		w.trust(fmt.Sprint("k", i), fmt.Sprint("key ", i))
	}
	w.refuse(RejectLimit, Command{SetSigning: &SetSigning{Trust: &SigningKey{"more", "key more"}}})
	w.refuse(RejectConflict, Command{PutSignature: &PutSignature{Digest: digestOf("1"), Key: "nobody", Text: "x"}})
	w.refuse(RejectInvalid, Command{PutSignature: &PutSignature{Digest: "sha256:1", Key: "key a", Text: "x"}})
	w.refuse(RejectInvalid, Command{PutSignature: &PutSignature{Digest: digestOf("1"), Key: "key a", Text: strings.Repeat("x", maxSignature+1)}})
}

// TestSignaturesAreBounded: the oldest goes of those that no kept version needs.
func TestSignaturesAreBounded(t *testing.T) {
	w := signingWorld(t)
	w.sign(digestOf("0"), "key r")
	w.put(app("web", 1, packaged(digestOf("0"))))
	for i := range MaxSignatures {
		w.sign(digestOf(fmt.Sprint(i+1)), "key r")
	}
	if n := w.state.signatures.Len(); n != MaxSignatures {
		t.Errorf("%d signatures", n)
	}
	for digest, want := range map[string]int{digestOf("0"): 1, digestOf("1"): 0, digestOf("2"): 1, digestOf(fmt.Sprint(MaxSignatures)): 1} {
		if got := w.state.SignedBy(digest); len(got) != want {
			t.Errorf("%s is signed by %v", digest, got)
		}
	}
}

// TestSigningOutlivesSnapshots: a voter that starts from a snapshot lets in the
// same, and a restore keeps the policy of now.
func TestSigningOutlivesSnapshots(t *testing.T) {
	w := signingWorld(t)
	w.sign(digestOf("1"), "key r")
	w.put(app("web", 1, packaged(digestOf("1"))))
	before := w.state
	s, err := Read(bytes.NewReader(snapshot(t, w.state)))
	if err != nil {
		t.Fatal(err)
	}
	if p := s.Signing(); !p.Required || p.Name("key r") != "release" || s.voucher(digestOf("1")) != "key r" {
		t.Errorf("%+v", p)
	}
	w.state = s
	w.trust("second", "key s")
	w.must(Command{SetSigning: &SetSigning{Distrust: "release"}})
	w.must(Command{DeleteApp: &DeleteApp{Name: "web"}})
	back := before.Restoration()
	w.must(Command{Restore: &back})
	if a := w.app("web"); a.Signed[a.Version] != "key r" || !w.state.Signing().Required || w.state.Signing().Name("key r") != "" {
		t.Errorf("%+v, %+v", a, w.state.Signing())
	}
	for _, bad := range []func(*image){
		func(im *image) { im.Signatures = append(im.Signatures, im.Signatures...) },
		func(im *image) { im.Signing = Signing{Required: true} },
		func(im *image) { im.Apps[0].Signed = map[string]string{"none": "key r"} },
	} {
		im := before.image()
		im.Apps = slices.Clone(im.Apps)
		bad(&im)
		if _, err := im.state(); err == nil {
			t.Error("a snapshot that could not have come about is read")
		}
	}
}

// TestPolicyThatIsGone: a mesh that trusted a key once has the snapshot of one
// that never did, and writes again what it reads.
func TestPolicyThatIsGone(t *testing.T) {
	w := newWorld(t)
	w.trust("a", "key a")
	w.must(Command{SetSigning: &SetSigning{Distrust: "a"}})
	data := snapshot(t, w.state)
	back, err := Read(bytes.NewReader(data))
	if err != nil || !bytes.Equal(data, snapshot(t, back)) {
		t.Errorf("a snapshot read and written differs: %v", err)
	}
}

// TestAdmission is what a host makes of its slice.
func TestAdmission(t *testing.T) {
	pkg := func(digest, key string) Package { return Package{Artifact: digest, Program: "./run", Key: key} }
	far := Package{Artifact: "https://example.org/x", Digest: digestOf("3"), Program: "./run", Key: "key a"}
	sl := Slice{Host: "h1", Packages: []Package{pkg(digestOf("1"), ""), pkg(digestOf("2"), "key a"), far, pkg(digestOf("4"), "key a"), pkg(digestOf("1"), "")}, Signatures: []Signature{
		{Digest: digestOf("2"), Key: "key a", Text: "two"}, {Digest: digestOf("3"), Key: "key a", Text: "three"}, {Digest: digestOf("4"), Key: "key b", Text: "four"},
	}}
	for _, required := range []bool{true, false} {
		sl.SignaturesRequired = required
		for digest, want := range map[string]struct {
			text string
			bad  bool
		}{
			digestOf("1"): {},              // let in before signatures were required
			digestOf("2"): {text: "two"},   // though they may be optional by now
			digestOf("3"): {text: "three"}, // at an address
			digestOf("4"): {bad: true},     // its signature did not come along
			digestOf("5"): {bad: required}, // no app names it
		} {
			sig, err := sl.Admission(digest)
			if (err != nil) != want.bad || (sig != nil) != (want.text != "") || sig != nil && sig.Text != want.text {
				t.Errorf("required %v, %s: %+v, %v", required, digest, sig, err)
			}
		}
	}
}

// TestPlanAsksForNoSignature: what a plan names may not be pushed yet.
func TestPlanAsksForNoSignature(t *testing.T) {
	w := signingWorld(t)
	put := putting(app("web", 1, packaged(digestOf("1")))).PutIntents
	if p := Plan(w.state, Observations{}, WhatIf{Put: put}); p.Err != nil || len(p.Changes) != 1 {
		t.Errorf("%+v", p)
	}
}

// TestPlanSaysWhatIsRefused: a plan tells what apply would refuse, and what would
// come of it if it were signed.
func TestPlanSaysWhatIsRefused(t *testing.T) {
	w := signingWorld(t)
	w.sign(digestOf("1"), "key r")
	w.put(app("old", 1, packaged(digestOf("1"))))
	put := func(apps ...intent.App) *PutIntents { return putting(apps...).PutIntents }
	ask := put(app("old", 2, packaged(digestOf("1"))), app("plain", 1), app("web", 1, packaged(digestOf("2"))), app("far", 1, fetched(digestOf("3"))))
	obs := Observations{Settled: true, Hosts: map[string]HostObs{}}
	for _, h := range []string{"h1", "h2"} {
		obs.Hosts[h] = HostObs{Alive: true, Reported: true, Slice: upToDate, CPU: 4, Memory: 8 << 30, PortMin: 20000, PortMax: 20020}
	}
	p := Plan(w.state, obs, WhatIf{Put: ask})
	if len(p.Refused) != 2 || p.Refused[0].App != "web" || p.Refused[1].App != "far" || p.Refused[0].Package != digestOf("2") || len(p.Changes) != 4 || len(p.Placed) < 4 {
		t.Fatalf("%+v", p)
	}
	_, r := w.state.Apply(w.index+1, Command{PutIntents: ask})
	if r.Err == nil || !strings.Contains(r.Err.Error(), p.Refused[0].Reason) {
		t.Errorf("apply says %v, the plan %+v", r.Err, p.Refused)
	}
	w.must(Command{SetSigning: &SetSigning{Trust: &SigningKey{"second", "key s"}}})
	w.must(Command{SetSigning: &SetSigning{Distrust: "release"}})
	if p := Plan(w.state, obs, WhatIf{Put: put(app("old", 1, packaged(digestOf("1"))))}); len(p.Refused) > 0 {
		t.Errorf("what is as it was asks for nothing: %+v", p.Refused)
	}
	if p := Plan(w.state, obs, WhatIf{Put: put(app("old", 2, packaged(digestOf("1"))))}); len(p.Refused) != 1 {
		t.Errorf("its key is not trusted any more: %+v", p.Refused)
	}
}
