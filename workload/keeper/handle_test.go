//go:build linux

package keeper

import (
	"context"
	"syscall"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/workload"
	"github.com/ganglion-mesh/ganglion/workload/bootclock"
)

// launched is a rig's keeper as a driver would know it.
type launched struct{ *rig }

func (l launched) Ended() <-chan struct{} { return l.ended }

func (l launched) Released() bool { return false }

func (l launched) End(ctx context.Context) error {
	_ = l.cmd.Process.Kill()
	select {
	case <-l.ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// handle starts a copy and returns its handle, which does not run yet.
func (r *rig) handle(p Program, l workload.Lease) (*Handle, error) {
	r.t.Helper()
	w, st, err := r.client.Begin(r.ctx(), p, func() workload.Lease { return l }, 1)
	if err != nil {
		return nil, err
	}
	r.t.Cleanup(w.Close)
	return NewHandle(HandleConfig{Client: r.client, Watch: w, Process: launched{r}}, st), nil
}

// exit waits for the one exit of a handle.
func (r *rig) exit(h *Handle) workload.Exit {
	r.t.Helper()
	var all []workload.Exit
	for patient := r.ctx(); ; {
		select {
		case e, ok := <-h.Exited():
			if ok {
				all = append(all, e)
				continue
			}
		case <-patient.Done():
			r.t.Fatal("no exit")
		}
		if len(all) != 1 {
			r.t.Fatalf("exits %+v, want one", all)
		}
		return all[0]
	}
}

// How a copy ended is told however late an agent comes to follow its keeper: by
// then that may be gone.
func TestLateHandleTellsHowItEnded(t *testing.T) {
	t.Run("stopped", func(t *testing.T) {
		r := launch(t)
		h, err := r.handle(r.shell("exec sleep 1000"), lease(time.Minute, time.Second))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.client.Stop(r.ctx(), syscall.SIGUSR1, patience); err != nil {
			t.Fatal(err)
		}
		<-r.ended
		h.Run()
		if e := r.exit(h); !e.Known || e.Signal != syscall.SIGUSR1 || e.Fenced {
			t.Errorf("exit %+v", e)
		}
	})
	t.Run("fenced", func(t *testing.T) {
		inTime(t, func(r *rig, in time.Duration) bool {
			h, err := r.handle(r.shell("exec sleep 1000"), lease(in+patience, patience))
			if err != nil {
				return false
			}
			<-r.ended
			h.Run()
			if e := r.exit(h); !e.Known || e.Signal != syscall.SIGTERM || !e.Fenced {
				t.Errorf("exit %+v", e)
			}
			return true
		})
	})
}

// A keeper that ends without a word was killed, and its copy with it.
func TestHandleOfAKilledKeeper(t *testing.T) {
	r := launch(t)
	l := lease(time.Minute, time.Second)
	h, err := r.handle(r.shell("exec sleep 1000"), l)
	if err != nil {
		t.Fatal(err)
	}
	_ = r.cmd.Process.Kill()
	h.Run()
	if e := r.exit(h); !e.Known || e.Signal != syscall.SIGKILL || e.Fenced != (bootclock.Now() >= l.Deadline) {
		t.Errorf("exit %+v", e)
	}
	r.gone()
}

// A stop leaves the copy its grace where the keeper takes a while to answer.
func TestStopWaitsForASlowKeeper(t *testing.T) {
	r := launch(t)
	h, err := r.handle(r.shell(`trap "exit 7" TERM; : >$D/ready; while :; do sleep 0.01; done`), lease(time.Minute, time.Second))
	if err != nil {
		t.Fatal(err)
	}
	go h.Run()
	r.until("the trap", func() bool { return r.wrote("ready") })
	if err := r.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	wake := time.AfterFunc(answerTime+answerTime/2, func() { _ = r.cmd.Process.Signal(syscall.SIGCONT) })
	defer wake.Stop()
	if err := h.Stop(r.ctx(), syscall.SIGTERM, patience); err != nil {
		t.Fatal(err)
	}
	if e := r.exit(h); e.Code != 7 || e.Signal != 0 {
		t.Errorf("exit %+v", e)
	}
}
