package senses

import (
	"time"

	"github.com/ganglion-mesh/ganglion/reflexes"
)

// The pace at which a disk fills is that of the last five minutes, or of what is
// known of them, but of half a minute at least.
const (
	paceSpan  = 5 * time.Minute
	paceStep  = 10 * time.Second
	paceLeast = 30 * time.Second
)

// diskFill tells when a disk will be full. It is pure.
type diskFill struct {
	target reflexes.Target
	device string
	free   *window
}

func newDiskFill(point, device string) *diskFill {
	return &diskFill{
		target: reflexes.Target{Scope: reflexes.ScopeDisk, Name: point}, device: device,
		free: newWindow(paceSpan, paceStep),
	}
}

// never is what is told of a disk that does not fill, in seconds.
const never = 1e9

// fullIn takes in how many bytes are free and returns in how many seconds none
// will be; false as long as too little is known.
func (d *diskFill) fullIn(at reflexes.Boot, free int64) (float64, bool) {
	d.free.add(at, free)
	grown, over, ok := d.free.since(at, free, paceLeast)
	switch {
	case free == 0:
		return 0, true
	case !ok:
		return 0, false
	case grown >= 0:
		return never, true
	}
	return min(never, float64(free)/float64(-grown)*over.Seconds()), true
}
