package copies

import (
	"time"

	"github.com/ganglion-mesh/ganglion/workload"
)

// bestReady is the longest stretch of being ready that the generation had before
// the present one.
func (r *runner) bestReady(st workload.Status) time.Duration {
	if r.bestOf != st.Generation {
		r.best, r.bestOf = 0, st.Generation
	}
	was := &r.view.st // only this goroutine writes it
	if was.Ready && was.Generation == st.Generation && !was.ReadySince.Equal(st.ReadySince) {
		r.best = max(r.best, time.Since(was.ReadySince))
	}
	return r.best
}

// lastOutput is the end of what a copy that cannot work, or was well and is no
// more, has written. It is read when that is found, because the copy may be gone
// soon after; where it is empty, once more for each start.
func (r *runner) lastOutput(st workload.Status) string {
	switch {
	case !st.Failed && st.Lapse.After == 0:
		r.last, r.lapse, r.lastStart = "", workload.Lapse{}, 0
	case r.m.cfg.LastOutput == nil || st.Starts == 0:
	case r.lapse != st.Lapse, r.last == "" && r.lastStart != st.Starts:
		r.last, r.lapse, r.lastStart = r.m.cfg.LastOutput(r.id), st.Lapse, st.Starts
	}
	return r.last
}
