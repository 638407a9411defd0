package workload

import "context"

// Throttle is what a running copy may use at most, for a while. It never allows
// more than the copy's Spec does.
type Throttle struct {
	CPU    float64 // cores; 0: what the Spec says
	Memory int64   // bytes, beyond which the copy is slowed down and not killed; 0: no such mark
}

// Throttler is a Driver that can hold running copies back.
type Throttler interface {
	// Throttle holds a copy back, all its processes; the zero Throttle ends that.
	// What was said last holds until then, for what the copy's manager restarts
	// too; a start of another Spec or of another life of the agent may end it. It
	// may overlap with anything. A copy that is not known yet is an error.
	Throttle(ctx context.Context, id CopyID, t Throttle) error
	// CanThrottle tells why this host cannot do t, or nil.
	CanThrottle(t Throttle) error
}
