package reflexes

import (
	"fmt"
	"strings"
	"time"

	"github.com/ganglion-mesh/ganglion/intent/expr"
)

// VarID names a variable in the table; the zero VarID is none. The numbers are
// of this build alone: what is stored or sent has names.
type VarID uint16

// Var is one variable that conditions can read.
type Var struct {
	Name   string
	Type   expr.Type
	Unit   string // "ratio", "bytes", "seconds", …; "" for plain numbers, words and yes or no
	Scope  Scope  // what it is a property of
	Source string // where its values come from, for people
	Doc    string // one line
	// MaxAge is how old a value may be unless the rule says otherwise; what is
	// older is Unknown. Zero: it stays true until the sense says otherwise, as
	// what is told on each change does.
	MaxAge time.Duration
	// Edge: a counter of edges, which only rises. See Fact.
	Edge bool
	// With is the counter of the edges whose last one this variable tells of.
	// Such a variable, as the counter itself, is there only in the evaluation
	// that a new edge asks for.
	With VarID
	// Of and Window make a variable that no sense tells: how many edges the
	// counter Of has counted within Window. The engine knows it by itself.
	Of     VarID
	Window time.Duration
}

// Sampled tells that a sense looks again and again, and so that a value can
// grow old.
func (v *Var) Sampled() bool { return v.MaxAge > 0 }

// Kind is how the variable behaves, in one word: sampled, state, edge or count.
func (v *Var) Kind() string {
	switch {
	case v.Edge, v.With != 0:
		return "edge"
	case v.Window > 0:
		return "count"
	case v.Sampled():
		return "sampled"
	}
	return "state"
}

// Info returns the row of the table. Nobody may change it.
func (id VarID) Info() *Var {
	if int(id) >= len(table) {
		return &table[0]
	}
	return &table[id]
}

// String returns the name as users write it.
func (id VarID) String() string {
	if id == 0 || int(id) >= len(table) {
		return fmt.Sprintf("variable %d", uint16(id))
	}
	return table[id].Name
}

// MarshalText implements encoding.TextMarshaler: the name.
func (id VarID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (id *VarID) UnmarshalText(b []byte) error {
	v, ok := Lookup(string(b))
	if !ok {
		return fmt.Errorf("variable %.60q: there is no such one", b)
	}
	*id = v
	return nil
}

// Lookup finds a variable by its name.
func Lookup(name string) (VarID, bool) {
	for i := range table {
		if table[i].Name == name && i != 0 {
			return VarID(i), true
		}
	}
	return 0, false
}

// Vars returns all variables, in the order of the documentation.
func Vars() []VarID {
	out := make([]VarID, 0, len(table)-1)
	for i := 1; i < len(table); i++ {
		out = append(out, VarID(i))
	}
	return out
}

// VarsMarkdown returns the tables of docs/reflexes.md, one a scope.
func VarsMarkdown() string {
	var b strings.Builder
	for s := ScopeHost; s <= ScopeSense; s++ {
		fmt.Fprintf(&b, "\n### Of %s\n\n", scopeTitles[s])
		b.WriteString("| variable | type | unit | kind | known for | from | |\n|---|---|---|---|---|---|---|\n")
		for _, id := range Vars() {
			if v := id.Info(); v.Scope == s {
				fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s | %s | %s |\n", v.Name, v.Type, v.Unit, v.Kind(), knownFor(v), v.Source, v.Doc)
			}
		}
	}
	return b.String()
}

func knownFor(v *Var) string {
	if v.MaxAge == 0 {
		return "–"
	}
	return v.MaxAge.String()
}

var scopeTitles = [...]string{
	ScopeHost: "this host", ScopeApp: "an app on this host", ScopeCopy: "a copy", ScopeLink: "a network link",
	ScopeDisk: "a mounted file system", ScopeUnit: "a systemd unit", ScopePeer: "another host", ScopeSense: "a sense of your own",
}
