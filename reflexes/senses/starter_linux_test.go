package senses

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ganglion-mesh/ganglion/intent"
	"github.com/ganglion-mesh/ganglion/intent/hcl"
	"github.com/ganglion-mesh/ganglion/reflexes"
)

// starterRule compiles a reflex of the library in examples/reflexes for what a
// test can break: scope is what it is about here. It holds for as long as for_.
func starterRule(t testing.TB, name, scope string, for_ time.Duration) *reflexes.Rule {
	t.Helper()
	file := "../../examples/reflexes/" + name + ".hcl"
	if _, err := os.Stat(file); err != nil { // on a host of integration/nspawn
		file = filepath.Join(filepath.Dir(os.Args[0]), name+".hcl")
	}
	in, err := hcl.ParsePath(file)
	if err != nil {
		t.Fatal(err)
	}
	r := in.Reflexes[0]
	r.Scope, r.For = scope, intent.Duration(for_)
	c, err := reflexes.NewCompiler()
	if err != nil {
		t.Fatal(err)
	}
	rule, err := c.Compile(r, "")
	if err != nil {
		t.Fatal(err)
	}
	return rule
}

// reactor runs a rule over what a sense tells, as an agent does.
type reactor struct {
	t      testing.TB
	set    *Set
	engine *reflexes.Engine
	wake   reflexes.Boot
}

func react(t testing.TB, rule *reflexes.Rule, sense Sense) *reactor {
	t.Helper()
	r := &reactor{t: t, set: must[*Set](t)(New(Config{Senses: []Sense{sense}, Now: bootNow})), engine: reflexes.NewEngine(reflexes.Config{Boot: "test"})}
	r.engine.SetRules(bootNow(), []*reflexes.Rule{rule})
	r.set.NeedFor([]*reflexes.Rule{rule}, nil)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { r.set.Run(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	return r
}

// step hands over what was told and returns what fires, once there is something
// to do.
func (r *reactor) step(until <-chan time.Time) (fired []reflexes.Firing, late bool) {
	wake := time.NewTimer(max(0, r.wake-bootNow()))
	defer wake.Stop()
	alarm := wake.C
	if r.wake == 0 {
		alarm = nil
	}
	select {
	case <-r.set.Ready():
	case <-alarm:
	case <-until:
		return nil, true
	}
	firings, next := r.engine.Step(bootNow(), r.set.Take(nil))
	r.wake = next
	return append(fired, firings...), false
}

// knows waits until a variable is as wanted. Nothing may fire meanwhile.
func (r *reactor) knows(id reflexes.VarID, want reflexes.Value) {
	r.t.Helper()
	late := time.After(patience)
	for {
		fired, over := r.step(late)
		if over || len(fired) > 0 {
			r.t.Fatalf("%s is not known to be %v; fired: %v", id, want, fired)
		}
		for _, f := range r.set.Known() {
			if f.Var == id && f.Value == want {
				return
			}
		}
	}
}

// fires waits until the rule fires and returns the first.
func (r *reactor) fires() reflexes.Firing {
	r.t.Helper()
	late := time.After(patience)
	for {
		fired, over := r.step(late)
		if over {
			r.t.Fatal("it does not fire")
		}
		if len(fired) > 0 {
			return fired[0]
		}
	}
}

// TestNICDown takes the far end of a cable down.
func TestNICDown(t *testing.T) {
	ns := newNetns(t)
	_, end := ns.cable(t, "wg0", "far0")
	r := react(t, starterRule(t, "nic-down", "link:wg0", 200*time.Millisecond), inNetns{newLinks(t), ns})
	r.knows(reflexes.LinkUp, reflexes.Bool(true))
	before := bootNow()
	ns.down(t, end)
	f := r.fires()
	if took := bootNow() - before; f.Rung.String() != `restart("tunnel")` || took < 200*time.Millisecond {
		t.Errorf("%v after %s", f.Rung, took)
	}
}

// TestDiskFilling fills a file system.
func TestDiskFilling(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		skip(t, "to mount a tmpfs: "+err.Error())
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	disks := must[*Disks](t)(NewDisks(DisksConfig{Now: bootNow, Interval: 20 * time.Millisecond}))
	r := react(t, starterRule(t, "disk-filling", "disk:"+dir, 100*time.Millisecond), disks)
	r.knows(reflexes.DiskReadOnly, reflexes.Bool(false))
	if err := os.WriteFile(filepath.Join(dir, "log"), make([]byte, 2<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("it is not full: %v", err)
	}
	if f := r.fires(); f.Rung.String() != `signal("logs")` || f.Target.Name != dir {
		t.Errorf("%v about %v", f.Rung, f.Target)
	}
}

// TestUnitsStuck has a unit of the real systemd fail.
func TestUnitsStuck(t *testing.T) {
	needSystemd(t)
	const name = "senses-stuck.service"
	r := react(t, starterRule(t, "stuck-unit", "unit:"+name, 200*time.Millisecond), newUnits(t))
	unit(t, name, "exec sleep 1000")
	r.knows(reflexes.UnitState, reflexes.Text("active"))
	if out, err := exec.Command("systemctl", "kill", "-s", "KILL", name).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if f := r.fires(); f.Rung.String() != `emit("stuck-unit")` || f.Target.Name != name {
		t.Errorf("%v about %v", f.Rung, f.Target)
	}
}
