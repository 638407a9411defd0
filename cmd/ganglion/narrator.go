package main

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// narrator tells a demo's steps: a numbered title, then a line for each thing
// that was seen to be so, with the time it took.
type narrator struct {
	*cli
	n int
}

// narrowest is the width of what stands before a time.
const narrowest = 68

// title begins a step.
func (t *narrator) title(text string) {
	t.n++
	fmt.Fprintf(t.out, "\n%s  %s\n", t.colour(t.outTerm, bold, fmt.Sprint(t.n)), t.colour(t.outTerm, bold, text))
}

// say tells something that was done, not measured.
func (t *narrator) say(format string, args ...any) {
	fmt.Fprintf(t.out, "   %s\n", fmt.Sprintf(format, args...))
}

// seen tells something that was observed, and how long it took; 0 is not
// printed.
func (t *narrator) seen(took time.Duration, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	line := "   " + t.colour(t.outTerm, green, "✓") + " " + text
	if took > 0 {
		line += strings.Repeat(" ", max(narrowest-utf8.RuneCountInString(text), 2)) + t.colour(t.outTerm, bold, span(took))
	}
	fmt.Fprintln(t.out, line)
}

// detail tells more about what was just seen, one line for each item that does
// not fit beside the others.
func (t *narrator) detail(items []string) {
	line := ""
	for i, item := range items {
		if line != "" && utf8.RuneCountInString(line+item) > narrowest {
			fmt.Fprintln(t.out, "     "+t.colour(t.outTerm, dim, line))
			line = ""
		}
		line += item
		if i < len(items)-1 {
			line += ", "
		}
	}
	fmt.Fprintln(t.out, "     "+t.colour(t.outTerm, dim, strings.TrimRight(line, " ")))
}

// wrong tells what did not hold.
func (t *narrator) wrong(err error) {
	fmt.Fprintf(t.out, "   %s %s\n", t.colour(t.outTerm, red, "✗"), strings.ReplaceAll(err.Error(), "\n", "\n     "))
}

// span prints a time with three digits that mean something, right-aligned.
func span(d time.Duration) string {
	text := ""
	switch {
	case d < time.Millisecond:
		text = fmt.Sprintf("%.0f µs", float64(d)/float64(time.Microsecond))
	case d < 100*time.Millisecond:
		text = fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
	case d < time.Second:
		text = fmt.Sprintf("%.0f ms", float64(d)/float64(time.Millisecond))
	default:
		text = fmt.Sprintf("%.2f s", d.Seconds())
	}
	return strings.Repeat(" ", max(8-utf8.RuneCountInString(text), 0)) + text
}
