package intent

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// cronField is the range of one field of a cron expression, and the names that
// stand for its first values.
type cronField struct {
	what        string
	least, most int
	names       []string
}

var cronFields = []cronField{
	{"minute", 0, 59, nil},
	{"hour", 0, 23, nil},
	{"day of the month", 1, 31, nil},
	{"month", 1, 12, []string{"jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"}},
	{"day of the week", 0, 7, []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}},
}

var cronNames = []string{"@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually"}

// checkSchedule judges a cron expression of five fields, a name for one, or
// "@every 90s"; before it may stand the zone that it is meant in.
func checkSchedule(s string) error {
	if len(s) > MaxText {
		return fmt.Errorf("%d bytes; at most %d are allowed", len(s), MaxText)
	}
	for _, prefix := range []string{"CRON_TZ=", "TZ="} {
		if tail, ok := strings.CutPrefix(s, prefix); ok {
			zone, rest, _ := strings.Cut(tail, " ")
			if err := checkZone(zone); err != nil {
				return err
			}
			s = rest
			break
		}
	}
	if every, ok := strings.CutPrefix(s, "@every "); ok {
		d, err := time.ParseDuration(every)
		if err != nil || d < time.Second || d%time.Second != 0 || d > MaxSpan.Std() {
			return fmt.Errorf("%s is not a span of whole seconds up to %s", quote(every), MaxSpan)
		}
		return nil
	}
	if strings.HasPrefix(s, "@") {
		if slices.Contains(cronNames, s) {
			return nil
		}
		return fmt.Errorf("%s is not a schedule: %s, or @every 90s", quote(s), oneOf(s, cronNames))
	}
	fields := strings.Fields(s)
	if len(fields) != len(cronFields) {
		return fmt.Errorf("%s has %d fields; a cron expression has 5: minute, hour, day of the month, month, day of the week", quote(s), len(fields))
	}
	for i, f := range fields {
		for part := range strings.SplitSeq(f, ",") {
			if err := cronFields[i].check(part); err != nil {
				return fmt.Errorf("%s of %s: %w", cronFields[i].what, quote(s), err)
			}
		}
	}
	return nil
}

// checkZone judges the name of a zone. Local is none: every host has its own.
func checkZone(name string) error {
	if name == "" || name == "Local" {
		return fmt.Errorf("%s is not the name of a time zone, as in Europe/Berlin", quote(name))
	}
	if _, err := time.LoadLocation(name); err != nil {
		return fmt.Errorf("%s is not a known time zone, as in Europe/Berlin", quote(name))
	}
	return nil
}

// check judges one part: *, 5, 1-5, */15, 0-30/10 or MON-FRI.
func (c cronField) check(part string) error {
	span, step, stepped := strings.Cut(part, "/")
	if n, err := strconv.Atoi(step); stepped && (err != nil || n < 1 || n > c.most) {
		return fmt.Errorf("%s is not a step", quote(step))
	}
	if span == "*" {
		return nil
	}
	low, high, ranged := strings.Cut(span, "-")
	from, err := c.value(low)
	if err != nil || !ranged {
		return err
	}
	to, err := c.value(high)
	if err == nil && to < from {
		err = errors.New(quote(span) + " runs backwards")
	}
	return err
}

func (c cronField) value(s string) (int, error) {
	if i := slices.Index(c.names, strings.ToLower(s)); i >= 0 {
		return i + c.least, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < c.least || n > c.most {
		return 0, fmt.Errorf("%s is not between %d and %d", quote(s), c.least, c.most)
	}
	return n, nil
}
