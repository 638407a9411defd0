// A library of reflexes to start from, each about one fault: what files beside
// this one say, in Go. Names of apps, links, disks and units are to be replaced.
package main

import "github.com/ganglion-mesh/ganglion/intent"

func main() {
	intent.Main(func(m *intent.Mesh) {
		for _, r := range library() {
			m.Reflex(r)
		}
	})
}

func emit(name, severity string) intent.Action {
	return intent.Action{Op: "emit", Target: name, Args: map[string]string{"severity": severity}}
}

func signal(app, name string) intent.Action {
	return intent.Action{Op: "signal", Target: app, Args: map[string]string{"signal": name}}
}

func library() []intent.Reflex {
	return []intent.Reflex{{
		Name: "clock-gap",
		When: "clock.gap_seconds > 30",
		Act:  []intent.Action{emit("clock-gap", "warning"), signal("sessions", "SIGUSR1")}, Cooldown: 10 * intent.Second, Limit: "10/1h",
	}, {
		Name: "crash-loop", Scope: "copy:web",
		When: "exit.count_10m >= 5", Clear: "exit.count_10m < 2",
		Act: []intent.Action{emit("crash-loop", "critical")}, Cooldown: 10 * intent.Minute, Limit: "6/1h",
	}, {
		Name: "disk-filling", Scope: "disk:/var",
		When: "disk.full_in_seconds < 1800 || disk.free_ratio < 0.05", Clear: "disk.full_in_seconds > 7200 && disk.free_ratio > 0.1",
		For: intent.Minute, ClearFor: 5 * intent.Minute,
		Act: []intent.Action{signal("logs", "SIGHUP"), emit("disk-filling", "critical")}, Cooldown: 5 * intent.Minute, Limit: "4/1h",
	}, {
		Name: "memory-pressure",
		When: "host.psi.memory.full_10s > 0.2 && host.memory.available_ratio < 0.1", Clear: "host.psi.memory.full_10s < 0.05",
		For: 3 * intent.Second, ClearFor: 10 * intent.Second,
		Act:      []intent.Action{signal("cache", "SIGHUP"), {Op: "restart", Target: "cache"}, emit("memory-pressure", "critical")},
		Cooldown: 30 * intent.Second, Limit: "6/30m",
	}, {
		Name: "nic-down", Scope: "link:wg0",
		When: "!link.up", Clear: "link.up && link.addresses > 0",
		For: 2 * intent.Second, ClearFor: 5 * intent.Second,
		Act: []intent.Action{{Op: "restart", Target: "tunnel"}, emit("nic-down", "critical")}, Cooldown: 15 * intent.Second, Limit: "6/30m",
	}, {
		Name: "noisy-neighbour", Scope: "copy:batch",
		When: "app.cpu_cores > 1.5 && host.psi.cpu.some_10s > 0.5", Clear: "host.psi.cpu.some_10s < 0.2",
		For: 10 * intent.Second, ClearFor: intent.Minute,
		Act: []intent.Action{emit("noisy-neighbour", "warning"), {Op: "stop"}}, Cooldown: 5 * intent.Minute, Limit: "3/1h",
	}, {
		Name: "sick-disk", Scope: "disk:/var",
		When: "disk.read_only", For: 30 * intent.Second,
		Act: []intent.Action{emit("sick-disk", "critical"), {Op: "drain_self"}}, Cooldown: 60 * intent.Minute, Limit: "1/2h",
	}, {
		Name: "stuck-unit", Scope: "unit:nginx.service",
		When: "unit.state == 'failed' || unit.state == 'activating'", Clear: "unit.state == 'active'",
		For: 2 * intent.Minute,
		Act: []intent.Action{emit("stuck-unit", "critical")}, Cooldown: 15 * intent.Minute, Limit: "4/1h",
	}, {
		Name: "unhealthy-but-running", Scope: "copy:web",
		When: "app.running && app.uptime_seconds > 60 && check.failures >= 6", Clear: "check.failures == 0",
		Act: []intent.Action{{Op: "restart"}, emit("unhealthy-but-running", "critical")}, Cooldown: intent.Minute, Limit: "4/30m",
	}, {
		Name: "virtual-address", Scope: "copy:proxy",
		When: "app.ready", Clear: "!app.ready",
		For: 2 * intent.Second, ClearFor: 3 * intent.Second,
		Act: []intent.Action{{Op: "claim", Target: "10.0.0.10/24"}}, Cooldown: 5 * intent.Second, Limit: "10/10m",
	}}
}
