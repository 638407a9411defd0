package gossip

import "time"

// Unmeasured is the value of a gauge that the host could not read.
const Unmeasured = -1

// Vitals is how a host says it is doing. Gauges run from 0 to 1 in steps of
// 1/254, or are Unmeasured.
type Vitals struct {
	// Epoch and Seq order the vitals of one host. The pool sets them: what a
	// caller puts here when publishing is not looked at. The epoch rises when a
	// host restarts and finds that the mesh remembers newer vitals of it.
	Epoch, Seq uint32

	// Bits are states. A change of them travels before refreshes of gauges and
	// wakes those who wait on Changed. The pool gives them no meaning.
	Bits uint32

	CPU, Memory, Disk, Pressure float64

	// Detail is a hash of the full figures, which are fetched from the host.
	Detail uint64
}

// Freshness says how far vitals can be believed.
type Freshness string

// The degrees of freshness, by the age of a record in refresh intervals.
const (
	Fresh   Freshness = "fresh"   // at most 3 intervals old
	Stale   Freshness = "stale"   // at most 6
	Unknown Freshness = "unknown" // older, never heard, or the host is not alive
)

func freshness(age, interval time.Duration) Freshness {
	switch {
	case age <= 3*interval:
		return Fresh
	case age <= 6*interval:
		return Stale
	}
	return Unknown
}

// RefreshInterval is how often each of n hosts publishes its vitals, such that
// gossip of default speed can carry them: 5 s up to 100 hosts, 10 s at 1,000,
// 60 s from 5,000 on, and on straight lines between.
func RefreshInterval(n int) time.Duration {
	line := func(n, n0, n1 int, t0, t1 time.Duration) time.Duration {
		return t0 + (t1-t0)*time.Duration(n-n0)/time.Duration(n1-n0)
	}
	switch {
	case n <= 100:
		return 5 * time.Second
	case n <= 1000:
		return line(n, 100, 1000, 5*time.Second, 10*time.Second)
	case n <= 5000:
		return line(n, 1000, 5000, 10*time.Second, 60*time.Second)
	}
	return 60 * time.Second
}

const (
	gaugeTop        = 254
	gaugeUnmeasured = 255
)

func quantise(v float64) uint8 {
	switch {
	case v >= 1:
		return gaugeTop
	case v >= 0:
		return uint8(v*gaugeTop + 0.5)
	}
	return gaugeUnmeasured // negative, or not a number
}

func unquantise(q uint8) float64 {
	if q == gaugeUnmeasured {
		return Unmeasured
	}
	return float64(q) / gaugeTop
}

func (v Vitals) record(host uint64) record {
	return record{
		host: host, epoch: v.Epoch, seq: v.Seq, bits: v.Bits, detail: v.Detail,
		gauges: [4]uint8{quantise(v.CPU), quantise(v.Memory), quantise(v.Disk), quantise(v.Pressure)},
	}
}

func (r record) vitals() Vitals {
	return Vitals{
		Epoch: r.epoch, Seq: r.seq, Bits: r.bits, Detail: r.detail,
		CPU: unquantise(r.gauges[0]), Memory: unquantise(r.gauges[1]),
		Disk: unquantise(r.gauges[2]), Pressure: unquantise(r.gauges[3]),
	}
}
