//go:build linux

package nspawn

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
)

// held waits until an app's one copy is down because restarts are frozen.
func (a agent) held(app string) {
	a.t.Helper()
	a.await(app+" to be held", func() error {
		st, err := a.status(app)
		if err != nil {
			return err
		}
		if len(st.Copies) != 1 || st.Copies[0].Pid != 0 || !strings.Contains(st.Copies[0].Why, "frozen") {
			return fmt.Errorf("copies %+v", st.Copies)
		}
		return nil
	})
	for _, u := range a.units(app) {
		if pid := a.property(u, "MainPID"); pid != "0" {
			a.t.Errorf("%s is held, and %s runs as %s", app, u, pid)
		}
	}
}

// heals waits until PID 1 would restart an app's copy, or would not.
func (a agent) heals(app string, want bool) {
	a.t.Helper()
	restart := map[bool]string{true: "always", false: "no"}[want]
	a.await("PID 1 to be told of "+app, func() error {
		us := a.units(app)
		if len(us) != 1 || a.property(us[0], "Restart") != restart {
			return fmt.Errorf("units %v, want one with Restart=%s", us, restart)
		}
		return nil
	})
}

// shoot kills an app's copy, and returns which it was.
func (a agent) shoot(app string) (pid int) {
	a.t.Helper()
	pid = a.pid(app)
	a.must("kill", "-KILL", strconv.Itoa(pid))
	return pid
}

// back waits until an app's copy runs again as another process.
func (a agent) back(app string, was int) {
	a.t.Helper()
	a.await(app+" to be back", func() error {
		if pid := a.pid(app); pid == was {
			return fmt.Errorf("it is still shown as %d", was)
		}
		return nil
	})
}

// TestHardFreeze: a freeze leaves restarts to PID 1 and to keepers; a hard one
// holds them, also over a restart of the agent and daemon-reload, and of one app
// alone if that is what was asked for; a thaw brings back what ended.
func TestHardFreeze(t *testing.T) {
	t.Parallel() // it waits most of the time
	a := startMesh(t)
	const run = "  run {\n    command = [\"/bin/sleep\", \"86421\"]\n  }\n}\n"
	a.apply("app \"web\" {\n" + run + "app \"other\" {\n" + run + "app \"db\" {\n  singleton = true\n" + run)
	for _, app := range []string{"web", "other", "db"} {
		a.pid(app)
	}
	a.must("ganglion", "freeze")
	a.back("web", a.shoot("web"))
	a.back("db", a.shoot("db"))
	a.must("ganglion", "thaw")

	a.must("ganglion", "freeze", "--hard", "--app", "web")
	a.heals("web", false)
	a.heals("other", true)
	web := a.shoot("web")
	a.held("web")
	a.back("other", a.shoot("other"))
	a.must("ganglion", "thaw")
	a.back("web", web)
	a.heals("web", true)

	a.must("ganglion", "freeze", "--hard")
	a.heals("web", false)
	a.heals("other", false)
	web, db := a.shoot("web"), a.shoot("db")
	a.held("web")
	a.held("db")
	a.kill()
	a.must("systemctl", "daemon-reload")
	a.begin()
	a.held("web")
	other := a.shoot("other")
	a.held("other")
	a.must("ganglion", "thaw")
	a.back("web", web)
	a.back("db", db)
	a.back("other", other)
	a.heals("web", true)
	if left, _ := a.try("sh", "-c", "ls -d /run/systemd/system/ganglion-*"); left != "" {
		t.Errorf("thawed, and drop-ins are left: %s", left)
	}
}
