// One copy on every host that is not a gateway, on the same port everywhere.
package main

import "github.com/ganglion-mesh/ganglion/intent"

func main() {
	intent.Main(func(m *intent.Mesh) {
		m.App(intent.App{
			Name:    "exporter",
			PerHost: true,
			Run: intent.Run{
				Command: []string{"/usr/bin/prometheus-node-exporter", "--web.listen-address=${host.addr}:${port.metrics}"},
				Env:     map[string]string{"HOST": "${host.name}"},
			},
			Ports:  map[string]intent.Port{"metrics": {Static: 9100}},
			Place:  intent.Place{Require: []string{"role != 'gateway'"}},
			Checks: []intent.Check{{Type: intent.CheckTCP}},
		})
	})
}
