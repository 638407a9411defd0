// Where copies run: hosts that may, hosts that should, and how far apart. What
// the file form repeats is a function here.
package main

import "github.com/ganglion-mesh/ganglion/intent"

func main() {
	intent.Main(func(m *intent.Mesh) {
		m.App(cache("eu", 4))
		m.App(cache("us", 2))
	})
}

func cache(region string, copies int) intent.App {
	return intent.App{
		Name:      "cache-" + region,
		Count:     &copies,
		Run:       intent.Run{Command: []string{"redis-server", "--port", "${port.redis}"}},
		Ports:     map[string]intent.Port{"redis": {}},
		Resources: intent.Resources{CPU: 1, Memory: 2 * intent.GiB},
		Place: intent.Place{
			Require: []string{"region == '" + region + "'", "disk in ['ssd', 'nvme']"},
			Prefer:  []string{"generation == '5'"},
			Spread:  "rack",
		},
	}
}
