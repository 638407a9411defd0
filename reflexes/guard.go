package reflexes

// A host that is starved or was suspended sees timeouts and silence that are
// its own fault. What such facts say is Unknown while it lasts, and it neither
// accuses others nor does anything that reaches further.

// The marks of pressure above which a check that timed out says nothing.
const (
	cpuMark    = 0.5
	memoryMark = 0.1
	ioMark     = 0.3
)

// doubt begins, or prolongs, the time in which the host mistrusts itself.
func (e *Engine) doubt(now Boot) {
	if e.doubtUntil <= now {
		for _, in := range e.accusers {
			e.dirty(in)
		}
	}
	e.doubtUntil = now + doubtFor
}

// Doubts tells until when the host mistrusts itself; it does not if that is not
// after now.
func (e *Engine) Doubts() Boot { return e.doubtUntil }

// late finds out whether the engine was woken much later than it asked for:
// its host, or its agent, did not run.
func (e *Engine) late(now Boot) {
	if e.started && e.promised != never && now-e.promised > gapDoubt {
		e.doubt(now)
	}
	e.started = true
}

// mistrusts tells whether what c says may be the host's own fault.
func (e *Engine) mistrusts(now Boot, c *cell) bool {
	switch c.id {
	case CheckFailures, CheckTimeouts:
		t := e.cells[cellKey{CheckTimeouts, c.target}]
		return t != nil && t.value.AsInt() > 0 && e.pressed(now)
	case AppReady:
		t := e.cells[cellKey{CheckTimeouts, c.target}]
		return !c.value.AsBool() && t != nil && t.value.AsInt() > 0 && e.running(c.target) && e.pressed(now)
	case PeerState, PeerRTT, PeersFailed, PeersSick, PeersAlive, LeaderSilent, LeaderKnown:
		return now < e.doubtUntil
	}
	return false
}

func (e *Engine) running(copy Target) bool {
	c := e.cells[cellKey{AppRunning, copy}]
	return c != nil && c.value.AsBool()
}

// pressed tells that the host is starved of something. Pressure that is not
// known is none: then a timeout is what it seems.
func (e *Engine) pressed(now Boot) bool {
	for i, c := range e.pressure {
		if !e.aged(c, now) && c.value.AsFloat() > pressureMarks[i] {
			return true
		}
	}
	return false
}

var (
	pressureVars  = [...]VarID{HostPSICPUSome10s, HostPSIMemoryFull10s, HostPSIIOFull10s}
	pressureMarks = [...]float64{cpuMark, memoryMark, ioMark}
)

// guarded are variables that pressure makes Unknown, accused those that doubt
// does: instances that read them have to be judged anew when that changes.
func guarded(id VarID) bool {
	return id == CheckFailures || id == CheckTimeouts || id == AppReady
}

func accused(id VarID) bool {
	switch id {
	case PeerState, PeerRTT, PeersFailed, PeersSick, PeersAlive, LeaderSilent, LeaderKnown:
		return true
	}
	return false
}
