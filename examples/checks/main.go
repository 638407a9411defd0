// Every kind of check. Readiness follows all of them; those with live also
// restart the copy.
package main

import "github.com/ganglion-mesh/ganglion/intent"

func main() {
	no := false
	intent.Main(func(m *intent.Mesh) {
		m.App(intent.App{
			Name:  "shop",
			Run:   intent.Run{Command: []string{"./shop"}, Artifact: "./shop"},
			Ports: map[string]intent.Port{"http": {}, "admin": {}},
			Checks: []intent.Check{
				{
					Type: intent.CheckHTTP, Port: "http", Path: "/healthz",
					Every: intent.Second, Timeout: 500 * intent.Millisecond, Grace: 20 * intent.Second, Failures: 5,
				},
				{Type: intent.CheckTCP, Port: "admin", Live: &no},
				{Type: intent.CheckExec, Command: []string{"./shop", "ping", "${host.addr}:${port.admin}"}, Every: 30 * intent.Second},
				{Type: intent.CheckProcess},
				{Type: intent.CheckSmoke, Command: []string{"./shop", "selftest"}, Timeout: 30 * intent.Second},
			},
		})
	})
}
