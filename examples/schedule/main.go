// A backup at half past two on every working day. Not yet executed.
package main

import "github.com/ganglion-mesh/ganglion/intent"

func main() {
	intent.Main(func(m *intent.Mesh) {
		m.App(intent.App{
			Name:     "backup",
			Schedule: "30 2 * * MON-FRI",
			Run:      intent.Run{Command: []string{"/usr/local/bin/backup", "--to", "s3://backups/mesh"}},
		})
	})
}
