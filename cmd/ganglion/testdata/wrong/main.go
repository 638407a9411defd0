// Command wrong declares an app with a name that no app can have.
package main

import "github.com/ganglion-mesh/ganglion/intent"

func main() {
	intent.Main(func(m *intent.Mesh) {
		m.App(intent.App{Name: "No Name", Run: intent.Run{Command: []string{"/bin/true"}}})
	})
}
