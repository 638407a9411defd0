package hcl

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
)

// Problem is one thing wrong in a file. Line and Column count from 1; Column
// counts characters as a reader sees them.
type Problem struct {
	File    string
	Line    int
	Column  int
	Why     string // one line
	Snippet string // the line of the file with a mark under the fault, or ""
}

// Error is everything wrong in the files that were read, in order.
type Error struct {
	Problems []Problem
}

// Error returns for each problem a line that begins with file:line:column,
// followed by the snippet. The first line alone says what the first problem is.
func (e *Error) Error() string {
	const most = 20
	var out strings.Builder
	for i, p := range e.Problems {
		if i == most {
			fmt.Fprintf(&out, "\n… and %d more", len(e.Problems)-most)
			break
		}
		if i > 0 {
			out.WriteByte('\n')
		}
		fmt.Fprintf(&out, "%s:%d:%d: %s", p.File, p.Line, p.Column, p.Why)
		if p.Snippet != "" {
			out.WriteString("\n" + p.Snippet)
		}
	}
	return out.String()
}

// faults collects the problems of one file.
type faults struct {
	src   []byte
	list  []Problem
	judge Judge // nil: reflexes are not compiled
}

// addf reports a problem at a range of the file.
func (f *faults) addf(at hcl.Range, format string, args ...any) {
	f.list = append(f.list, Problem{
		File: at.Filename, Line: at.Start.Line, Column: at.Start.Column,
		Why:     cut(oneLine(fmt.Sprintf(format, args...)), maxWhy),
		Snippet: snippet(f.src, at),
	})
}

// diagnostics reports what hashicorp/hcl found.
func (f *faults) diagnostics(diags hcl.Diagnostics) {
	for _, d := range diags {
		at := hcl.Range{Start: hcl.InitialPos}
		if d.Subject != nil {
			at = *d.Subject
		}
		f.addf(at, "%s: %s", strings.ToLower(d.Summary), d.Detail)
	}
}

// err returns the problems in the order of their places, or nil.
func (f *faults) err() error {
	if len(f.list) == 0 {
		return nil
	}
	slices.SortStableFunc(f.list, func(a, b Problem) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
	return &Error{Problems: f.list}
}

// maxWhy is how many characters one message may have, of which some may be the
// user's.
const maxWhy = 300

func cut(s string, most int) string {
	if utf8.RuneCountInString(s) <= most {
		return s
	}
	return string([]rune(s)[:most]) + "…"
}

func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}

// snippet shows the line that a range starts in, with a mark under the range.
func snippet(src []byte, at hcl.Range) string {
	const most = 100
	start := at.Start.Byte
	if start > len(src) || len(src) == 0 {
		return ""
	}
	from := bytes.LastIndexByte(src[:start], '\n') + 1
	to := len(src)
	if n := bytes.IndexByte(src[start:], '\n'); n >= 0 {
		to = start + n
	}
	end := min(max(at.End.Byte, start), to)
	skip := 0 // of a long line, what is shown begins shortly before the fault
	if start-from > most/2 {
		skip = start - from - most/4
	}
	line, indent := oneLine(string(src[from+skip:to])), oneLine(string(src[from+skip:start]))
	width := min(max(utf8.RuneCountInString(string(src[start:end])), 1), most)
	gutter := fmt.Sprintf("%5d | ", at.Start.Line)
	mark := strings.Repeat(" ", len(gutter)-2) + "| " + strings.Repeat(" ", utf8.RuneCountInString(indent)) + strings.Repeat("^", width)
	return gutter + strings.TrimRight(cut(line, most), " ") + "\n" + mark
}
