package copies

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/ganglion-mesh/ganglion/workload"
)

// portMemory is how long a port that was found taken is reported, so that the
// leader does not come back to it at once.
const portMemory = 10 * time.Minute

// portBook is which ports something else was seen to hold, and when. It belongs
// to one runner.
type portBook map[int]time.Time

// current returns the ports seen taken of late.
func (b portBook) current(now time.Time) []int {
	maps.DeleteFunc(b, func(_ int, at time.Time) bool { return now.Sub(at) >= portMemory })
	return slices.Sorted(maps.Keys(b))
}

// probePorts tries to bind each port of an order. It returns nil if all are
// free.
func (r *runner) probePorts(o *order) *workload.StartFailed {
	now := time.Now()
	for _, name := range slices.Sorted(maps.Keys(o.ports)) {
		port := o.ports[name]
		if portFree(port) {
			delete(r.taken, port)
			continue
		}
		if other, ok := r.m.holder(port, o.id); ok {
			return &workload.StartFailed{Kind: workload.FailedWaiting, Why: fmt.Sprintf("waits for port %d (%s), which %s is about to leave", port, name, other)}
		}
		if o.static[name] {
			return &workload.StartFailed{Kind: workload.FailedForGood, Why: fmt.Sprintf("port %d (%s) is taken on this host by something else; stop that, or choose another static port", port, name)}
		}
		r.taken[port] = now
		return &workload.StartFailed{Kind: workload.FailedPort, Why: fmt.Sprintf("port %d (%s) is taken on this host by something else; waits for another", port, name)}
	}
	return nil
}

// portFree tells whether a copy could bind port on any address. An error other
// than "in use", such as a port that only root may bind, is the copy's to meet.
func portFree(port int) bool {
	l, err := net.Listen("tcp", net.JoinHostPort("", strconv.Itoa(port)))
	if err != nil {
		return !errors.Is(err, syscall.EADDRINUSE)
	}
	l.Close()
	return true
}
