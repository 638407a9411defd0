package virtual

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/intent"
)

func TestHostsJoinAndRunCopies(t *testing.T) {
	var joined, ready figures
	seeds(t, 3, func(t *testing.T, seed uint64) {
		Run(t, Config{Hosts: 5, Seed: seed}, func(t *testing.T, m *Mesh) {
			m.Found()
			for _, h := range m.Hosts[1:] {
				m.Join(h)
			}
			joined.add(m.AwaitMembers(30*time.Second, 5))
			m.AwaitVoters(30*time.Second, 3)
			m.Apply(App("web", 10))
			ready.add(m.AwaitReady(20*time.Second, "web", 10))
			for _, h := range m.Hosts {
				if on := m.History().On(h.Name); len(on) != 2 {
					t.Errorf("not spread evenly: %v", on)
				}
			}
		})
	})
	joined.hold(t, "all see all after the last join", 5*time.Second)
	ready.hold(t, "ten copies ready", 5*time.Second)
}

// accepts waits until the mesh takes an intent, and returns how long that took.
// Every host is asked at once, for a second at a time.
func accepts(m *Mesh, app string, hosts ...*Host) time.Duration {
	return m.Await(60*time.Second, "intent accepted", func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		answers := make(chan error, len(hosts))
		for _, h := range hosts {
			go func() { answers <- m.TryApply(ctx, []intent.App{App(app, 1)}, h) }()
		}
		var errs []error
		for range hosts {
			err := <-answers
			if err == nil {
				return nil
			}
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	})
}

// others returns the hosts that are up, without some.
func others(m *Mesh, not ...*Host) []*Host {
	return slices.DeleteFunc(m.Up(), func(h *Host) bool { return slices.Contains(not, h) })
}

func TestLeaderIsReplaced(t *testing.T) {
	faults := map[string]func(m *Mesh, h *Host){
		"killed":      func(_ *Mesh, h *Host) { h.Kill() },
		"stopped":     func(_ *Mesh, h *Host) { h.Stop() },
		"switchedoff": func(_ *Mesh, h *Host) { h.Crash() },
		"cutoff":      func(m *Mesh, h *Host) { m.Isolate(h) },
	}
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			var back figures
			seeds(t, 2, func(t *testing.T, seed uint64) {
				Run(t, Config{Hosts: 5, Seed: seed}, func(t *testing.T, m *Mesh) {
					m.Form()
					for round := range 5 {
						old := m.Leader()
						fault(m, old)
						back.add(accepts(m, fmt.Sprintf("app%d", round), others(m, old)...))
						m.Heal()
						if !old.Up() {
							old.Start()
						}
						m.AwaitMembers(60*time.Second, 5)
						m.AwaitVoters(60*time.Second, 3)
						m.AwaitReady(60*time.Second, fmt.Sprintf("app%d", round), 1)
					}
					if m.Elections() < 5 {
						t.Errorf("only %d elections", m.Elections())
					}
				})
			})
			back.hold(t, "a new leader accepts an intent", 5*time.Second)
		})
	}
}

func TestCopiesOfALostHostRunElsewhere(t *testing.T) {
	var moved figures
	seeds(t, 4, func(t *testing.T, seed uint64) {
		Run(t, Config{Hosts: 5, Seed: seed}, func(t *testing.T, m *Mesh) {
			m.Form()
			m.Apply(App("web", 10))
			m.AwaitReady(20*time.Second, "web", 10)
			lost := m.Hosts[int(seed)%5]
			before := m.History().Running("web")
			lost.Crash()
			moved.add(m.AwaitReady(60*time.Second, "web", 10))
			after := m.History().Running("web")
			for _, s := range before { // what needed no move was not touched
				if s.Host != lost.Name && !slices.Contains(after, s) {
					t.Errorf("%s did not run on: %v", s, after)
				}
			}
			lost.Start()
			m.AwaitMembers(60*time.Second, 5)
			Sleep(30 * time.Second)
			m.AwaitReady(time.Second, "web", 10)
		})
	})
	moved.hold(t, "copies of a lost host ready elsewhere", 15*time.Second)
}

func TestMinorityKeepsItsCopies(t *testing.T) {
	var healed figures
	seeds(t, 4, func(t *testing.T, seed uint64) {
		Run(t, Config{Hosts: 5, Seed: seed}, func(t *testing.T, m *Mesh) {
			m.Form()
			m.Apply(App("web", 10))
			m.AwaitReady(20*time.Second, "web", 10)
			old := m.Leader()
			minority := []*Host{old, others(m, old)[int(seed)%4]}
			before := m.History().Running("web")
			m.Isolate(minority...)
			held := m.Net.Stopped()
			Sleep(60 * time.Second)
			if after := m.History().Running("web"); !slices.Equal(before, after) {
				t.Errorf("two of five hosts are away, which the gate does not believe:\nbefore %v\nafter %v", before, after)
			}
			if m.Net.Stopped() == held {
				t.Error("the partition held nothing up")
			}
			m.Heal()
			healed.add(m.Await(120*time.Second, "healed", func(ctx context.Context) error {
				if err := m.members(ctx, 5); err != nil {
					return err
				}
				return m.Ready(ctx, "web", 10)
			}))
			m.Apply(App("web", 12))
			m.AwaitReady(20*time.Second, "web", 12)
		})
	})
	healed.hold(t, "desired = actual after the partition", 60*time.Second)
}

func TestThreeOfFiveLookDead(t *testing.T) {
	seeds(t, 2, func(t *testing.T, seed uint64) {
		Run(t, Config{Hosts: 5, Seed: seed}, func(t *testing.T, m *Mesh) {
			m.Form()
			m.Apply(App("web", 10))
			m.AwaitReady(20*time.Second, "web", 10)
			// Two voters stay, so that there is a leader who could move everything.
			voters := m.AwaitVoters(time.Second, 3)
			var away []*Host
			for _, h := range m.Hosts {
				if len(away) < 2 && !slices.Contains(voters, h.Name) {
					away = append(away, h)
				}
			}
			leader := m.Leader()
			away = append(away, m.Host(voters[slices.IndexFunc(voters, func(v string) bool { return v != leader.Name })]))
			before := m.History().Running("web")
			for _, h := range away {
				h.Kill() // at once; their copies run on
			}
			Sleep(3 * time.Minute)
			if after := m.History().Running("web"); !slices.Equal(before, after) {
				t.Errorf("something moved:\nbefore %v\nafter %v", before, after)
			}
			st, err := m.Status(t.Context(), "web")
			if err != nil || st.Ready != 4 {
				t.Errorf("the leader says %+v, %v", st, err)
			}
			for _, h := range away {
				h.Start()
			}
			m.AwaitMembers(60*time.Second, 5)
			m.AwaitReady(60*time.Second, "web", 10)
			if after := m.History().Running("web"); !slices.Equal(before, after) {
				t.Errorf("the agents' return moved something:\nbefore %v\nafter %v", before, after)
			}
		})
	})
}

func TestCopiesOutliveTheirAgents(t *testing.T) {
	seeds(t, 2, func(t *testing.T, seed uint64) {
		Run(t, Config{Hosts: 3, Seed: seed}, func(t *testing.T, m *Mesh) {
			m.Form()
			m.Apply(App("web", 6), Stubborn("slow", 3, 5*time.Second))
			m.AwaitReady(20*time.Second, "web", 6)
			m.AwaitReady(20*time.Second, "slow", 3)
			before := m.History().Running("")
			for i, h := range m.Hosts { // one after the other, each back in time
				if i%2 == 0 {
					h.Stop()
				} else {
					h.Kill()
				}
				h.Start()
				m.AwaitMembers(60*time.Second, 3)
			}
			for _, h := range m.Hosts { // all at once
				h.Kill()
			}
			Sleep(time.Minute)
			for _, h := range m.Hosts {
				h.Start()
			}
			m.AwaitMembers(60*time.Second, 3)
			m.AwaitReady(60*time.Second, "web", 6)
			m.AwaitReady(60*time.Second, "slow", 3)
			if after := m.History().Running(""); !slices.Equal(before, after) {
				t.Errorf("agents came and went:\nbefore %v\nafter %v", before, after)
			}
		})
	})
}

// A voter that can reach every other but the leader still learns what it is to
// run, from the other voters.
func TestSliceArrivesPastAnUnreachableLeader(t *testing.T) {
	seeds(t, 2, func(t *testing.T, seed uint64) {
		Run(t, Config{Hosts: 5, Seed: seed}, func(t *testing.T, m *Mesh) {
			m.Form()
			m.Apply(App("web", 10))
			m.AwaitReady(20*time.Second, "web", 10)
			leader := m.Leader()
			voters := m.AwaitVoters(time.Second, 3)
			h := m.Host(voters[slices.IndexFunc(voters, func(v string) bool { return v != leader.Name })])
			m.CutLinks(func(from, to string) bool { return from == h.Name && to == leader.Name })
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			if err := m.Delete(ctx, "web"); err != nil {
				t.Fatal(err)
			}
			took := m.Await(60*time.Second, "stopped on "+h.Name, func(context.Context) error {
				if on := m.History().On(h.Name); len(on) > 0 {
					return fmt.Errorf("%v", on)
				}
				return nil
			})
			t.Logf("stopped in %s", took)
			if m.Net.Stopped() == 0 {
				t.Error("the cut held nothing up")
			}
		})
	})
}

func TestAgentsStopInTimeWithNobodyToTalkTo(t *testing.T) {
	seeds(t, 2, func(t *testing.T, seed uint64) {
		Run(t, Config{Hosts: 3, Seed: seed}, func(t *testing.T, m *Mesh) {
			m.Form()
			leader := m.Leader()
			m.Isolate(leader)
			Sleep(300 * time.Millisecond) // it leads yet, and calls are under way
			begun := time.Now()
			leader.Stop()
			if took := time.Since(begun); took > 5*time.Second {
				t.Errorf("the end took %s", took)
			}
			leader.Start() // everything was given back
			m.Heal()
			m.AwaitMembers(60*time.Second, 3)
			leader.Kill() // before its parts have begun
			leader.Start()
			leader.Stop()
			leader.Start()
			m.AwaitMembers(60*time.Second, 3)
		})
	})
}
