//go:build linux

package install

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// web runs one copy a host, which writes to its own directory.
const web = `app "web" {
  per_host = true
  run {
    command = ["/bin/sh", "-c", "echo was here >>$STATE_DIR/diary; exec sleep 86420"]
  }
  update {
    healthy_for = "200ms"
  }
}
`

// deb is the state of TestDeb: a mesh of two hosts, and the packages.
type deb struct {
	*testing.T
	a, b     *host // a leads
	old, new string
	before   map[string]bool // files of b before anything was installed
}

// TestDeb takes the deb through its life on two hosts.
func TestDeb(t *testing.T) {
	t.Parallel() // it waits for the watchdog most of the time
	d := &deb{T: t, a: boot(t, "a", "10.88.9.1"), b: boot(t, "b", "10.88.9.2")}
	wire(t, d.a, d.b)
	d.old, d.new = build(t, oldVersion, "deb"), build(t, newVersion, "deb")
	d.before = d.b.everything()
	for _, step := range []struct {
		name string
		do   func()
	}{
		{"install", d.install},
		{"mesh", d.mesh},
		{"apply", d.apply},
		{"kill a copy", d.killCopy},
		{"restart the agent", d.restartAgent},
		{"reinstall and upgrade", d.upgrade},
		{"hang the agent", d.hangAgent},
		{"remove", d.remove},
		{"purge", d.purge},
		{"again", d.again},
	} {
		begun := time.Now()
		step.do()
		t.Logf("%-22s %v", step.name, time.Since(begun).Round(time.Millisecond))
		if t.Failed() {
			t.Fatalf("step %q failed", step.name)
		}
	}
}

// apt installs a package file on a host.
func (d *deb) apt(h *host, file string, flags ...string) {
	d.Helper()
	h.CopyIn(d.T, file, "/tmp/ganglion.deb", 0o644)
	args := append([]string{"env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-y", "-qq", "--allow-downgrades"}, flags...)
	h.must(append(args, "/tmp/ganglion.deb")...)
}

// install leaves an agent that is ready, serves its socket to the group, starts
// at boot, and waits for a mesh.
func (d *deb) install() {
	d.apt(d.a, d.old)
	d.b.CopyIn(d.T, d.old, "/tmp/ganglion.deb", 0o644)
	d.b.must("dpkg", "--install", "/tmp/ganglion.deb")
	for _, h := range []*host{d.a, d.b} {
		h.agent()
		if got := h.must("systemctl", "is-enabled", "ganglion"); got != "enabled" {
			d.Errorf("the unit is %s, want enabled", got)
		}
		if got := h.must("stat", "-c", "%a %U:%G", "/run/ganglion/agent.sock"); got != "660 root:ganglion" {
			d.Errorf("the socket is %s", got)
		}
		if got := h.must("stat", "-c", "%a %U", "/var/lib/ganglion"); got != "711 root" {
			d.Errorf("data_dir is %s", got)
		}
		if got := h.must("ganglion", "version"); !strings.Contains(got, oldVersion) {
			d.Errorf("version: %s", got)
		}
		h.must("test", "-s", "/usr/share/doc/ganglion/reference.md") // agent.hcl points there
		// What systemd thinks of the sandbox, of 100; a unit without one has 96.
		h.must("systemd-analyze", "security", "--no-pager", "--threshold=70", "ganglion.service")
		if _, err := h.try("ganglion", "mesh"); err == nil || !strings.Contains(err.Error(), "ganglion init") {
			d.Errorf("without a mesh: %v", err)
		}
		if got := h.must("sh", "-c", "systemd-analyze verify --man=no ganglion.service 2>&1"); strings.Contains(got, "ganglion") {
			d.Errorf("systemd does not understand the unit:\n%s", got)
		}
	}
}

var joinCommand = regexp.MustCompile(`ganglion join \S+ --token \S+`)

// mesh makes a mesh by the command that init prints.
func (d *deb) mesh() {
	out := d.a.must("ganglion", "init")
	join := joinCommand.FindString(out)
	if join == "" {
		d.Fatalf("init printed no join command:\n%s", out)
	}
	d.b.must(strings.Fields(join)...)
	d.a.hostsAlive(2)
}

// apply runs an app as transient units of private users, on both hosts.
func (d *deb) apply() {
	d.a.write("/root/web.hcl", web, 0o644)
	d.a.must("ganglion", "apply", "/root/web.hcl")
	pids := d.a.ready("web", 2)
	for _, h := range []*host{d.a, d.b} {
		units := h.units("web")
		if len(units) != 1 {
			d.Fatalf("%s runs the units %v, want one", h.Name, units)
		}
		for unit, pid := range units {
			if pid != pids[h.Name] {
				d.Errorf("%s has pid %d, but status says %d", unit, pid, pids[h.Name])
			}
			if slice := h.property(unit, "Slice"); slice != "ganglion.slice" {
				d.Errorf("%s is in %s", unit, slice)
			}
			uid, err := strconv.Atoi(h.must("ps", "-o", "uid=", "-p", fmt.Sprint(pid)))
			if err != nil || uid < 61184 || uid > 65519 { // systemd's dynamic users
				d.Errorf("the copy runs as %d (%v)", uid, err)
			}
			if score := h.must("cat", fmt.Sprintf("/proc/%d/oom_score_adj", pid)); score != "0" {
				d.Errorf("the copy has the OOM score %s of the agent", score)
			}
		}
	}
}

// killCopy kills a copy: PID 1 starts it again, and the mesh is told.
func (d *deb) killCopy() {
	var old int
	for _, pid := range d.b.units("web") {
		old = pid
		d.b.must("kill", "-KILL", fmt.Sprint(pid))
	}
	d.a.await(20*time.Second, func() error {
		out, err := d.a.try("ganglion", "events", "--since", "1m", "-o", "json", "app.web.>")
		if err != nil {
			return err
		}
		for line := range strings.Lines(out) {
			var e struct {
				Type, Source string
				Data         struct {
					Pid int
					By  string
				}
			}
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				return err
			}
			if e.Type == "dev.ganglion.app.restarted" && e.Source == "/hosts/"+d.b.Name && e.Data.By == "pid1" {
				for _, pid := range d.b.units("web") {
					if pid != old && pid == e.Data.Pid {
						return nil
					}
				}
			}
		}
		return fmt.Errorf("pid %d was killed, but no event tells of a restart by PID 1:\n%s", old, out)
	})
	d.a.ready("web", 2)
}

// restartAgent changes the agent and not its copies.
func (d *deb) restartAgent() {
	for _, h := range []*host{d.a, d.b} {
		copies, agent := h.units("web"), h.agent()
		h.must("systemctl", "restart", "ganglion")
		if h.agent() == agent {
			d.Errorf("%s: the agent is the same", h.Name)
		}
		h.same(copies, "restart of the agent")
	}
	d.settled("restart of the agents")
}

// settled waits until both copies are known to be ready again, and checks that
// they are those that PID 1 knows.
func (d *deb) settled(what string) {
	d.Helper()
	before := map[*host]map[string]int{d.a: d.a.units("web"), d.b: d.b.units("web")}
	d.a.hostsAlive(2)
	pids := d.a.ready("web", 2)
	for h, units := range before {
		h.same(units, "some time after "+what)
		for unit, pid := range units {
			if pids[h.Name] != pid {
				d.Errorf("after %s: %s has pid %d, but status says %d", what, unit, pid, pids[h.Name])
			}
		}
	}
}

// upgrade replaces the package under running copies; what the administrator
// wrote stays.
func (d *deb) upgrade() {
	const config = "labels = { zone = \"z\" }\n"
	d.b.write("/etc/ganglion/agent.hcl", config, 0o640)
	for _, h := range []*host{d.a, d.b} {
		copies, agent := h.units("web"), h.agent()
		d.apt(h, d.old, "--reinstall")
		h.same(copies, "reinstallation")
		if h.agent() == agent {
			d.Errorf("%s: the agent was not restarted", h.Name)
		}
		agent = h.agent()
		d.apt(h, d.new)
		h.same(copies, "upgrade")
		if h.agent() == agent {
			d.Errorf("%s: the agent was not restarted", h.Name)
		}
		if got := h.must("ganglion", "version"); !strings.Contains(got, newVersion) {
			d.Errorf("version: %s", got)
		}
	}
	d.settled("upgrade")
	if got := d.b.must("cat", "/etc/ganglion/agent.hcl"); got != strings.TrimSpace(config) {
		d.Errorf("the upgrade changed the configuration to %s", got)
	}
	if got := d.a.must("ganglion", "hosts", "-o", "wide"); !strings.Contains(got, "zone=z") {
		d.Errorf("the configuration has no effect:\n%s", got)
	}
	// It was an upgrade, too, if the order of versions is right.
	d.b.must("dpkg", "--compare-versions", d.b.must("dpkg-query", "-W", "-f", "${Version}", "ganglion"), "lt", "1.0.1")
}

// hangAgent stops the agent without ending it: the watchdog sees to it.
func (d *deb) hangAgent() {
	copies, agent := d.b.units("web"), d.b.agent()
	restarts := d.b.property("ganglion.service", "NRestarts")
	d.b.must("kill", "-STOP", fmt.Sprint(agent))
	took := d.b.await(45*time.Second, func() error {
		if d.b.property("ganglion.service", "NRestarts") == restarts || d.b.property("ganglion.service", "ActiveState") != "active" {
			return fmt.Errorf("the agent hangs")
		}
		return nil
	})
	d.Logf("replaced after %v", took.Round(100*time.Millisecond))
	if d.b.agent() == agent {
		d.Error("the agent is the same")
	}
	if log := d.b.must("journalctl", "-b", "--no-pager", "-u", "ganglion"); !strings.Contains(log, "Watchdog timeout") {
		d.Error("it was not the watchdog")
	}
	d.b.same(copies, "watchdog")
	d.settled("the watchdog's restart")
}

// remove ends what the package ran and keeps what it wrote: installed again, the
// host is the member that it was.
func (d *deb) remove() {
	d.b.must("apt-get", "remove", "-y", "-qq", "ganglion")
	d.nothingRuns(d.b)
	if got := d.b.must("sh", "-c", "cat /var/lib/private/ganglion/apps/web/*/state/diary"); !strings.Contains(got, "was here") {
		d.Errorf("the copy's data is %q", got)
	}
	d.apt(d.b, d.new)
	d.b.agent()
	// Its copy ended with the package, and where the steps before were quick that is the
	// second time that it did within the window: it is held back for a moment.
	d.b.await(20*time.Second, func() error {
		for _, pid := range d.b.units("web") {
			if pid != 0 {
				return nil
			}
		}
		return errors.New("no copy runs again")
	})
	d.settled("installation of the removed package")
}

func (d *deb) nothingRuns(h *host) {
	d.Helper()
	if left := h.running("ganglion|86420"); left != "" {
		d.Errorf("processes are left:\n%s", left)
	}
	if left := h.must("systemctl", "list-units", "--plain", "--no-legend", "*ganglion*"); left != "" {
		d.Errorf("units are left:\n%s", left)
	}
}

// purge leaves the host as if there had been no package, though it was in the
// middle of its work.
func (d *deb) purge() {
	d.b.write("/etc/ganglion/token", "mesh1.x", 0o600)
	d.b.must("apt-get", "purge", "-y", "-qq", "ganglion")
	d.nothingRuns(d.b)
	for file := range d.b.everything() {
		if !d.before[file] {
			d.Errorf("left on the host: %s", file)
		}
	}
	if got, _ := d.b.try("grep", "-rE", "ganglion|gl-web", "/etc/passwd", "/etc/group", "/etc/gshadow", "/etc/shadow"); got != "" {
		d.Errorf("users are left: %s", got)
	}
}

// again installs the package on the purged host, which is a stranger now: its
// old self is a lost host to the mesh, so it makes one of its own.
func (d *deb) again() {
	d.apt(d.b, d.new)
	d.b.agent()
	d.b.must("ganglion", "init", "--name", "second")
	d.b.write("/root/web.hcl", web, 0o644)
	d.b.must("ganglion", "apply", "/root/web.hcl")
	d.b.ready("web", 1)
}
