//go:build linux

package nspawn

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestReflexHealsAUnit: a unit that systemd has given up on is restarted by a
// reflex, once, where the agent's configuration names it; elsewhere the rule is off
// and says why.
func TestReflexHealsAUnit(t *testing.T) {
	t.Parallel() // it waits most of the time
	a := startMesh(t, "--reflex-units", "flaky.service,dbus.socket")
	unit := filepath.Join(t.TempDir(), "unit")
	text := "[Service]\nExecStart=/bin/sh -c '[ -e /srv/ok ] || exit 1; exec sleep 86422'\nRestart=always\nRestartSec=0\n"
	if err := os.WriteFile(unit, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"flaky.service", "other.service"} {
		a.CopyIn(t, unit, "/etc/systemd/system/"+name, 0o644)
	}
	a.must("systemctl", "daemon-reload")
	for _, name := range []string{"flaky.service", "other.service"} {
		a.must("systemctl", "start", name)
		a.await("systemd to give up on "+name, func() error {
			if state := a.property(name, "ActiveState"); state != "failed" {
				return fmt.Errorf("it is %s", state)
			}
			return nil
		})
	}
	if _, err := a.try("systemctl", "start", "flaky.service"); err == nil && a.property("flaky.service", "Result") != "start-limit-hit" {
		t.Error("systemd has not given up: there is nothing to show")
	}
	a.must("touch", "/srv/ok")
	rule := func(name, unit string) string {
		return fmt.Sprintf("reflex %q {\n  scope = \"unit:%s\"\n  when = \"unit.state == 'failed'\"\n  act = [restart()]\n  cooldown = \"1s\"\n  limit = \"5/1m\"\n}\n", name, unit)
	}
	a.apply(rule("heal-flaky", "flaky.service") + rule("heal-other", "other.service"))
	a.await("the unit to be healed", func() error {
		if state := a.property("flaky.service", "ActiveState"); state != "active" {
			return fmt.Errorf("it is %s; suppressed: %v", state, a.told("reflex.heal-flaky.>", "suppressed"))
		}
		return nil
	})
	a.await("it to be told", func() error {
		fired := a.told("reflex.heal-flaky.>", "fired")
		if len(fired) != 1 || !strings.Contains(fired[0], `"result":"ok"`) {
			return fmt.Errorf("fired %v", fired)
		}
		return nil
	})
	a.await("the refusal to be told", func() error {
		if told := a.told("reflex.heal-other.>", "suppressed"); len(told) == 0 || !strings.Contains(told[0], "reflex_units") {
			return fmt.Errorf("suppressed %v", told)
		}
		return nil
	})
	if state := a.property("other.service", "ActiveState"); state != "failed" {
		t.Errorf("a unit that is not named was touched: it is %s", state)
	}
	if has := a.must("cat", "/sys/fs/cgroup/cgroup.controllers"); !strings.Contains(has, "cpu ") {
		throttle := strings.Replace(rule("slow", "flaky.service"), "restart()", "throttle({ cpu = \"50%\" })", 1)
		a.apply(throttle)
		a.await("a throttle without a controller to be off, and told", func() error {
			if told := a.told("reflex.slow.>", "suppressed"); len(told) == 0 || !strings.Contains(told[0], "no cpu controller") {
				return fmt.Errorf("suppressed %v", told)
			}
			return nil
		})
	}
	// The budget of a mesh this small is one in ten minutes.
	a.must("rm", "/srv/ok")
	a.must("systemctl", "kill", "--signal=KILL", "flaky.service")
	a.await("the want of a token to be told", func() error {
		if told := a.told("reflex.heal-flaky.>", "suppressed"); len(told) == 0 {
			return errors.New("nothing was suppressed")
		}
		return nil
	})
	if fired := a.told("reflex.heal-flaky.>", "fired"); len(fired) != 1 {
		t.Errorf("a second restart within the window: %v", fired)
	}
}

// TestReflexStopsAndSignalsUnits: a unit that is named is stopped by its own rule, and
// one gets a signal, each once, for the one token of so small a mesh.
func TestReflexStopsAndSignalsUnits(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		act  string
		done func(a agent) error
	}{
		{"stop()", func(a agent) error {
			if state := a.property("mine.service", "ActiveState"); state != "inactive" {
				return fmt.Errorf("it is %s", state)
			}
			_, err := a.try("test", "-e", "/srv/stopped") // its own ExecStop
			return err
		}},
		{"signal({ signal = \"SIGHUP\" })", func(a agent) error {
			_, err := a.try("test", "-e", "/srv/signalled")
			return err
		}},
	} {
		op, _, _ := strings.Cut(c.act, "(")
		t.Run(op, func(t *testing.T) {
			t.Parallel()
			a := startMesh(t, "--reflex-units", "mine.service")
			unit := filepath.Join(t.TempDir(), "unit")
			text := "[Service]\nExecStart=/bin/sh -c 'trap \"touch /srv/signalled\" HUP; while :; do sleep 0.1; done'\nExecStop=/bin/touch /srv/stopped\n"
			if err := os.WriteFile(unit, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			a.CopyIn(t, unit, "/etc/systemd/system/mine.service", 0o644)
			a.must("systemctl", "daemon-reload")
			a.must("systemctl", "start", "mine.service")
			a.apply(fmt.Sprintf("reflex \"quiet\" {\n  scope = \"unit:mine.service\"\n  when = \"unit.state == 'active'\"\n  for = \"2s\"\n  act = [%s]\n  cooldown = \"1s\"\n  limit = \"5/1m\"\n}\n", c.act))
			a.await("the unit's part of it", func() error {
				if err := c.done(a); err != nil {
					return fmt.Errorf("%w; suppressed: %v", err, a.told("reflex.quiet.>", "suppressed"))
				}
				return nil
			})
			a.await("it to be told", func() error {
				if fired := a.told("reflex.quiet.>", "fired"); len(fired) != 1 || !strings.Contains(fired[0], `"result":"ok"`) {
					return fmt.Errorf("fired %v", fired)
				}
				return nil
			})
			if op == "signal" && a.property("mine.service", "ActiveState") != "active" {
				t.Error("a signal that the unit takes has ended it")
			}
		})
	}
}

// TestReflexThrottlesAUnit: a unit that is named is held back for as long as its rule
// wants it: over its restarts, a reload, the agent's death and a freeze; and is then as
// its own file says. Seen in the kernel's quota.
func TestReflexThrottlesAUnit(t *testing.T) {
	t.Parallel()
	h := Boot(t, Options{Quotas: true})
	if len(h.v1) == 0 {
		t.Skip("needs the cpu controller of cgroup version 1")
	}
	a := startMeshOn(t, h, "--reflex-units", "mine.service,dbus.socket")
	file := filepath.Join(t.TempDir(), "unit")
	if err := os.WriteFile(file, []byte("[Service]\nExecStart=/bin/sleep 86423\nCPUQuota=50%\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	a.CopyIn(t, file, "/etc/systemd/system/mine.service", 0o644)
	a.must("systemctl", "daemon-reload")
	a.must("systemctl", "start", "mine.service")
	quota := func(when, want string) {
		t.Helper()
		a.await(when+": a quota of "+want, func() error {
			got, err := a.try("cat", h.v1[0]+"/system.slice/mine.service/cpu.cfs_quota_us")
			if err == nil && got != want {
				err = fmt.Errorf("it is %s; fired %v, suppressed %v", got, a.told("reflex.>", "fired"), a.told("reflex.>", "suppressed"))
			}
			return err
		})
	}
	quota("its own", "50000")
	rule := func(name, unit string) string {
		return fmt.Sprintf("reflex %q {\n  scope = \"unit:%s\"\n  when = \"unit.state == 'active'\"\n  clear = \"unit.state == 'failed'\"\n  act = [throttle({ cpu = \"20%%\" })]\n  cooldown = \"1h\"\n  limit = \"5/1h\"\n}\n", name, unit)
	}
	a.apply(rule("slow", "mine.service") + rule("none", "dbus.socket"))
	quota("held back", "20000")
	a.await("it to be told", func() error {
		fired, off := a.told("reflex.slow.>", "fired"), a.told("reflex.none.>", "suppressed")
		if len(fired) != 1 || !strings.Contains(fired[0], `"result":"ok"`) || len(off) == 0 || !strings.Contains(off[0], "only a service") {
			return fmt.Errorf("fired %v, suppressed %v", fired, off)
		}
		return nil
	})
	if out := a.must("ganglion", "reflex", "show", "slow"); !strings.Contains(out, "mine.service held to 0.2 cores until it is over") {
		t.Errorf("shown: %s", out)
	}
	a.must("systemctl", "restart", "mine.service")
	quota("restarted", "20000")

	a.kill()
	if err := os.WriteFile(file, []byte("[Service]\nCPUQuota=40%\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	a.CopyIn(t, file, "/etc/systemd/system/mine.service.d/zz.conf", 0o644)
	a.must("systemctl", "daemon-reload")
	quota("as the operator's drop-in says", "40000")
	a.begin()
	quota("held back again by the next life of the agent", "20000")

	a.must("ganglion", "freeze")
	a.must("systemctl", "kill", "--signal=KILL", "mine.service")
	a.await("the matter to be over", func() error {
		if cleared := a.told("reflex.slow.>", "cleared"); len(cleared) != 1 {
			return fmt.Errorf("cleared %v", cleared)
		}
		return nil
	})
	if q := a.property("mine.service", "CPUQuotaPerSecUSec"); q != "200ms" {
		t.Errorf("frozen, and the quota is %s", q)
	}
	a.must("ganglion", "thaw")
	a.await("it to be free", func() error {
		if q := a.property("mine.service", "CPUQuotaPerSecUSec"); q != "400ms" {
			return fmt.Errorf("the quota is %s", q)
		}
		return nil
	})
	if out, err := a.try("ls", "/run/systemd/system.control/mine.service.d"); err == nil {
		t.Errorf("left: %s", out)
	}
	a.must("systemctl", "start", "mine.service")
	if fired := a.told("reflex.slow.>", "fired"); len(fired) != 1 {
		t.Errorf("fired %v", fired)
	}
}
