// At most one copy in the whole mesh, fenced by a lease; it finds its fencing
// token in GANGLION_TOKEN.
package main

import "github.com/ganglion-mesh/ganglion/intent"

func main() {
	intent.Main(func(m *intent.Mesh) {
		m.App(intent.App{
			Name:      "billing",
			Singleton: true,
			Run: intent.Run{
				Command: []string{"/opt/billing/bin/billing", "--state", "/var/lib/billing"},
				User:    "billing",
			},
		})
	})
}
