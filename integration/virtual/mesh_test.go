package virtual

import (
	"testing"
	"time"
)

func TestFiveHostsJoin(t *testing.T) {
	Run(t, Config{Hosts: 5, Seed: 1}, func(m *Mesh) {
		begun := time.Now()
		m.Form()
		t.Logf("formed in %s", time.Since(begun))
		m.Apply(App("web", 10))
		t.Logf("ready in %s", m.AwaitReady(20*time.Second, "web", 10))
	})
}
