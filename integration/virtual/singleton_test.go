package virtual

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/intent"
)

func singleton(name string) intent.App {
	return intent.App{Name: name, Singleton: true, Run: intent.Run{Command: []string{"sleep"}}}
}

// alone checks that no two processes of a singleton ever ran at once. Unlike
// other apps it is excused by no trouble.
func alone(t *testing.T, h History, app string) {
	t.Helper()
	for i, a := range h.Spans {
		for _, b := range h.Spans[i+1:] {
			la, lb := h.life(a), h.life(b)
			if a.Copy.App == app && b.Copy.App == app && max(la.from, lb.from) < min(la.to, lb.to) {
				t.Errorf("two of a singleton at once:\n  %s\n  %s", a, b)
			}
		}
	}
}

func (m *Mesh) drain(host string, undrain bool) {
	m.t.Helper()
	m.Await(30*time.Second, "drain", func(ctx context.Context) error { return m.Drain(ctx, host, undrain) })
}

// moved waits until an app runs on another host than that, and returns where and
// how long it took.
func (m *Mesh) moved(within time.Duration, app, from string) (string, time.Duration) {
	m.t.Helper()
	var on string
	took := m.Await(within, app+" moved", func(context.Context) error {
		run := m.History().Running(app)
		if len(run) != 1 || run[0].Host == from {
			return fmt.Errorf("it runs as %v", run)
		}
		on = run[0].Host
		return nil
	})
	return on, took
}

// A singleton goes on elsewhere within the window that plan prints, whether its
// host is cut off, or switched off, alone or with the leader; and never twice.
func TestSingletonFailsOver(t *testing.T) {
	var alonePlain, withLeader figures
	seeds(t, 4, func(t *testing.T, seed uint64) {
		Run(t, Config{Hosts: 5, Seed: seed}, func(t *testing.T, m *Mesh) {
			m.Form()
			leader := m.Leader().Name
			if seed > 2 { // not on the leader's host
				m.drain(leader, false)
			}
			m.Apply(singleton("db"))
			m.AwaitReady(20*time.Second, "db", 1)
			m.drain(leader, true)
			begun := m.History().Running("db")[0].From
			Sleep(40 * time.Second)
			if run := m.History().Running("db"); len(run) != 1 || run[0].From != begun {
				t.Fatalf("with nothing wrong it was not left alone: %v", run)
			}
			holder := m.Host(m.History().Running("db")[0].Host)
			window := topology.DefaultTimers().Window()
			lead := m.Leader() == holder
			if lead {
				window += topology.LeaderWindow
			}
			if seed%2 == 0 {
				m.Isolate(holder)
			} else {
				holder.Crash()
			}
			on, took := m.moved(window, "db", holder.Name)
			if lead {
				withLeader.add(took)
			} else {
				alonePlain.add(took)
			}
			m.Heal()
			if !holder.Up() {
				holder.Start()
			}
			m.AwaitMembers(60*time.Second, 5)
			m.AwaitReady(30*time.Second, "db", 1)
			if run := m.History().Running("db"); run[0].Host != on {
				t.Errorf("the return of %s moved it from %s to %s", holder.Name, on, run[0].Host)
			}
			alone(t, m.History(), "db")
		})
	})
	alonePlain.hold(t, "singleton elsewhere", topology.DefaultTimers().Window())
	withLeader.hold(t, "singleton elsewhere, its host having led", topology.DefaultTimers().Window()+topology.LeaderWindow)
}

// An agent that restarts, a drain, an upgrade and a change of leader cost a
// singleton no more than they must, and never double it.
func TestSingletonIsKeptThrough(t *testing.T) {
	seeds(t, 3, func(t *testing.T, seed uint64) {
		Run(t, Config{Hosts: 5, Seed: seed}, func(t *testing.T, m *Mesh) {
			m.Form()
			m.Apply(singleton("db"))
			m.AwaitReady(20*time.Second, "db", 1)
			before := m.History().Running("db")[0]
			holder := m.Host(before.Host)
			token := func() uint64 {
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				defer cancel()
				st, err := m.Status(ctx, "db")
				if err != nil || len(st.Copies) != 1 {
					t.Fatalf("status: %+v, %v", st, err)
				}
				return st.Copies[0].Token
			}
			first := token()
			holder.Kill() // the lease outlives an agent that is back in time
			Sleep(time.Second)
			holder.Start()
			m.AwaitMembers(60*time.Second, 5)
			Sleep(30 * time.Second)
			if run := m.History().Running("db"); len(run) != 1 || run[0].Pid != before.Pid || token() != first {
				t.Errorf("a restart of the agent: %v, was %v", run, before)
			}
			if leader := m.Leader(); leader != holder {
				leader.Kill()
				m.AwaitMembers(60*time.Second, 4)
				Sleep(30 * time.Second)
				if run := m.History().Running("db"); len(run) != 1 || run[0].Pid != before.Pid || token() != first {
					t.Errorf("a change of leader: %v, was %v", run, before)
				}
				leader.Start()
				m.AwaitMembers(60*time.Second, 5)
			}
			m.drain(holder.Name, false)
			on, took := m.moved(10*time.Second, "db", holder.Name)
			t.Logf("drained in %s", took)
			if next := token(); next <= first {
				t.Errorf("token %d after %d", next, first)
			}
			app := singleton("db")
			app.Run.Env = map[string]string{"V": "2"}
			version := m.History().Running("db")[0].Version
			m.Apply(app)
			m.Await(30*time.Second, "upgraded", func(context.Context) error {
				if run := m.History().Running("db"); len(run) != 1 || run[0].Version == version || run[0].Host != on {
					return fmt.Errorf("%v", run)
				}
				return nil
			})
			if err := m.Delete(t.Context(), "db"); err != nil {
				t.Fatal(err)
			}
			m.Await(30*time.Second, "gone", func(ctx context.Context) error { return m.Gone(ctx, "db") })
			m.Apply(singleton("db"))
			m.AwaitReady(20*time.Second, "db", 1)
			alone(t, m.History(), "db")
		})
	})
}
