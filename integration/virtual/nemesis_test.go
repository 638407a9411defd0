package virtual

import (
	"testing"
	"time"
)

func TestNemesis(t *testing.T) {
	var mended figures
	total := map[string]int{}
	seeds(t, 10, func(t *testing.T, seed uint64) {
		zones := map[string]map[string]string{}
		for i := 1; i <= 5; i++ {
			zones[hostName(i)] = map[string]string{"zone": string(rune('a' + i%2))}
		}
		Run(t, Config{Hosts: 5, Seed: seed, Labels: zones, Surge: 1}, func(t *testing.T, m *Mesh) {
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
