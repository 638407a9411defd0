// The smallest app: two copies of a program that is on every host.
package main

import "github.com/ganglion-mesh/ganglion/intent"

func main() {
	copies := 2
	intent.Main(func(m *intent.Mesh) {
		m.App(intent.App{
			Name:  "hello",
			Count: &copies,
			Run:   intent.Run{Command: []string{"sleep", "infinity"}},
		})
	})
}
