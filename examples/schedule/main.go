// A backup at half past two in Berlin on every working day.
package main

import "github.com/ganglion-mesh/ganglion/intent"

func main() {
	intent.Main(func(m *intent.Mesh) {
		m.App(intent.App{
			Name:     "backup",
			Schedule: "CRON_TZ=Europe/Berlin 30 2 * * MON-FRI",
			Run:      intent.Run{Command: []string{"/usr/local/bin/backup", "--to", "s3://backups/mesh"}},
		})
	})
}
