package virtual

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/workload"
)

// brakes asks hosts what they show, and returns how many are frozen.
func brakes(ctx context.Context, hosts ...*Host) (frozen int, thawed uint64, err error) {
	for _, h := range hosts {
		var st api.FreezeState
		if err := h.Get(ctx, "/v1/local/freeze", nil, &st); err != nil {
			return frozen, thawed, err
		}
		if st.Frozen != nil {
			frozen++
		}
		thawed = max(thawed, st.Thawed)
	}
	return frozen, thawed, nil
}

func awaitBrakes(m *Mesh, within time.Duration, want int, hosts ...*Host) time.Duration {
	return m.Await(within, fmt.Sprintf("%d of %d frozen", want, len(hosts)), func(ctx context.Context) error {
		got, _, err := brakes(ctx, hosts...)
		if err == nil && got != want {
			err = fmt.Errorf("%d are", got)
		}
		return err
	})
}

// thaw thaws as the command does.
func thaw(ctx context.Context, h *Host) (st api.FreezeState, err error) {
	if err = h.Get(ctx, "/v1/local/freeze", nil, &st); err != nil {
		return st, err
	}
	req := api.ThawRequest{Records: st.Records}
	return st, h.PostOnce(ctx, "/v1/thaw", rand.Text(), req, &st)
}

// Two of five hosts, cut off from the rest, are frozen without a leader; they stay
// it over a restart, cannot be thawed by themselves, and tell the others when they
// meet. Then nothing moves, whoever leads and whatever dies, but what has ended
// begins again; until a quorum thaws.
func TestFreezeOverPartition(t *testing.T) {
	seeds(t, 2, func(t *testing.T, seed uint64) {
		Run(t, Config{Hosts: 5, Seed: seed, Surge: 1}, func(t *testing.T, m *Mesh) {
			m.Form()
			m.AwaitVoters(60*time.Second, 3)
			m.Apply(App("web", 5))
			m.AwaitReady(30*time.Second, "web", 5)
			var island, rest []*Host // the leader and another voter are in the rest
			voters := m.AwaitVoters(10*time.Second, 3)
			for _, h := range m.Hosts {
				if len(island) < 2 && !slices.Contains(voters, h.Name) {
					island = append(island, h)
				} else {
					rest = append(rest, h)
				}
			}
			m.Isolate(island...)
			var st api.FreezeState
			if err := island[0].Post(t.Context(), "/v1/freeze", nil, api.FreezeRequest{}, &st); err != nil || st.Frozen == nil || st.Frozen.Epoch != 1 {
				t.Fatalf("freeze on an island: %+v, %v", st, err)
			}
			awaitBrakes(m, 15*time.Second, 2, island...)
			if got, _, err := brakes(t.Context(), rest...); got != 0 || err != nil {
				t.Errorf("%d hosts beyond the cut are frozen, %v", got, err)
			}
			island[1].Stop()
			island[1].Start()
			awaitBrakes(m, 2*time.Second, 1, island[1]) // as soon as it answers
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			if _, err := thaw(ctx, island[0]); err == nil {
				t.Error("thawed with no quorum")
			}
			cancel()
			awaitBrakes(m, time.Second, 2, island...)
			m.Heal()
			t.Logf("all are frozen %s after they met", awaitBrakes(m, 90*time.Second, 5, m.Hosts...))
			m.AwaitReady(60*time.Second, "web", 5)
			frozenMesh(t, m, island, rest)
		})
	})
}

// frozenMesh has a host die, another drained and the leader change.
func frozenMesh(t *testing.T, m *Mesh, island, rest []*Host) {
	begun := m.History().Now
	about, err := m.About(t.Context())
	if err != nil || about.Frozen == nil || about.Frozen.Epoch != 1 || about.Frozen.Hard || about.Frozen.Apps == nil {
		t.Fatalf("mesh says %+v, %v", about.Frozen, err)
	}
	lost := island[1]
	lost.Crash()
	if err := m.Drain(t.Context(), rest[1].Name, false); err != nil {
		t.Fatal(err)
	}
	old := m.Leader()
	old.Stop()
	m.Leader(slices.DeleteFunc(m.Up(), func(h *Host) bool { return h == old })...)
	old.Start()
	Sleep(90 * time.Second)
	mark := m.History().Now
	ended := m.History().On(rest[0].Name)[0]
	if !rest[0].Kernel().Exit(workload.CopyID{App: ended.Copy.App, N: ended.Copy.N}, 1) {
		t.Fatalf("%v does not run", ended)
	}
	Sleep(10 * time.Second)
	again := begunFor(m.History(), "web", begun)
	if len(again) != 1 || again[0].Copy != ended.Copy || again[0].Host != ended.Host || again[0].From < mark {
		t.Errorf("frozen, and these began: %v; want %v again", again, ended.Copy)
	}
	if _, err := thaw(t.Context(), rest[2]); err != nil {
		t.Fatal(err)
	}
	up := m.Up()
	t.Logf("all are thawed %s after", awaitBrakes(m, 90*time.Second, 0, up...))
	m.Await(2*time.Minute, "the copies elsewhere", func(ctx context.Context) error {
		if n := len(m.History().On(rest[1].Name)); n > 0 {
			return fmt.Errorf("%d copies are on the drained host", n)
		}
		return m.Ready(ctx, "web", 5)
	})
	lost.Start()
	awaitBrakes(m, 90*time.Second, 0, lost) // it has slept through the thaw
	m.AwaitReady(60*time.Second, "web", 5)
}
