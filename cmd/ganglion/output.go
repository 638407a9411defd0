package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

// format is the value of -o.
type format string

const (
	formatTable format = "table"
	formatWide  format = "wide"
	formatJSON  format = "json"
)

// formatFlag gives a command its -o.
func formatFlag(cmd *cobra.Command) *format {
	f := formatTable
	cmd.Flags().VarP(&f, "output", "o", "table, wide or json")
	return &f
}

// Set implements pflag.Value.
func (f *format) Set(s string) error {
	switch format(s) {
	case formatTable, formatWide, formatJSON:
		*f = format(s)
		return nil
	}
	return fmt.Errorf("want table, wide or json")
}

func (f *format) String() string { return string(*f) }

// Type implements pflag.Value.
func (f *format) Type() string { return "format" }

func (f *format) json() bool { return *f == formatJSON }
func (f *format) wide() bool { return *f == formatWide }

// printJSON prints v for scripts: indented, with nothing escaped for HTML.
func (c *cli) printJSON(v any) error {
	enc := json.NewEncoder(c.out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// printLine prints v as one line of JSON.
func (c *cli) printLine(v any) error {
	enc := json.NewEncoder(c.out)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// table is an aligned listing. text/tabwriter counts colour codes as width, so
// the columns are measured here.
type table struct {
	head []string
	rows [][]string
}

func newTable(head ...string) *table { return &table{head: head} }

func (t *table) row(cells ...string) { t.rows = append(t.rows, cells) }

// write prints the table. paint colours a cell by what stands in it; nil paints
// nothing.
func (t *table) write(w io.Writer, paint func(string) string) {
	lines := append([][]string{t.head}, t.rows...)
	width := make([]int, len(t.head))
	for _, line := range lines {
		for i, cell := range line {
			width[i] = max(width[i], utf8.RuneCountInString(cell))
		}
	}
	for n, line := range lines {
		var out strings.Builder
		for i, cell := range line {
			shown := cell
			if paint != nil && n > 0 {
				shown = paint(cell)
			}
			out.WriteString(shown)
			if i < len(line)-1 {
				out.WriteString(strings.Repeat(" ", width[i]-utf8.RuneCountInString(cell)+2))
			}
		}
		fmt.Fprintln(w, strings.TrimRight(out.String(), " "))
	}
}

// printTable prints t on the standard output, in colour where that is wanted.
func (c *cli) printTable(t *table) { t.write(c.out, c.painter(c.outTerm)) }

// The colours.
const (
	red    = "31"
	green  = "32"
	yellow = "33"
	bold   = "1"
	dim    = "2"
)

// colour wraps s in an escape sequence if on says so and NO_COLOR does not
// forbid it.
func (c *cli) colour(on bool, code, s string) string {
	if no, _ := c.env("NO_COLOR"); !on || no != "" || s == "" {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

// painter colours the words that say how something is.
func (c *cli) painter(on bool) func(string) string {
	return func(cell string) string {
		switch cell {
		case "steady", "running", "alive", "drained":
			return c.colour(on, green, cell)
		case "pending", "rolling", "starting", "fetching", "stopping", "suspect", "draining", "backoff", "degraded":
			return c.colour(on, yellow, cell)
		case "held", "failed", "lost":
			return c.colour(on, red, cell)
		case "stopped", "left":
			return c.colour(on, dim, cell)
		}
		return cell
	}
}

// progress is one line on a terminal that is written over and over. Elsewhere
// it prints nothing.
type progress struct {
	c     *cli
	shown bool
}

func (p *progress) show(line string) {
	if !p.c.errTerm {
		return
	}
	if r := []rune(line); len(r) > 110 {
		line = string(r[:109]) + "…"
	}
	fmt.Fprint(p.c.errs, "\r\x1b[K"+p.c.colour(true, dim, line))
	p.shown = true
}

// end clears the line.
func (p *progress) end() {
	if p.shown {
		fmt.Fprint(p.c.errs, "\r\x1b[K")
		p.shown = false
	}
}

// ago prints an age in its two largest units.
func ago(since time.Time, now time.Time) string {
	if since.IsZero() {
		return "-"
	}
	d := max(now.Sub(since), 0)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm%ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd%dh", int(d.Hours())/24, int(d.Hours())%24)
}

// oneLine is s without line breaks, for a cell.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
