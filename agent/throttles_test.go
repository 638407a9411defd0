package agent

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/intent"
)

// throttled waits until the only rule of a host holds something back, or nothing,
// and returns what is said of it.
func (h *host) throttled(t *testing.T, want bool) (holds []string) {
	t.Helper()
	await(t, 40*time.Second, fmt.Sprintf("held back: %v", want), func() error {
		var list []api.LocalReflex
		if err := h.Get(t.Context(), "/v1/local/reflexes", url.Values{"name": {"slow"}}, &list); err != nil {
			return err
		}
		if list[0].Error != "" {
			t.Skipf("needs the cpu controller of cgroups: %s", list[0].Error)
		}
		holds = nil
		for _, x := range list[0].Targets {
			holds = append(holds, x.Holds...)
		}
		if (len(holds) > 0) != want {
			return fmt.Errorf("%+v; %s", list, texts(h.told(t, "reflex.>")))
		}
		return nil
	})
	return holds
}

// quotaOf is the cpu quota of a process's group, as the kernel says it; "-1" or
// "max" where there is none.
func quotaOf(t *testing.T, pid int) string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		for _, file := range []string{"/sys/fs/cgroup/" + f[1] + f[2] + "/cpu.cfs_quota_us", "/sys/fs/cgroup" + f[2] + "/cpu.max"} {
			if b, err := os.ReadFile(file); err == nil {
				return strings.Fields(string(b))[0]
			}
		}
	}
	return "max" // the root group
}

// hoarder is an app whose copy has more files open from SIGUSR1 to SIGUSR2.
func hoarder() intent.App {
	app := sleeper("web", 1)
	app.Run.Command = []string{"sh", "-c", `
		trap 'exec 3<&0 4<&0 5<&0 6<&0 7<&0 8<&0 9<&0' USR1
		trap 'exec 3<&- 4<&- 5<&- 6<&- 7<&- 8<&- 9<&-' USR2
		echo trapped >"$STATE_DIR/trapped"
		while :; do sleep 0.1; done`}
	app.Checks = []intent.Check{{
		Type: intent.CheckExec, Command: []string{"sh", "-c", `test -e "$STATE_DIR/trapped"`}, Every: intent.Duration(100 * time.Millisecond),
		Grace: intent.Minute, Timeout: 30 * intent.Second,
	}}
	return app
}

// slow declares the rule that holds such a copy back.
func (h *host) slow(t *testing.T, args map[string]string) {
	t.Helper()
	h.declare(t, intent.Reflex{
		Name: "slow", Scope: "copy:web", When: "app.files >= 8", Clear: "app.files < 8", Cooldown: intent.Hour,
		Act: []intent.Action{{Op: "throttle", Args: args}},
	})
	awaitRules(t, h, 1)
}

func kill(t *testing.T, pid int, sig syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(pid, sig); err != nil {
		t.Fatal(err)
	}
}

// TestReflexThrottles: a copy is held back while what it was held back for lasts,
// over a restart of the agent, and free when that is over.
func TestReflexThrottles(t *testing.T) {
	h := startHost(t, "h1", nil)
	h.init(t)
	h.apply(t, hoarder())
	pid := h.another(t, 0).Pid
	h.slow(t, map[string]string{"cpu": "20%"})
	h.throttled(t, false)
	kill(t, pid, syscall.SIGUSR1)
	if fired := h.fired(t, "slow"); fired.Result != "ok" {
		t.Fatalf("fired: %+v", fired)
	}
	if holds := h.throttled(t, true); len(holds) != 1 || holds[0] != "web/0 held to 0.2 cores until it is over" {
		t.Errorf("holds %q", holds)
	}
	if q := quotaOf(t, pid); q != "20000" {
		t.Errorf("quota %s", q)
	}
	h.stop(t)
	h.run(t)
	awaitRules(t, h, 1)
	h.throttled(t, true)
	if q := quotaOf(t, pid); q != "20000" {
		t.Errorf("quota %s after a restart of the agent", q)
	}
	kill(t, pid, syscall.SIGUSR2)
	h.throttled(t, false)
	awaitFree(t, pid)
}

// awaitFree waits until a process has no quota.
func awaitFree(t *testing.T, pid int) {
	t.Helper()
	await(t, 20*time.Second, "no quota", func() error {
		if q := quotaOf(t, pid); q != "max" && q != "-1" {
			return errors.New("quota " + q)
		}
		return nil
	})
}

// TestThrottleEnds with the process and with its rule; and a freeze keeps what is
// held back as it is.
func TestThrottleEnds(t *testing.T) {
	h := startHost(t, "h1", nil)
	h.init(t)
	h.apply(t, hoarder())
	pid := h.another(t, 0).Pid
	h.slow(t, map[string]string{"cpu": "0.5", "for": "1h"})
	h.throttled(t, false)
	kill(t, pid, syscall.SIGUSR1)
	if holds := h.throttled(t, true); !strings.HasPrefix(holds[0], "web/0 held to 0.5 cores for another ") {
		t.Errorf("holds %q", holds)
	}
	kill(t, pid, syscall.SIGKILL)
	h.throttled(t, false)
	pid = h.another(t, pid).Pid
	awaitFree(t, pid)

	h.slow(t, map[string]string{"cpu": "0.4"})
	kill(t, pid, syscall.SIGUSR1)
	h.throttled(t, true)
	if err := h.Post(t.Context(), "/v1/freeze", nil, api.FreezeRequest{Apps: []string{"web"}}, nil); err != nil {
		t.Fatal(err)
	}
	kill(t, pid, syscall.SIGUSR2)
	await(t, 20*time.Second, "over", func() error {
		var list []api.LocalReflex
		if err := h.Get(t.Context(), "/v1/local/reflexes", nil, &list); err != nil {
			return err
		}
		if x := list[0].Targets[0]; x.State != "inactive" || len(x.Holds) != 1 {
			return fmt.Errorf("%+v", x)
		}
		return nil
	})
	if err := h.Delete(t.Context(), "/v1/reflexes/slow", nil); err != nil {
		t.Fatal(err)
	}
	awaitFree(t, pid)
}

// TestThrottleIsRefused where it says nothing that could be meant.
func TestThrottleIsRefused(t *testing.T) {
	h := startHost(t, "h1", nil)
	h.init(t)
	for want, args := range map[string]map[string]string{
		"needs cpu or memory":           nil,
		"not a share of a core":         {"cpu": "50 apples"},
		"is not a size":                 {"memory": "much"},
		"too little":                    {"memory": "4KiB"},
		`did you mean "memory"`:         {"memroy": "1GiB"},
		"out of bounds":                 {"cpu": "1", "for": "1ms"},
		"is not a duration such as 500": {"cpu": "1", "for": "long"},
	} {
		r := intent.Reflex{Name: "x", When: "host.load.per_core > 99.0", Act: []intent.Action{{Op: "throttle", Target: "web", Args: args}}}
		err := h.Post(t.Context(), "/v1/apply", nil, api.ApplyRequest{Intents: intent.Intents{Reflexes: []intent.Reflex{r}}}, nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %s", args, err, want)
		}
	}
}
