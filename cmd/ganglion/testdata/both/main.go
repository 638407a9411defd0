// Command infra declares one app in the Go form, for the tests of apply.
package main

import "github.com/ganglion-mesh/ganglion/intent"

func main() {
	intent.Main(func(m *intent.Mesh) {
		m.App(intent.App{Name: "fromgo", Run: intent.Run{Command: []string{"/bin/sleep", "1000"}}})
	})
}
