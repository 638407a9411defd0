//go:build linux

package keeper

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ganglion-mesh/ganglion/workload/bootclock"
)

const (
	orderTimeout = 15 * time.Second // for the first order after the keeper's start
	restAfter    = 2 * time.Second  // after the start, when all that it needs has been touched
	partTimeout  = 2 * time.Second  // for telling the last status
)

// Run is the whole life of a keeper process, to be called by main before
// anything else. Standard input is the listening socket for orders, standard
// output and error are the copy's. It returns when nothing of the copy runs and
// nothing will; with an error only if it never could keep one.
func Run() error {
	settle()
	k, err := newKeeper()
	if err != nil {
		return fmt.Errorf("keeper: %w", err)
	}
	defer k.close()
	k.loop()
	return nil
}

// keeper is the process: it feeds the machine with what happens and does what
// that says, on one goroutine.
type keeper struct {
	m       machine
	child   child
	owner   *Account // of the copy, if it is whom PID 1 started the keeper as
	server  *server
	alarm   *alarm
	deadman *deadman
	childs  chan os.Signal
	term    chan os.Signal
	ended   chan struct{} // closed when the loop takes no more calls
	why     string
	told    Status
}

func newKeeper() (k *keeper, err error) {
	k = &keeper{m: machine{phase: phaseIdle}, ended: make(chan struct{}),
		childs: make(chan os.Signal, 1), term: make(chan os.Signal, 1)}
	// Whatever is sent to the agent's terminal or group is not for the keeper.
	// (They are caught, not ignored: what is ignored, the copy would inherit.)
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGPIPE, syscall.SIGTSTP)
	signal.Notify(k.childs, syscall.SIGCHLD)
	signal.Notify(k.term, syscall.SIGTERM)
	if k.owner, err = becomeRoot(); err != nil {
		return nil, err
	}
	if k.deadman, err = newDeadman(); err != nil {
		return nil, err
	}
	if k.alarm, err = newAlarm(); err != nil {
		return nil, err
	}
	in := os.NewFile(0, "orders")
	if k.server, err = newServer(in); err != nil {
		k.alarm.close()
		return nil, err
	}
	in.Close()
	k.server.publish(k.status())
	return k, nil
}

// becomeRoot makes a keeper that PID 1 has started as the copy's user, with the
// right to change it, another than the copy's: so that the copy cannot stop or
// trace its keeper. It returns the copy's user, nil if the keeper stays who it is.
func becomeRoot() (*Account, error) {
	uid, gid := os.Geteuid(), os.Getegid()
	if uid == 0 || !maySetUID() {
		return nil, nil
	}
	if err := syscall.Setresuid(0, 0, 0); err != nil {
		return nil, fmt.Errorf("become another user than the copy: %w", err)
	}
	return &Account{UID: uint32(uid), GID: uint32(gid)}, nil
}

func maySetUID() bool {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	return unix.Capget(&hdr, &data[0]) == nil && data[0].Effective&(1<<unix.CAP_SETUID) != 0
}

// loop runs until the machine is over.
func (k *keeper) loop() {
	served := make(chan struct{})
	go func() {
		defer close(served)
		k.server.serve(k.ended)
	}()
	idle := time.NewTimer(orderTimeout)
	defer idle.Stop()
	rest := time.NewTimer(restAfter)
	defer rest.Stop()
	for k.turn() {
		select {
		case <-k.alarm.C:
		case <-k.childs:
			k.lookAround()
		case <-k.term: // PID 1 stops the unit, or the host
			k.m.stop(bootclock.Now(), k.m.lease.Signal, k.child.program.Grace)
		case c := <-k.server.calls:
			c.reply <- k.answer(c.req)
		case <-rest.C:
			shed()
		case <-idle.C:
			if k.m.phase == phaseIdle {
				k.m.stop(bootclock.Now(), 0, 0) // whoever started the keeper has died
			}
		}
	}
	close(k.ended)
	k.part()
	<-served
}

// part tells watchers the end, and waits a moment for those that read.
func (k *keeper) part() {
	done := make(chan struct{})
	go func() {
		defer close(done)
		k.server.close()
	}()
	select {
	case <-done:
	case <-time.After(partTimeout):
	}
}

// turn does all that is to be done now, tells what has changed and sets the
// timers. It returns false at the end.
func (k *keeper) turn() bool {
	for {
		do, wake := k.m.next(bootclock.Now())
		if do != actNone {
			k.do(do)
			continue
		}
		if st := k.status(); st != k.told {
			k.told = st
			k.server.publish(st)
		}
		if k.m.phase == phaseOver {
			return false
		}
		// Neither can fail but by a mistake in this file; without a timer there
		// is nothing to keep the lease by.
		if err := errors.Join(k.deadman.set(k.m.deadman()), k.alarm.set(wake)); err != nil {
			panic("keeper: set timer: " + err.Error())
		}
		return true
	}
}

func (k *keeper) do(do act) {
	switch do {
	case actStart:
		// Before the exec, so that there is no moment without it.
		if err := k.deadman.set(k.m.deadman()); err != nil {
			panic("keeper: set timer: " + err.Error())
		}
		err := k.child.start(k.m.start)
		k.why = ""
		if err != nil {
			k.why = err.Error()
		}
		k.m.started(bootclock.Now(), err == nil)
	case actSignal:
		k.child.signalGroup(k.m.signal)
	case actKill:
		k.child.kill()
		k.lookAround()
	case actLook:
		k.lookAround()
	}
}

// lookAround reaps, and tells the machine what is gone.
func (k *keeper) lookAround() {
	if e, ok := k.child.reap(); ok {
		k.m.ended(bootclock.Now(), e)
	}
	if !k.m.alive && k.child.empty() {
		k.m.cleared(bootclock.Now())
	}
}

// answer does what a request asks for.
func (k *keeper) answer(req request) (r reply) {
	var err error
	switch req.Op {
	case opStart:
		err = k.begin(req)
	case opExtend:
		// Before it is said: whoever hears of a deadline knows that a keeper which
		// ends earlier was not killed by its own timer.
		err = errors.Join(k.m.extend(bootclock.Now(), req.Token, req.Deadline), k.deadman.set(k.m.deadman()))
	case opStop:
		k.m.stop(bootclock.Now(), req.Signal, req.Grace)
	case opSignal:
		err = k.send(req.Signal)
	case opHold:
		k.m.hold(req.Hold)
	case opTake:
		k.m.handOver(req.Start)
	case opStatus:
	default:
		err = fmt.Errorf("request %q is not known", req.Op)
	}
	r.Status = k.status()
	if err != nil {
		r.Err, r.Errno = err.Error(), errnoOf(err)
	}
	return r
}

func (k *keeper) send(sig syscall.Signal) error {
	if k.child.pid == 0 || sig <= 0 {
		return syscall.ESRCH
	}
	return syscall.Kill(k.child.pid, sig)
}

// begin is the first start. One that fails is the keeper's end: nothing depends
// on it yet, and the agent is there to hear.
func (k *keeper) begin(req request) error {
	if req.Program == nil || req.Lease == nil || len(req.Program.Argv) == 0 {
		return errors.New("start: no program or no lease")
	}
	if err := k.m.begin(bootclock.Now(), *req.Lease, req.Start); err != nil {
		return err
	}
	p := *req.Program
	if p.User == nil && k.owner != nil {
		p.User, p.KeepGroups = k.owner, true
	}
	if err := k.child.prepare(p); err != nil {
		k.m.stop(bootclock.Now(), 0, 0)
		return fmt.Errorf("start: %w", err)
	}
	k.m.phase = phaseStarting
	k.m.start++
	if err := k.deadman.set(k.m.deadman()); err != nil {
		return err
	}
	err := k.child.start(k.m.start)
	k.m.started(bootclock.Now(), err == nil)
	if err != nil {
		k.m.stop(bootclock.Now(), 0, 0)
	}
	return err
}

// status is what there is to tell.
func (k *keeper) status() Status {
	st := Status{
		Phase: string(k.m.phase), Start: k.m.start, Lease: k.m.lease, Why: k.why,
		Delayed: k.m.phase == phaseWaiting && k.m.delayed,
	}
	if k.child.pid != 0 {
		st.Pid, st.StartTime, st.Began = k.child.pid, k.child.startTime, k.m.began
	}
	if k.m.exit.Start != 0 {
		st.Last = k.m.exit
	}
	return st
}

func (k *keeper) close() { k.alarm.close() }
