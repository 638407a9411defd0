package virtual

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"
)

// stretch is a time from From up to, not including, To.
type stretch struct{ from, to time.Duration }

// subtract returns what is left of s when all of others are taken away.
func (s stretch) subtract(others []stretch) []stretch {
	left := []stretch{s}
	for _, o := range others {
		var next []stretch
		for _, l := range left {
			if o.to <= l.from || o.from >= l.to {
				next = append(next, l)
				continue
			}
			if l.from < o.from {
				next = append(next, stretch{l.from, o.from})
			}
			if o.to < l.to {
				next = append(next, stretch{o.to, l.to})
			}
		}
		left = next
	}
	return left
}

func (h History) life(s Span) stretch {
	if !s.Ended() {
		return stretch{s.From, h.Now + 1}
	}
	return stretch{s.From, s.To}
}

// during is when a trouble was, at most until now.
func (h History) during(t Trouble) stretch {
	if !t.Over {
		return stretch{t.From, h.Now + 1}
	}
	return stretch{t.From, t.To}
}

// forever is later than any history.
const forever = time.Duration(math.MaxInt64)

// led is when there was a leader with whom neither a nor b had trouble, so that
// they could be told what to do; in order and without overlap.
func (h History) led(a, b string) []stretch {
	if h.Reigns == nil {
		return []stretch{{0, forever}}
	}
	var all []stretch
	for _, r := range h.Reigns {
		reign := stretch{r.From, forever}
		if r.Over {
			reign.to = r.To
		}
		var troubles []stretch
		for _, t := range h.Troubles {
			if t.touches(r.Host, a) || t.touches(r.Host, b) {
				troubles = append(troubles, h.during(t))
			}
		}
		all = append(all, reign.subtract(troubles)...)
	}
	slices.SortFunc(all, func(x, y stretch) int { return cmp.Compare(x.from, y.from) })
	var out []stretch
	for _, s := range all {
		if k := len(out); k > 0 && s.from <= out[k-1].to {
			out[k-1].to = max(out[k-1].to, s.to)
		} else {
			out = append(out, s)
		}
	}
	return out
}

// settled is when settle has passed since a moment, counting only led times.
func settled(since, settle time.Duration, led []stretch) time.Duration {
	for _, s := range led {
		from := max(s.from, since)
		if from >= s.to {
			continue
		}
		if s.to-from >= settle {
			return from + settle
		}
		settle -= s.to - from
	}
	return forever
}

// excuses are the times in which something was wrong between a and b, or they
// saw different worlds: one was cut off from a third host and the other was not.
// Each is longer by settle, while a leader can reach them: until then the mesh may still be
// finding out.
func (h History) excuses(a, b string, settle time.Duration) []stretch {
	var out []stretch
	cuts := map[string]map[string][]stretch{a: {}, b: {}} // from whom, when
	for _, t := range h.Troubles {
		if t.touches(a, b) {
			out = append(out, h.during(t))
		}
		for _, ends := range [][2]string{{t.A, t.B}, {t.B, t.A}} {
			if from := cuts[ends[0]]; from != nil && ends[1] != "" {
				from[ends[1]] = append(from[ends[1]], h.during(t))
			}
		}
	}
	for _, pair := range [][2]string{{a, b}, {b, a}} {
		for third, times := range cuts[pair[0]] {
			for _, s := range times {
				out = append(out, s.subtract(cuts[pair[1]][third])...)
			}
		}
	}
	led := h.led(a, b)
	for i := range out {
		out[i].to = settled(out[i].to, settle, led)
	}
	return out
}

// Doubled returns the moments in which a copy ran twice: never on one host, and
// on two only while there was trouble between them, or they were cut off from
// different hosts, or not longer than settle after it.
func (h History) Doubled(settle time.Duration) []string {
	var out []string
	byCopy := map[string][]Span{}
	for _, s := range h.Spans {
		byCopy[s.Copy.String()] = append(byCopy[s.Copy.String()], s)
	}
	for _, spans := range byCopy {
		for i, a := range spans {
			for _, b := range spans[i+1:] {
				la, lb := h.life(a), h.life(b)
				both := stretch{max(la.from, lb.from), min(la.to, lb.to)}
				if both.from >= both.to {
					continue
				}
				var excuses []stretch
				if a.Host != b.Host {
					excuses = h.excuses(a.Host, b.Host, settle)
				}
				if left := both.subtract(excuses); len(left) > 0 {
					out = append(out, fmt.Sprintf("%s ran twice from %s to %s:\n  %s\n  %s", a.Copy, left[0].from, left[0].to, a, b))
				}
			}
		}
	}
	slices.Sort(out)
	return out
}

// Excess returns the moments in which an app ran more copies than it was to
// have. On hosts with no trouble, nor any within settle, that is its count, a
// higher one for settle longer; on all together, with those that are cut off and
// have not heard of a change, twice the highest count it ever had.
func (h History) Excess(settle time.Duration) []string {
	var out []string
	var moments []time.Duration
	for _, s := range h.Spans {
		moments = append(moments, s.From)
	}
	slices.Sort(moments)
	for _, at := range slices.Compact(moments) { // a number of copies rises only when one begins
		well, all := map[string]int{}, map[string]int{}
		for _, s := range h.Spans {
			if l := h.life(s); at < l.from || at >= l.to {
				continue
			}
			all[s.Copy.App]++
			if h.untroubled(s.Host, at, settle) {
				well[s.Copy.App]++
			}
		}
		for app, n := range all {
			limit, ever := h.limit(app, at, settle), h.limit(app, at, h.Now+1)
			if well[app] > limit+h.Surge || n > 2*ever {
				out = append(out, fmt.Sprintf("%s: app %s may have %d copies, and had %d at most; %d run on sound hosts, %d on all", at, app, limit, ever, well[app], n))
			}
		}
	}
	slices.Sort(out)
	return out
}

// untroubled tells whether a host has had no trouble with anyone for settle.
func (h History) untroubled(host string, at, settle time.Duration) bool {
	led := h.led(host, host)
	return !slices.ContainsFunc(h.Troubles, func(t Trouble) bool {
		return (t.A == host || t.B == host) && t.From <= at && (!t.Over || at < settled(t.To, settle, led))
	})
}

// limit is the highest count of an app in the last settle.
func (h History) limit(app string, at, settle time.Duration) int {
	most, before := 0, 0
	led := h.led("", "")
	for _, w := range h.Wants {
		switch {
		case w.App != app || w.At > at:
		case settled(w.At, settle, led) <= at:
			before = w.Count
		default:
			most = max(most, w.Count)
		}
	}
	return max(most, before)
}

// Unneutral returns the processes that began or ended on a host while it was up
// and had no agent: that is nobody's doing but the agent's (S10).
func (h History) Unneutral() []string {
	var out []string
	for _, t := range h.Troubles {
		if t.What != agentDown {
			continue
		}
		end := t.To
		if !t.Over {
			end = h.Now
		}
		within := func(at time.Duration) bool { return t.From < at && at < end }
		for _, s := range h.Spans {
			if s.Host == t.A && (within(s.From) || s.Ended() && within(s.To) && s.Why != hostDown) {
				out = append(out, fmt.Sprintf("with no agent from %s to %s: %s", t.From, end, s))
			}
		}
	}
	return out
}
