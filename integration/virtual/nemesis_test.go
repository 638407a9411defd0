package virtual

import (
	"testing"
	"time"
)

func TestNemesis(t *testing.T) {
	var mended figures
	total := map[string]int{}
	seeds(t, 10, func(t *testing.T, seed uint64) {
		Run(t, Config{Hosts: 5, Seed: seed}, func(t *testing.T, m *Mesh) {
			m.Form()
			n := NewNemesis(m, seed)
			n.Rage(3 * time.Minute)
			mended.add(n.Mend(120 * time.Second))
			if err := n.Bit(); err != nil {
				t.Errorf("the run proves nothing: %v", err)
			}
			for act, times := range n.Done {
				total[act] += times
			}
		})
	})
	t.Logf("done: %v", total)
	mended.hold(t, "all as it should be after the faults", 120*time.Second)
}
