// A web app from a package that apply pushes, and a reflex beside it.
package main

import "github.com/ganglion-mesh/ganglion/intent"

func main() {
	copies := 3
	intent.Main(func(m *intent.Mesh) {
		m.App(intent.App{
			Name:  "web",
			Count: &copies,
			Run: intent.Run{
				Command:  []string{"./web", "-listen", ":${port.http}"},
				Artifact: "./web.tar.gz",
				Env:      map[string]string{"MODE": "prod"},
			},
			Ports:     map[string]intent.Port{"http": {}},
			Resources: intent.Resources{CPU: 0.5, Memory: 256 * intent.MiB},
			Place:     intent.Place{Require: []string{"zone != 'c'"}, Spread: "zone"},
			Checks:    []intent.Check{{Type: intent.CheckHTTP, Path: "/healthz", Every: intent.Second}},
			Update:    intent.Update{Parallel: 1, Canary: 1, OnFailure: intent.OnFailureRollback},
		})
		m.Reflex(intent.Reflex{
			Name:     "shed-cache",
			When:     "host.memory.available_ratio < 0.05",
			For:      5 * intent.Second,
			Act:      []intent.Action{{Op: "restart", Target: "cache"}},
			Cooldown: intent.Minute,
			Limit:    "3/10m",
		})
	})
}
