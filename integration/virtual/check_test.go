package virtual

import (
	"strings"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/workload"
)

const sec = time.Second

// span is a process of web/0 on a host; it runs on if to is negative.
func span(host string, from, to time.Duration) Span {
	s := Span{Host: host, Copy: workload.CopyID{App: "web"}, From: from}
	if to >= 0 {
		s.To, s.Why = to, "killed"
	}
	return s
}

func cut(a, b string, from, to time.Duration) Trouble {
	return Trouble{A: a, B: b, What: linkCut, From: from, To: to, Over: to >= 0}
}

// The checkers are worth what they find in histories known to be bad.
func TestCheckersFindWhatIsWrong(t *testing.T) {
	want := []Want{{"web", 1, 0}}
	cases := []struct {
		name    string
		h       History
		doubled bool
		excess  bool
		cause   bool
	}{
		{name: "moved", h: History{Wants: want, Now: 100 * sec,
			Spans: []Span{span("a", 0, 10*sec), span("b", 10*sec, -1)}}},
		{name: "doubled on sound hosts", doubled: true, excess: true, h: History{Wants: want, Now: 100 * sec,
			Spans: []Span{span("a", 0, 10*sec), span("b", 9*sec, -1)}}},
		{name: "doubled while cut apart", h: History{Wants: want, Now: 100 * sec,
			Spans: []Span{span("a", 0, 60*sec), span("b", 40*sec, -1)}, Troubles: []Trouble{cut("b", "a", 30*sec, 55*sec)}}},
		{name: "doubled long after the cut", doubled: true, h: History{Wants: want, Now: 100 * sec,
			Spans: []Span{span("a", 0, 90*sec), span("b", 40*sec, -1)}, Troubles: []Trouble{cut("b", "a", 30*sec, 55*sec)}}},
		{name: "doubled long after the cut, but nobody led", h: History{Wants: want, Now: 100 * sec,
			Reigns: []Reign{{"c", 0, 50 * sec, true}, {"d", 80 * sec, 0, false}},
			Spans:  []Span{span("a", 0, 90*sec), span("b", 40*sec, -1)}, Troubles: []Trouble{cut("b", "a", 30*sec, 55*sec)}}},
		{name: "doubled long after the cut, but the leader was cut off", h: History{Wants: want, Now: 100 * sec,
			Reigns:   []Reign{{Host: "c"}},
			Spans:    []Span{span("a", 0, 90*sec), span("b", 40*sec, -1)},
			Troubles: []Trouble{cut("b", "a", 30*sec, 55*sec), cut("c", "a", 50*sec, 80*sec), cut("c", "b", 50*sec, 80*sec)}}},
		{name: "doubled long after the cut, though somebody led", doubled: true, h: History{Wants: want, Now: 100 * sec,
			Reigns: []Reign{{"c", 0, 50 * sec, true}, {"d", 51 * sec, 0, false}},
			Spans:  []Span{span("a", 0, 90*sec), span("b", 40*sec, -1)}, Troubles: []Trouble{cut("b", "a", 30*sec, 55*sec)}}},
		{name: "doubled before the cut", doubled: true, excess: true, h: History{Wants: want, Now: 100 * sec,
			Spans: []Span{span("a", 0, 60*sec), span("b", 29*sec, -1)}, Troubles: []Trouble{cut("b", "a", 30*sec, -1)}}},
		{name: "one is cut from someone else", h: History{Wants: want, Now: 100 * sec,
			Spans: []Span{span("a", 0, 60*sec), span("b", 40*sec, -1)}, Troubles: []Trouble{cut("c", "a", 0, 35*sec)}}},
		{name: "both are cut from someone else", doubled: true, h: History{Wants: want, Now: 100 * sec,
			Spans: []Span{span("a", 0, 60*sec), span("b", 40*sec, -1)}, Troubles: []Trouble{cut("b", "c", 0, -1), cut("a", "c", 0, -1)}}},
		{name: "doubled on one host", doubled: true, h: History{Wants: want, Now: 100 * sec,
			Spans: []Span{span("a", 0, -1), span("a", 50*sec, -1)}, Troubles: []Trouble{{A: "a", What: hostDown, From: 0}}}},
		{name: "three, all excused", doubled: false, excess: true, h: History{Wants: want, Now: 100 * sec,
			Spans:    []Span{span("a", 0, -1), span("b", 40*sec, -1), span("c", 50*sec, -1)},
			Troubles: []Trouble{{A: "a", From: 0}, {A: "b", From: 0}, {A: "c", From: 0}}}},
		{name: "more than the count after scaling down", excess: true, h: History{Wants: []Want{{"web", 2, 0}, {"web", 1, 10 * sec}}, Now: 100 * sec,
			Spans: []Span{span("a", 0, -1), {Host: "b", Copy: workload.CopyID{App: "web", N: 1}, From: 41 * sec}}}},
		{name: "the count before, for a while", h: History{Wants: []Want{{"web", 2, 0}, {"web", 1, 10 * sec}}, Now: 100 * sec,
			Spans: []Span{span("a", 0, -1), {Host: "b", Copy: workload.CopyID{App: "web", N: 1}, From: 11 * sec, To: 12 * sec, Why: "stopped"}}}},
		{name: "stopped with no agent", cause: true, h: History{Wants: want, Now: 100 * sec,
			Spans: []Span{span("a", 0, 20*sec)}, Troubles: []Trouble{{A: "a", What: agentDown, From: 10 * sec, To: 30 * sec, Over: true}}}},
		{name: "started with no agent", cause: true, h: History{Wants: want, Now: 100 * sec,
			Spans: []Span{span("a", 20*sec, -1)}, Troubles: []Trouble{{A: "a", What: agentDown, From: 10 * sec}}}},
		{name: "ended with its host", h: History{Wants: want, Now: 100 * sec,
			Spans:    []Span{{Host: "a", Copy: workload.CopyID{App: "web"}, To: 20 * sec, Why: hostDown}},
			Troubles: []Trouble{{A: "a", What: agentDown, From: 10 * sec, To: 30 * sec, Over: true}}}},
		{name: "another host's agent", h: History{Wants: want, Now: 100 * sec,
			Spans: []Span{span("a", 20*sec, -1)}, Troubles: []Trouble{{A: "b", What: agentDown, From: 10 * sec}}}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			for _, x := range []struct {
				what  string
				found []string
				want  bool
			}{
				{"doubled", c.h.Doubled(30 * sec), c.doubled},
				{"excess", c.h.Excess(30 * sec), c.excess},
				{"unneutral", c.h.Unneutral(), c.cause},
			} {
				if (len(x.found) > 0) != x.want {
					t.Errorf("%s: %q, want any: %t", x.what, x.found, x.want)
				}
			}
		})
	}
}

func TestOlderSlicesAreFound(t *testing.T) {
	at := func(era, term, index uint64) topology.Slice {
		return topology.Slice{Host: "a", Era: era, Term: term, Index: index}
	}
	for _, c := range []struct {
		next topology.Slice
		bad  bool
	}{
		{at(1, 2, 11), false}, {at(1, 3, 10), false}, {at(2, 1, 1), false},
		{at(1, 2, 10), true}, {at(1, 2, 9), true}, {at(1, 1, 11), true}, {at(1, 3, 9), true}, {at(0, 9, 99), true},
		{topology.Slice{Host: "b", Era: 1, Term: 1, Index: 1}, false},
	} {
		f := newFreshness()
		f.accept(at(1, 2, 10))
		f.accept(c.next)
		if found := f.problems(); (len(found) > 0) != c.bad {
			t.Errorf("%+v after (1, 2, 10): %q", c.next, found)
		}
	}
}

func TestSubtract(t *testing.T) {
	var got []string
	for _, s := range (stretch{10, 50}).subtract([]stretch{{0, 12}, {20, 25}, {24, 30}, {45, 99}, {60, 70}}) {
		got = append(got, s.from.String()+"-"+s.to.String())
	}
	if want := "12ns-20ns 30ns-45ns"; strings.Join(got, " ") != want {
		t.Errorf("left %v, want %s", got, want)
	}
}
