// A migration that runs to completion once a release.
package main

import "github.com/ganglion-mesh/ganglion/intent"

func main() {
	const release = "1.4.0"
	intent.Main(func(m *intent.Mesh) {
		m.App(intent.App{
			Name: "migrate",
			Once: true,
			Run: intent.Run{
				Command:  []string{"./migrate", "up"},
				Artifact: "https://example.org/releases/migrate-" + release + ".tar.gz",
				Digest:   "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
			},
		})
	})
}
