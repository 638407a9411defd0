package cron_test

import (
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/intent"
	"github.com/ganglion-mesh/ganglion/intent/cron"
)

func at(s string) time.Time {
	t, err := time.Parse("2006-01-02 15:04:05", s)
	if err != nil {
		panic(err)
	}
	return t
}

func TestNext(t *testing.T) {
	cases := []struct {
		schedule, from string
		want           []string
	}{
		{"@hourly", "2026-03-01 10:00:00", []string{"2026-03-01 11:00:00", "2026-03-01 12:00:00"}},
		{"30 2 * * MON-FRI", "2026-03-06 02:29:59", []string{"2026-03-06 02:30:00", "2026-03-09 02:30:00"}},
		{"0 0 * * 7", "2026-03-01 00:00:00", []string{"2026-03-08 00:00:00"}},
		{"0 0 * * fri-7/2", "2026-03-01 00:00:00", []string{"2026-03-06 00:00:00", "2026-03-08 00:00:00"}},
		{"0 0 29 2 *", "2026-03-01 00:00:00", []string{"2028-02-29 00:00:00"}},
		{"0 0 1 * mon", "2026-03-01 00:00:00", []string{"2026-03-02 00:00:00", "2026-03-09 00:00:00"}}, // either day
		{"@every 90s", "2026-03-01 10:00:01", []string{"2026-03-01 10:01:30", "2026-03-01 10:03:00"}},
		// Berlin leaves out 2:00–3:00 on 29 March and has it twice on 25 October.
		{"CRON_TZ=Europe/Berlin 30 2 * * *", "2026-03-28 00:00:00", []string{"2026-03-28 01:30:00", "2026-03-30 00:30:00"}},
		{"CRON_TZ=Europe/Berlin 30 2 * * *", "2026-10-24 12:00:00", []string{"2026-10-25 00:30:00", "2026-10-25 01:30:00", "2026-10-26 01:30:00"}},
		{"TZ=Asia/Kolkata @daily", "2026-03-01 00:00:00", []string{"2026-03-01 18:30:00"}},
		{"CRON_TZ=Europe/Berlin 0 4 * * *", "2026-03-28 12:00:00", []string{"2026-03-29 02:00:00", "2026-03-30 02:00:00"}},
	}
	for _, c := range cases {
		s, err := cron.Parse(c.schedule)
		if err != nil {
			t.Errorf("%s: %v", c.schedule, err)
			continue
		}
		from := at(c.from)
		for _, want := range c.want {
			next := s.Next(from)
			if !next.Equal(at(want)) {
				t.Errorf("%s after %s: %s, want %s", c.schedule, from, next, want)
			}
			if last := s.Last(from, next); !last.Equal(next) {
				t.Errorf("%s: last up to %s is %s", c.schedule, next, last)
			}
			if last := s.Last(from, next.Add(-time.Second)); !last.IsZero() {
				t.Errorf("%s: %s lies before the next", c.schedule, last)
			}
			from = next
		}
	}
}

func TestRefused(t *testing.T) {
	for _, s := range []string{"", "CRON_TZ=Europe/Berlin", "CRON_TZ=Nowhere/Atall 0 0 * * *", "0 0 31 2 *", "@every 0s", "@every 1500ms", "@every -2s", "61 * * * *", "@fortnightly"} {
		if _, err := cron.Parse(s); err == nil {
			t.Errorf("%q was accepted", s)
		}
	}
}

// FuzzParse: what the vocabulary accepts can be parsed or is refused in words,
// and due times rise.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"@hourly", "*/15 0-6/2 1,15 JAN-mar MON-7", "CRON_TZ=Europe/Berlin 0 0 31 12 7", "TZ=UTC @every 90s", "TZ=", "0 0 30 2 *"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		valid := intent.App{Name: "a", Schedule: s, Run: intent.Run{Command: []string{"true"}}}.Validate() == nil
		sched, err := cron.Parse(s)
		if valid && err != nil && sched != (cron.Schedule{}) {
			t.Fatalf("%q: %v, and a schedule", s, err)
		}
		if err != nil {
			return
		}
		from := at("2026-03-28 00:00:00")
		for range 3 {
			next := sched.Next(from)
			if next.IsZero() {
				return
			}
			if !next.After(from) {
				t.Fatalf("%q: %s is not after %s", s, next, from)
			}
			from = next
		}
	})
}
