// Package cron tells when a schedule of an app is due. It wraps the parser of
// github.com/robfig/cron/v3, of which nothing else is used: no clock, no
// goroutine.
//
// A schedule is UTC unless it names a zone: "CRON_TZ=Europe/Berlin 30 2 * * *".
// The data of zones are those of the operating system, else the ones that are
// built in: they are all that this package reads.
package cron

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // for hosts that have no zones of their own

	robfig "github.com/robfig/cron/v3"
)

// parser takes what package intent accepts, and more.
var parser = robfig.NewParser(robfig.Minute | robfig.Hour | robfig.Dom | robfig.Month | robfig.Dow | robfig.Descriptor)

// Schedule is when runs are due. It is immutable.
type Schedule struct {
	every time.Duration   // not 0: whenever it divides the time since 1970
	spec  robfig.Schedule // else
}

// Parse reads a schedule that intent.App.Validate accepts. It refuses one that
// is never due.
func Parse(s string) (Schedule, error) {
	zone, rest := splitZone(s)
	if every, ok := strings.CutPrefix(rest, "@every "); ok {
		d, err := time.ParseDuration(strings.TrimSpace(every))
		if err != nil || d < time.Second || d%time.Second != 0 {
			return Schedule{}, fmt.Errorf("parse schedule %q: want @every and whole seconds, as in @every 90s", s)
		}
		return Schedule{every: d}, nil
	}
	// The parser would take the zone of this host for a schedule without one.
	spec, err := parser.Parse("CRON_TZ=" + zone + " " + sundays(rest))
	if err != nil {
		return Schedule{}, fmt.Errorf("parse schedule %q: %w", s, err)
	}
	sched := Schedule{spec: spec}
	if sched.Next(time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)).IsZero() {
		return Schedule{}, fmt.Errorf("parse schedule %q: %w", s, errNever)
	}
	return sched, nil
}

var errNever = errors.New("it names a day that never comes")

// splitZone takes the zone off a schedule.
func splitZone(s string) (zone, rest string) {
	s = strings.TrimSpace(s)
	for _, prefix := range []string{"CRON_TZ=", "TZ="} {
		if tail, ok := strings.CutPrefix(s, prefix); ok {
			zone, rest, _ := strings.Cut(tail, " ")
			return zone, strings.TrimSpace(rest)
		}
	}
	return "UTC", s
}

// sundays writes the seventh day of the week, which the parser does not know,
// as the days that are meant.
func sundays(s string) string {
	fields := strings.Fields(s)
	if len(fields) != 5 || !strings.Contains(fields[4], "7") {
		return s
	}
	var days []string
	for part := range strings.SplitSeq(fields[4], ",") {
		days = append(days, daysOf(part)...)
	}
	fields[4] = strings.Join(days, ",")
	return strings.Join(fields, " ")
}

// daysOf lists the days of one part that ends with day 7, and leaves any other
// part as it is.
func daysOf(part string) []string {
	span, by, stepped := strings.Cut(part, "/")
	low, high, ranged := strings.Cut(span, "-")
	if !ranged {
		high = low
	}
	if high != "7" {
		return []string{part}
	}
	from, err := strconv.Atoi(low)
	if err != nil { // a name
		from = strings.Index("sunmontuewedthufrisat", strings.ToLower(low)) / 3
	}
	step := 1
	if stepped {
		step, _ = strconv.Atoi(by)
	}
	var days []string
	for d := from; d <= 7; d += max(step, 1) {
		days = append(days, strconv.Itoa(d%7))
	}
	return days
}

// Next returns the first due time after t, in UTC, zero if there is none within
// five years. An hour that the zone leaves out has no due times, and one that it
// has twice has them twice. The due times of @every D are those at which D
// divides the seconds since 1970, so that they are the same whoever asks.
func (s Schedule) Next(t time.Time) time.Time {
	if s.every > 0 {
		d := int64(s.every / time.Second)
		return time.Unix((floorDiv(t.Unix(), d)+1)*d, 0).UTC()
	}
	if s.spec == nil {
		return time.Time{}
	}
	next := s.spec.Next(t.UTC())
	if next.IsZero() {
		return time.Time{}
	}
	return next.UTC()
}

// Last returns the last due time after from and not after to; zero if there is
// none.
func (s Schedule) Last(from, to time.Time) (last time.Time) {
	if s.every > 0 {
		d := int64(s.every / time.Second)
		if at := time.Unix(floorDiv(to.Unix(), d)*d, 0).UTC(); at.After(from) {
			return at
		}
		return time.Time{}
	}
	for at := s.Next(from); !at.IsZero() && !at.After(to); at = s.Next(at) {
		last = at
	}
	return last
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}
