package hcl

import (
	"github.com/hashicorp/hcl/v2"

	"github.com/ganglion-mesh/ganglion/intent"
)

// decodeApp reads an app block.
func decodeApp(b top) intent.App {
	b.read(b.body,
		[]string{"count", "per_host", "singleton", "schedule", "once"},
		[]string{"run", "port", "resources", "place", "check", "restart", "update", "disconnect", "stop", "reflex"},
		"port", "check", "reflex")
	a := intent.App{Name: b.name}
	if b.attrs["count"] != nil {
		a.Count = new(int)
		b.whole("count", a.Count, false)
	}
	b.boolean("per_host", &a.PerHost)
	b.boolean("singleton", &a.Singleton)
	b.str("schedule", &a.Schedule)
	b.boolean("once", &a.Once)
	decodeRunning(b.block, &a)
	decodeKeeping(b.block, &a)
	b.listed("check", "checks", func(c *block, body hcl.Body) {
		a.Checks = append(a.Checks, decodeCheck(c, body))
	})
	b.listed("reflex", "reflexes", func(c *block, body hcl.Body) {
		a.Reflexes = append(a.Reflexes, decodeReflex(top{c, body}))
	})
	return a
}

// decodeRunning reads what runs, and where.
func decodeRunning(b *block, a *intent.App) {
	b.one("run", func(c *block, body hcl.Body) {
		c.read(body, []string{"command", "artifact", "digest", "env", "user", "dir"}, nil)
		c.strings("command", &a.Run.Command)
		c.str("artifact", &a.Run.Artifact)
		c.str("digest", &a.Run.Digest)
		c.stringMap("env", &a.Run.Env)
		c.str("user", &a.Run.User)
		c.str("dir", &a.Run.Dir)
	})
	b.keyed("port", "ports", func(c *block, body hcl.Body) {
		c.read(body, []string{"static"}, nil)
		var p intent.Port
		c.whole("static", &p.Static, true)
		if a.Ports == nil {
			a.Ports = make(map[string]intent.Port)
		}
		a.Ports[c.name] = p
	})
	b.one("resources", func(c *block, body hcl.Body) {
		c.read(body, []string{"cpu", "memory"}, nil)
		c.float("cpu", &a.Resources.CPU)
		c.parsed("memory", &a.Resources.Memory)
	})
	b.one("place", func(c *block, body hcl.Body) {
		c.read(body, []string{"require", "prefer", "spread"}, nil)
		c.strings("require", &a.Place.Require)
		c.strings("prefer", &a.Place.Prefer)
		c.str("spread", &a.Place.Spread)
	})
}

// decodeKeeping reads how copies are kept, changed and stopped.
func decodeKeeping(b *block, a *intent.App) {
	b.one("restart", func(c *block, body hcl.Body) {
		c.read(body, []string{"limit", "window", "backoff_max"}, nil)
		c.whole("limit", &a.Restart.Limit, true)
		c.span("window", &a.Restart.Window)
		c.span("backoff_max", &a.Restart.BackoffMax)
	})
	b.one("update", func(c *block, body hcl.Body) {
		c.read(body, []string{"strategy", "parallel", "canary", "healthy_for", "deadline", "on_failure"}, nil)
		c.str("strategy", &a.Update.Strategy)
		c.whole("parallel", &a.Update.Parallel, true)
		c.whole("canary", &a.Update.Canary, false)
		c.span("healthy_for", &a.Update.HealthyFor)
		c.span("deadline", &a.Update.Deadline)
		c.str("on_failure", &a.Update.OnFailure)
	})
	b.one("disconnect", func(c *block, body hcl.Body) {
		c.read(body, []string{"policy", "grace"}, nil)
		c.str("policy", &a.Disconnect.Policy)
		c.span("grace", &a.Disconnect.Grace)
	})
	b.one("stop", func(c *block, body hcl.Body) {
		c.read(body, []string{"signal", "grace"}, nil)
		c.str("signal", &a.Stop.Signal)
		c.span("grace", &a.Stop.Grace)
	})
}

func decodeCheck(c *block, body hcl.Body) intent.Check {
	c.read(body, []string{"path", "port", "command", "every", "timeout", "grace", "failures", "live"}, nil)
	check := intent.Check{Type: intent.CheckType(c.name)}
	c.str("path", &check.Path)
	c.str("port", &check.Port)
	c.strings("command", &check.Command)
	c.span("every", &check.Every)
	c.span("timeout", &check.Timeout)
	c.span("grace", &check.Grace)
	c.whole("failures", &check.Failures, true)
	var live bool
	if c.boolean("live", &live) {
		check.Live = &live
	}
	return check
}
