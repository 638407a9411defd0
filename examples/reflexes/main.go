// Rules that a host runs by itself: one bound to an app, one of the host, and
// one that only watches. Not yet executed.
package main

import "github.com/ganglion-mesh/ganglion/intent"

func main() {
	intent.Main(func(m *intent.Mesh) {
		m.App(intent.App{
			Name: "queue",
			Run:  intent.Run{Command: []string{"/opt/queue/bin/queue"}},
			Reflexes: []intent.Reflex{{
				Name: "slow-down",
				When: "app.mem_ratio > 0.95 && psi.memory.full_10s > 0.2", Clear: "app.mem_ratio < 0.80",
				For: 3 * intent.Second, ClearFor: 10 * intent.Second, MaxAge: 2 * intent.Second,
				Act: []intent.Action{
					{Op: "throttle", Target: "queue", Args: map[string]string{"cpu": "50%"}},
					{Op: "signal", Target: "queue", Args: map[string]string{"signal": "SIGUSR1"}},
				},
				Cooldown: 30 * intent.Second, Limit: "5/10m",
			}},
		})
		m.Reflex(intent.Reflex{
			Name: "disk-full",
			When: "host.disk.free_ratio < 0.02",
			Act: []intent.Action{
				{Op: "emit", Target: "disk-full", Args: map[string]string{"severity": "critical"}},
				{Op: "drain_self"},
			},
			Cooldown: 10 * intent.Minute, Limit: "1/1h",
		})
		m.Reflex(intent.Reflex{
			Name: "link-watch",
			When: "host.link.down > 0",
			Act: []intent.Action{
				{Op: "run", Target: "/usr/local/lib/ganglion/link-report", Args: map[string]string{"1": "--verbose"}},
				{Op: "webhook", Target: "https://example.org/hook"},
			},
			Limit: "3/10m", Mode: intent.ModeObserve,
		})
	})
}
