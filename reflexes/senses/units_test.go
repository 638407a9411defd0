package senses

import (
	"testing"

	"github.com/ganglion-mesh/ganglion/reflexes"
)

func TestUnitTable(t *testing.T) {
	table := newUnitTable()
	facts := table.set("web.service", "failed", "failed", 1, nil)
	if v, _ := last(facts, reflexes.UnitFailures, "web.service"); v != reflexes.Int(0) || len(facts) != 3 {
		t.Errorf("found failed, nobody saw it fail: %v", facts)
	}
	facts = table.set("web.service", "activating", "auto-restart", 2, nil)
	facts = table.set("web.service", "active", "running", 3, facts)
	facts = table.set("web.service", "active", "running", 3, facts)
	if len(facts) != 4 {
		t.Errorf("up again: %v", facts)
	}
	facts = table.set("web.service", "failed", "failed", 4, nil)
	if v, _ := last(facts, reflexes.UnitFailures, "web.service"); v != reflexes.Int(1) || len(facts) != 3 {
		t.Errorf("failed: %v", facts)
	}
	if facts = table.set("dev-sda.device", "active", "plugged", 4, nil); len(facts) != 0 {
		t.Errorf("a device: %v", facts)
	}
	table.set("b.service", "active", "running", 4, nil)

	// The connection was lost; meanwhile b failed and web went away.
	table.begin()
	table.compare()
	facts = table.set("b.service", "failed", "failed", 5, nil)
	facts = table.compared(5, facts)
	if v, _ := last(facts, reflexes.UnitFailures, "b.service"); v != reflexes.Int(1) {
		t.Errorf("a lost edge: %v", facts)
	}
	if v, ok := last(facts, reflexes.UnitState, "web.service"); !ok || v.Known() {
		t.Errorf("gone: %v", facts)
	}
	if facts = table.set("b.service", "inactive", "", 6, nil); len(facts) != 1 {
		t.Errorf("only the state was said: %v", facts)
	}
	facts = table.set("new.service", "failed", "failed", 7, nil)
	if v, _ := last(facts, reflexes.UnitFailures, "new.service"); v != reflexes.Int(1) {
		t.Errorf("one that nobody had seen before it failed: %v", facts)
	}
}

func TestUnitName(t *testing.T) {
	for path, want := range map[string]string{
		unitPath + "web_2eservice":                          "web.service",
		unitPath + "_2d_2emount":                            "-.mount",
		unitPath + "ganglion_2dweb_2d2_2eservice":           "ganglion-web-2.service",
		unitPath + "systemd_2dfsck_40dev_2dx_5fy_2eservice": "systemd-fsck@dev-x_y.service",
	} {
		if name, ok := unitName(path); !ok || name != want {
			t.Errorf("%s: %q, %t", path, name, ok)
		}
	}
	for _, bad := range []string{"", unitPath, "/org/freedesktop/systemd1", unitPath + "x_2", unitPath + "x_zz", unitPath + "_"} {
		if name, ok := unitName(bad); ok {
			t.Errorf("%s: %q", bad, name)
		}
	}
}

func FuzzUnitName(f *testing.F) {
	f.Add(unitPath + "web_2eservice")
	f.Fuzz(func(t *testing.T, path string) {
		if name, ok := unitName(path); ok && (name == "" || len(name) >= len(path)) {
			t.Errorf("%q from %q", name, path)
		}
	})
}
