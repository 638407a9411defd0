// All copies of the new version beside the old ones, then the change-over.
package main

import "github.com/ganglion-mesh/ganglion/intent"

func main() {
	copies := 3
	intent.Main(func(m *intent.Mesh) {
		m.App(intent.App{
			Name:   "api",
			Count:  &copies,
			Run:    intent.Run{Command: []string{"/opt/api/bin/api", "--listen", "${host.addr}:${port.http}"}},
			Ports:  map[string]intent.Port{"http": {}},
			Checks: []intent.Check{{Type: intent.CheckHTTP}},
			Update: intent.Update{Strategy: intent.StrategyBlueGreen, OnFailure: intent.OnFailureForward},
		})
	})
}
