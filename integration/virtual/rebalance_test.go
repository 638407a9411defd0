package virtual

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
)

// begunFor returns the copies of an app that began after some moment, in order.
func begunFor(h History, app string, after time.Duration) (out []Span) {
	for _, s := range h.Spans {
		if s.Copy.App == app && s.From > after {
			out = append(out, s)
		}
	}
	return out
}

// Three hosts run nine copies when two more join. With the setting on copies move
// onto them, a budget's worth at a time and each begun before another ends, and
// those that need not move run on; with it off nothing moves.
func TestRebalanceOnJoin(t *testing.T) {
	const moves, window = 2, time.Minute
	for _, set := range []string{"off", fmt.Sprintf("%d/%s", moves, window)} {
		t.Run(set, func(t *testing.T) {
			seeds(t, 2, func(t *testing.T, seed uint64) {
				Run(t, Config{Hosts: 5, Seed: seed, Surge: 1}, func(t *testing.T, m *Mesh) {
					m.Found()
					for _, h := range m.Hosts[1:3] {
						m.Join(h)
					}
					m.AwaitVoters(60*time.Second, 3)
					if err := m.Set(t.Context(), api.MeshSettings{Rebalance: set}); err != nil {
						t.Fatal(err)
					}
					m.Apply(App("web", 9))
					m.AwaitReady(20*time.Second, "web", 9)
					Sleep(30 * time.Second)
					before, joined := m.History().Running("web"), m.History().Now
					for _, h := range m.Hosts[3:] {
						m.Join(h)
					}
					if set == "off" {
						Sleep(5 * time.Minute)
						if after := m.History().Running("web"); !slices.Equal(before, after) {
							t.Errorf("something moved: before %v, after %v", before, after)
						}
						return
					}
					if seed == 1 { // a change of leader in the middle refills nothing
						m.Await(time.Minute, "a first copy", func(context.Context) error {
							if len(begunFor(m.History(), "web", joined)) == 0 {
								return errors.New("none has begun")
							}
							return nil
						})
						old := m.Leader()
						old.Stop()
						old.Start()
					}
					m.Await(5*time.Minute, "copies on the new hosts", func(context.Context) error { return spreadOver(m, 5) })
					Sleep(5 * time.Minute)
					judgeSpread(t, m, before, joined, moves, window)
				})
			})
		})
	}
}

// spreadOver tells whether nine copies are on all of five hosts.
func spreadOver(m *Mesh, hosts int) error {
	for _, h := range m.Hosts[:hosts] {
		if on := len(m.History().On(h.Name)); on < 1 || on > 2 {
			return fmt.Errorf("%s has %d copies", h.Name, on)
		}
	}
	return nil
}

func judgeSpread(t *testing.T, m *Mesh, before []Span, joined time.Duration, moves int, window time.Duration) {
	if err := spreadOver(m, 5); err != nil {
		t.Error(err)
	}
	after := m.History().Running("web")
	kept := 0
	for _, s := range before {
		if slices.Contains(after, s) {
			kept++
		}
	}
	begun := begunFor(m.History(), "web", joined)
	if len(after) != 9 || kept != 9-3 || len(begun) != 3 {
		t.Errorf("%d copies, %d of them as before, %d begun: want 9, 6 and 3", len(after), kept, len(begun))
	}
	for i := range begun {
		if j := i + moves; j < len(begun) && begun[j].From-begun[i].From < window-time.Second {
			t.Errorf("%d moves within %s: %v", moves+1, begun[j].From-begun[i].From, begun)
		}
	}
	for _, s := range before { // each ends after one has begun in its stead, and was well
		if ended := slices.IndexFunc(m.History().Spans, func(x Span) bool { return x.Copy == s.Copy && x.From == s.From && x.Ended() }); ended >= 0 {
			end := m.History().Spans[ended].To
			if !slices.ContainsFunc(begun, func(b Span) bool { return b.From < end-4*time.Second }) {
				t.Errorf("%v ended before another was well", s)
			}
		}
	}
}
