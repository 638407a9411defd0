package workloadtest

import (
	"context"
	"fmt"
	"syscall"
	"time"

	"github.com/ganglion-mesh/ganglion/workload"
)

// kept is a copy's make-believe keeper. Like a real one it does not ask whether
// there is an agent: its timers are the host's.
type kept struct {
	lease  workload.Lease
	fence  *time.Timer
	kill   *time.Timer
	fenced bool // the stop signal of the lease was sent, or the kill
	ended  int  // ends of the copy under this keeper
	held   bool // it restarts nothing
}

// Now is the host's CLOCK_BOOTTIME.
func (h *Host) Now() time.Duration { return time.Since(h.booted) }

// keep starts a copy's keeper. It is called with mu held.
func (h *Host) keep(p *proc, n int) error {
	l := p.inst.Spec.Lease
	if l == nil {
		return nil
	}
	if !l.Live(h.Now()) {
		return fmt.Errorf("start %s: the lease with token %d is over or about to be", p.inst.Spec.ID, l.Token)
	}
	p.keeper = &kept{lease: *l}
	if n > 1 {
		p.keeper.ended = 1 // a restart of the agent's
	}
	p.keeper.fence = time.AfterFunc(l.Deadline-l.Fence-h.Now(), func() { h.fenceAt(p) })
	p.keeper.kill = time.AfterFunc(l.Deadline-h.Now(), func() { h.killAt(p) })
	return nil
}

// fenceAt is a keeper's first timer.
func (h *Host) fenceAt(p *proc) {
	h.mu.Lock()
	defer h.mu.Unlock()
	k := p.keeper
	if h.procs[p.inst.Spec.ID] != p || h.Now() < k.lease.Deadline-k.lease.Fence {
		return
	}
	k.fenced = true
	if p.heeds(k.lease.Signal) {
		h.endProc(p, workload.Exit{Known: true, Signal: k.lease.Signal})
	}
}

// killAt is a keeper's last.
func (h *Host) killAt(p *proc) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.procs[p.inst.Spec.ID] != p || h.Now() < p.keeper.lease.Deadline {
		return
	}
	p.keeper.fenced = true
	h.endProc(p, workload.Exit{Known: true, Signal: syscall.SIGKILL})
}

func (p *proc) heeds(sig syscall.Signal) bool {
	return sig == syscall.SIGKILL || sig == syscall.SIGTERM && p.kind != progStubborn
}

// restarts tells whether the copy's keeper restarts it after an end that nobody
// asked for: the first time, while its lease lives. It is called with mu held.
func (h *Host) restarts(p *proc) bool {
	k := p.keeper
	if k == nil || p.stopping || k.held || k.ended > 0 || !k.lease.Live(h.Now()) {
		return false
	}
	k.ended++
	return true
}

// letGo ends a keeper whose copy has ended for good.
func (k *kept) letGo() {
	if k != nil {
		k.fence.Stop()
		k.kill.Stop()
	}
}

// leasedHandle is a memoryHandle of a copy that has a keeper.
type leasedHandle struct{ *memoryHandle }

// Lease implements workload.Leased.
func (h leasedHandle) Lease() workload.Lease {
	h.host.mu.Lock()
	defer h.host.mu.Unlock()
	return h.proc.keeper.lease
}

// Hold implements workload.Holdable.
func (h leasedHandle) Hold(_ context.Context, hold bool) error {
	h.host.mu.Lock()
	defer h.host.mu.Unlock()
	h.proc.keeper.held = hold
	return nil
}

// Extend implements workload.Leased.
func (h leasedHandle) Extend(ctx context.Context, token uint64, deadline time.Duration) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	host, p := h.host, h.proc
	host.mu.Lock()
	defer host.mu.Unlock()
	k, now := p.keeper, host.Now()
	switch {
	case host.procs[p.inst.Spec.ID] != p:
		return fmt.Errorf("extend lease of %s: its keeper has ended", p.inst.Spec.ID)
	case token != k.lease.Token, deadline < k.lease.Deadline, now >= k.lease.Deadline:
		return fmt.Errorf("extend lease of %s: token %d and deadline %s do not fit %+v", p.inst.Spec.ID, token, deadline, k.lease)
	}
	k.lease.Deadline = deadline
	lease := k.lease
	p.inst.Spec.Lease = &lease
	if now < deadline-k.lease.Fence {
		k.fenced = false
		k.fence.Reset(deadline - k.lease.Fence - now)
	}
	k.kill.Reset(deadline - now)
	return nil
}
