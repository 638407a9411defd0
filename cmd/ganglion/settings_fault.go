package main

import (
	"cmp"
	"slices"
	"strings"
)

// configFault is one thing wrong in a configuration file.
type configFault struct {
	line, column int
	text         string
}

// configFaults are all of a file's; as an error they are a line each.
type configFaults []configFault

func (f configFaults) sorted() configFaults {
	slices.SortFunc(f, func(a, b configFault) int {
		return cmp.Or(cmp.Compare(a.line, b.line), cmp.Compare(a.column, b.column), strings.Compare(a.text, b.text))
	})
	return f
}

func (f configFaults) Error() string {
	lines := make([]string, len(f))
	for i, one := range f {
		lines[i] = one.text
	}
	return strings.Join(lines, "\n")
}
