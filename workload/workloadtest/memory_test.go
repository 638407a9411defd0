package workloadtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ganglion-mesh/ganglion/workload"
)

func TestMemoryConforms(t *testing.T) {
	var host *Host
	Run(t, Harness{
		Host:     "h1",
		New:      func(*testing.T) workload.Driver { host = NewHost("h1"); return NewMemory(host) },
		Restart:  func(*testing.T, workload.Driver) workload.Driver { return NewMemory(host) },
		Programs: MemoryPrograms(),
		Virtual:  true,
		Now:      func() time.Duration { return host.Now() },
		Runs: func(in workload.Instance) bool {
			return slices.ContainsFunc(host.Running(), func(r workload.Instance) bool { return r.Pid == in.Pid })
		},
	})
}

func memorySpec(n int, command ...string) workload.Spec {
	return workload.Spec{ID: workload.CopyID{App: "web", N: n}, Command: command}
}

func TestMemoryFaults(t *testing.T) {
	host := NewHost("h1")
	d := NewMemory(host)
	ctx := context.Background()
	s := memorySpec(1, progSleep)
	broken := errors.New("broken")
	host.FailStarts(s.ID, broken, nil)
	if _, err := d.Start(ctx, s, 1); !errors.Is(err, broken) {
		t.Fatalf("error %v, want the fault", err)
	}
	h, err := d.Start(ctx, s, 2)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = d.Start(ctx, s, 3)
	if len(host.Doubled()) != 1 || len(host.Starts()) != 1 {
		t.Errorf("doubled %v, starts %v", host.Doubled(), host.Starts())
	}
	if !host.Heal(s.ID, syscall.SIGSEGV) {
		t.Fatal("nothing to heal")
	}
	if e := <-h.Exited(); e.Successor == nil || e.Successor.Start != 3 || h.Instance().Pid != e.Successor.Pid {
		t.Errorf("exit %+v", e)
	}
	host.HideExits()
	if !host.Exit(s.ID, 4) || host.Exit(s.ID, 4) || host.Kill(s.ID, syscall.SIGKILL) {
		t.Error("a copy did not end once")
	}
	if e, ok := <-h.Exited(); !ok || e.Known || e.Code != 0 {
		t.Errorf("hidden exit %+v, %v", e, ok)
	}
}

func TestMemoryHoldsStarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := NewHost("h1")
		d := NewMemory(host)
		s := memorySpec(1, progStubborn)
		release := host.HoldStarts(s.ID)
		started := make(chan workload.Handle)
		go func() {
			h, err := d.Start(t.Context(), s, 1)
			if err != nil {
				t.Error(err)
			}
			started <- h
		}()
		synctest.Wait()
		if len(host.Running()) != 0 {
			t.Fatal("a held start has started")
		}
		release()
		release()
		h := <-started
		begun := time.Now()
		if err := h.Stop(t.Context(), syscall.SIGTERM, time.Minute); err != nil {
			t.Fatal(err)
		}
		if time.Since(begun) != time.Minute {
			t.Errorf("stopped after %v of virtual time", time.Since(begun))
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		host.HoldStarts(s.ID)
		if _, err := d.Start(ctx, s, 2); !errors.Is(err, context.Canceled) {
			t.Errorf("a held start was not cancelled: %v", err)
		}
	})
}

func TestMemoryIsWatched(t *testing.T) {
	host := NewHost("h1")
	d := NewMemory(host)
	var told []string
	host.Watch(func(inst workload.Instance, e *workload.Exit) {
		told = append(told, fmt.Sprintf("%s#%d ended=%t", inst.Spec.ID, inst.Pid, e != nil))
	})
	h, err := d.Start(t.Context(), memorySpec(1, progSleep), 1)
	if err != nil {
		t.Fatal(err)
	}
	host.Heal(h.Instance().Spec.ID, syscall.SIGSEGV)
	if err := h.Stop(t.Context(), syscall.SIGTERM, time.Second); err != nil {
		t.Fatal(err)
	}
	want := []string{"web/1#1 ended=false", "web/1#1 ended=true", "web/1#2 ended=false", "web/1#2 ended=true"}
	if !slices.Equal(told, want) {
		t.Errorf("told %q, want %q", told, want)
	}
}
