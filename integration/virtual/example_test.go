package virtual_test

import (
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/integration/virtual"
)

// Proofs of later promises look like this one.
func TestExample(t *testing.T) {
	virtual.Run(t, virtual.Config{Hosts: 3}, func(t *testing.T, m *virtual.Mesh) {
		m.Form()
		m.Apply(virtual.App("web", 3))
		m.AwaitReady(20*time.Second, "web", 3)
		m.Leader().Kill()
		m.Apply(virtual.App("web", 4))
		if got := len(m.History().Running("web")); got < 3 {
			t.Errorf("%d copies survived the agent's death", got)
		}
	})
}
