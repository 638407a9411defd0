package workload

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func oneCheck(failures int, grace time.Duration) Policy {
	return Policy{Settle: DefaultSettle, Checks: []CheckPolicy{{Name: "c", Every: time.Second, Grace: grace, Failures: failures, Live: true}}}
}

func TestFailuresCountOnlyPastTheGraceAndInARow(t *testing.T) {
	h := newHealth(epoch, oneCheck(2, 10*time.Second), false)
	at := func(d time.Duration) time.Time { return epoch.Add(d) }
	for i := range 9 {
		h.result(at(time.Duration(i)*time.Second), Probed{Check: 0, Outcome: Failed, Why: "refused"})
	}
	if _, bad := h.unhealthy(); bad {
		t.Fatal("failures within the grace counted")
	}
	h.result(at(10*time.Second), Probed{Check: 0, Outcome: Failed, Why: "refused"})
	h.result(at(11*time.Second), Probed{Check: 0, Outcome: Unknown, Why: "no answer from a starved host"})
	h.result(at(12*time.Second), Probed{Check: 0, Outcome: Passed, Why: ""})
	h.result(at(13*time.Second), Probed{Check: 0, Outcome: Failed, Why: "refused"})
	if _, bad := h.unhealthy(); bad || !h.ready(at(13*time.Second)) {
		t.Fatal("two failures that were not in a row made it unhealthy")
	}
	h.result(at(14*time.Second), Probed{Check: 0, Outcome: Unknown, Why: ""})
	h.result(at(15*time.Second), Probed{Check: 0, Outcome: Failed, Why: "refused"})
	if a, bad := h.unhealthy(); !bad || a != (ailment{"c", 2, "c: refused", true}) || h.ready(at(15*time.Second)) {
		t.Fatalf("two in a row with an unknown between: %+v %v", a, bad)
	}
	h.result(at(16*time.Second), Probed{Check: 0, Outcome: Passed, Why: ""})
	if _, bad := h.unhealthy(); bad || !h.ready(at(16*time.Second)) {
		t.Fatal("did not recover")
	}
	h.result(at(16*time.Second), Probed{Check: 7, Outcome: Failed, Why: "no such check"}) // must not panic
}

func TestACheckIsProbedOneAtATime(t *testing.T) {
	h := newHealth(epoch, oneCheck(1, 0), false)
	if got := h.due(epoch); len(got) != 1 {
		t.Fatalf("due at once: %v", got)
	}
	if got := h.due(epoch.Add(time.Hour)); len(got) != 0 || !h.wake(epoch.Add(time.Hour)).IsZero() {
		t.Fatal("due again while a probe is in flight")
	}
	h.result(epoch.Add(time.Minute), Probed{Check: 0, Outcome: Passed, Why: ""})
	if at := h.wake(epoch.Add(time.Minute)); !at.Equal(epoch.Add(time.Minute + time.Second)) {
		t.Fatalf("next at %s", at)
	}
}

// Unknown changes nothing, wherever it stands.
func TestUnknownNeitherCountsNorClears(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		results := rapid.SliceOf(rapid.SampledFrom([]Outcome{Passed, Failed, Unknown})).Draw(t, "results")
		p := oneCheck(rapid.IntRange(1, 4).Draw(t, "failures"), 0)
		with, without := newHealth(epoch, p, false), newHealth(epoch, p, false)
		for _, o := range results {
			with.result(epoch, Probed{Outcome: o, Why: "x"})
			if o != Unknown {
				without.result(epoch, Probed{Outcome: o, Why: "x"})
			}
		}
		_, a := with.unhealthy()
		_, b := without.unhealthy()
		if a != b || with.ready(epoch) != without.ready(epoch) {
			t.Fatalf("unhealthy %v and %v", a, b)
		}
	})
}
