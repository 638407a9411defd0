package workload

// End is how a run of a copy that runs once ended, with nobody there to be told.
type End struct {
	Instance Instance // what ran; its Pid may be another's by now
	Exit     Exit
}

// Ends is what a Driver is as well that keeps how copies which run once
// (Spec.Once) have ended until that is remembered elsewhere: so that a success is
// one although no agent ran at the time. Its methods may be called from any
// goroutine.
type Ends interface {
	// Ended returns what an earlier life of the agent has left: the last end of
	// each copy, and none of a copy that Adopt has found running. It is called
	// once, after Adopt.
	Ended() []End
	// Forget lets go of what is kept of a copy's last end. It waits for nothing,
	// and does nothing to what runs.
	Forget(id CopyID)
}

// Knows tells whether m was written with the end of i known: then that has been
// told and counted.
func (m Memory) Knows(i Instance) bool {
	g := i.Spec.Generation
	switch {
	case m.Completed >= g, m.Generation > g:
		return true
	case m.Generation < g:
		return false
	}
	return m.Starts > i.Start || m.Starts == i.Start && !m.Up
}
