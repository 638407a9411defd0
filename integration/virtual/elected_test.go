package virtual

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/intent"
)

// TestWritesUnderWayFindTheNewLeader: a write that was handed on to a leader, and
// nobody answers it there, is made as soon as another leads. No client has to
// give up and ask again.
func TestWritesUnderWayFindTheNewLeader(t *testing.T) {
	faults := map[string]func(m *Mesh, h *Host){
		"switched off": func(_ *Mesh, h *Host) { h.Crash() },
		"cut off":      func(m *Mesh, h *Host) { m.Isolate(h) },
	}
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			seeds(t, 3, func(t *testing.T, seed uint64) {
				Run(t, Config{Hosts: 5, Seed: seed}, func(t *testing.T, m *Mesh) {
					m.Form()
					old := m.Leader()
					voters := slices.DeleteFunc(m.AwaitVoters(60*time.Second, 3), func(v string) bool { return v == old.Name })
					fault(m, old)
					sent, answered := writeAt(t, m, voters)
					reigns := m.History().Reigns
					if late := answered - max(sent, reigns[len(reigns)-1].From); late > 300*time.Millisecond {
						t.Errorf("the last write was answered %s after it was sent and a leader was there: %+v", late, reigns)
					}
				})
			})
		})
	}
}

// writeAt declares apps by each of some hosts, one every half second. It returns
// when the last was sent and when all were answered.
func writeAt(t *testing.T, m *Mesh, hosts []string) (sent, answered time.Duration) {
	const each, every = 4, 500 * time.Millisecond
	sent = m.ledger.now() + (each-1)*every
	answers := make(chan error, each*len(hosts))
	for i := range each {
		for _, host := range hosts {
			go func() {
				Sleep(time.Duration(i) * every)
				ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
				defer cancel()
				req := api.ApplyRequest{Intents: intent.Intents{Apps: []intent.App{App(fmt.Sprintf("by-%s-%d", host, i), 1)}}}
				answers <- m.Host(host).PostOnce(ctx, "/v1/apply", rand.Text(), req, nil)
			}()
		}
	}
	for range each * len(hosts) {
		if err := <-answers; err != nil {
			t.Error(err)
		}
	}
	return sent, m.ledger.now()
}
