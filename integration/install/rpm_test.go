//go:build linux

package install

import (
	"fmt"
	"strings"
	"testing"
)

// rpmDB keeps Debian's rpm from making a database in root's home.
const rpmDB = "--dbpath=/var/lib/rpm"

// TestRPM takes the rpm through its life, on a Debian that has the rpm command:
// what differs from the deb is how its scripts are called. Its copies are of the
// process driver, which live in the unit's own group and sandbox.
func TestRPM(t *testing.T) {
	t.Parallel()
	h := boot(t, "r", "10.88.9.3")
	lonely(t, h)
	before := h.everything()
	rpm := func(flag, file string) {
		t.Helper()
		h.CopyIn(t, file, "/tmp/ganglion.rpm", 0o644)
		h.must("rpm", rpmDB, flag, "--nodeps", "--force-debian", "/tmp/ganglion.rpm")
	}
	rpm("-i", build(t, oldVersion, "rpm"))
	h.agent()
	if got := h.must("systemctl", "is-enabled", "ganglion"); got != "enabled" {
		t.Errorf("the unit is %s, want enabled", got)
	}
	h.write("/etc/ganglion/agent.hcl", "driver = \"process\"\n", 0o640)
	h.must("systemctl", "restart", "ganglion")
	h.must("ganglion", "init")
	h.write("/root/web.hcl", web, 0o644)
	h.must("ganglion", "apply", "/root/web.hcl")
	pid := h.ready("web", 1)[h.Name]
	if got := h.must("cat", fmt.Sprintf("/proc/%d/cgroup", pid)); !strings.Contains(got, "ganglion.service/") {
		t.Errorf("the copy's group is %s, want one below the unit's", got)
	}
	same := func(what string) {
		t.Helper()
		h.agent()
		if now := h.ready("web", 1)[h.Name]; now != pid {
			t.Errorf("%s: the copy had pid %d and has %d", what, pid, now)
		}
	}

	h.must("systemctl", "restart", "ganglion")
	same("restart")
	agent := h.agent()
	rpm("-U", build(t, newVersion, "rpm"))
	if h.agent() == agent {
		t.Error("the upgrade did not restart the agent")
	}
	if got := h.must("ganglion", "version"); !strings.Contains(got, newVersion) {
		t.Errorf("version: %s", got)
	}
	same("upgrade")

	h.must("rpm", rpmDB, "-e", "ganglion")
	if left := h.running("ganglion|86420"); left != "" {
		t.Errorf("processes are left:\n%s", left)
	}
	if left := h.must("systemctl", "list-units", "--plain", "--no-legend", "*ganglion*"); left != "" {
		t.Errorf("units are left:\n%s", left)
	}
	kept := 0
	for file := range h.everything() {
		switch {
		case before[file] || file == "/root/web.hcl":
		case strings.HasPrefix(file, "/var/lib/ganglion"):
			kept++ // data stays: rpm knows no purge
		case file == "/etc/ganglion" || file == "/etc/ganglion/agent.hcl.rpmsave":
		default:
			t.Errorf("left on the host: %s", file)
		}
	}
	if kept == 0 {
		t.Error("the removal took the data along")
	}
}
