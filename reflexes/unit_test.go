package reflexes

import (
	"strings"
	"testing"

	"github.com/ganglion-mesh/ganglion/intent"
)

// A unit of systemd is no copy: its restart reaches further, needs all rails, and
// has to name it.
func TestUnitsReachFurther(t *testing.T) {
	unit := func(scope string, do intent.Action) intent.Reflex {
		return intent.Reflex{
			Name: "heal", Scope: scope, When: "unit.state == 'failed'", Act: []intent.Action{do},
			Cooldown: intent.Minute, Limit: "3/1h",
		}
	}
	restart := intent.Action{Op: "restart"}
	c, err := NewCompiler()
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.Compile(unit("unit:nginx.service", restart), "")
	if err != nil {
		t.Fatal(err)
	}
	if name, ops := r.Unit(); r.Class() != ClassB || name != "nginx.service" || len(ops) != 1 || ops[0] != "restart" || !r.Rungs[0].op.durable {
		t.Errorf("class %s, %s of unit %q, durable %v", r.Class(), ops, name, r.Rungs[0].op.durable)
	}
	for _, do := range []intent.Action{{Op: "stop"}, {Op: "signal", Args: map[string]string{"signal": "SIGHUP"}}} {
		r, err := c.Compile(unit("unit:nginx.service", do), "")
		if err != nil {
			t.Fatal(err)
		}
		if name, ops := r.Unit(); r.Class() != ClassB || name != "nginx.service" || ops[0] != do.Op || !r.Rungs[0].op.durable {
			t.Errorf("class %s, %s of unit %q", r.Class(), ops, name)
		}
	}
	if on := r.Rungs[0].acts(Target{ScopeUnit, "nginx.service"}); on.Scope != ScopeUnit || on.Name != "nginx.service" {
		t.Errorf("it acts on %s", on)
	}
	r, err = c.Compile(unit("unit:nginx.service", intent.Action{Op: "restart", Target: "web"}), "")
	if name, _ := r.Unit(); err != nil || r.Class() != ClassA || name != "" {
		t.Errorf("the restart of an app because of a unit: %v, %+v", err, r)
	}
	bare := unit("unit:nginx.service", restart)
	bare.Limit = ""
	for want, bad := range map[string]intent.Reflex{"needs a limit and a cooldown": bare, "restart() of a unit needs its name": unit("unit:nginx*", restart), "stop() of a unit needs its name": unit("unit:nginx*", intent.Action{Op: "stop"})} {
		if _, err := c.Compile(bad, ""); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}
