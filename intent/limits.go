package intent

import (
	"fmt"
	"regexp"
	"sort"
	"strconv"
	"strings"
)

// The limits of what can be declared. They keep one intent small enough for a
// log entry, a directive and a directory of placeholders, and make hostile
// input cheap to refuse.
const (
	MaxSpec       = 256 << 10 // JSON bytes of one app or reflex
	MaxIntents    = 1 << 20   // JSON bytes of everything one apply names
	MaxApps       = 1000      // apps one apply names, and as many reflexes
	MaxCopies     = 10000     // of one app
	MaxName       = 63        // bytes of any name
	MaxArgv       = 256       // words of a command
	MaxWord       = 32 << 10  // bytes of one word or one environment value
	MaxEnv        = 256       // environment variables
	MaxEnvName    = 128       // bytes of a variable's name
	MaxPorts      = 32        // ports of an app
	MaxChecks     = 16        // checks of an app
	MaxReflexes   = 32        // reflexes bound to one app
	MaxActions    = 16        // actions of a reflex, and arguments of an action
	MaxRules      = 32        // entries of place.require and of place.prefer
	MaxExpression = 2 << 10   // bytes of an expression
	MaxText       = 1 << 10   // bytes of a path, user, signal and the like
	MaxSpan       = 30 * 24 * Hour
)

var (
	nameForm   = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)
	labelForm  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$`)
	envForm    = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	userForm   = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}$`)
	digestForm = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
	limitForm  = regexp.MustCompile(`^[1-9][0-9]{0,4}/([0-9].*)$`)
)

// CheckName reports why s cannot name an app, a port, a reflex, a host or a
// mesh. It returns nil if it can.
func CheckName(s string) error {
	switch {
	case s == "":
		return fmt.Errorf("a name is required")
	case len(s) > MaxName:
		return fmt.Errorf("the name %s has %d characters; at most %d are allowed", quote(s), len(s), MaxName)
	case !nameForm.MatchString(s):
		return fmt.Errorf("%s is not a name: use a-z, 0-9 and '-', and begin with a letter or digit", quote(s))
	}
	return nil
}

// quote quotes s for a message of one line, cut to a length that stays
// readable.
func quote(s string) string {
	const most = 40
	if len(s) > most {
		return strconv.Quote(s[:most]) + "…"
	}
	return strconv.Quote(s)
}

// oneOf names the allowed words, and the one that was probably meant.
func oneOf(word string, allowed []string) string {
	list := strings.Join(allowed, ", ")
	if i := strings.LastIndex(list, ", "); i >= 0 {
		list = list[:i] + " or " + list[i+2:]
	}
	if near := Nearest(word, allowed); near != "" {
		return "want " + list + "; did you mean " + strconv.Quote(near) + "?"
	}
	return "want " + list
}

// Nearest returns the one of allowed that word is probably a slip of the pen
// for, or "".
func Nearest(word string, allowed []string) string {
	best, least := "", 3 // at most two slips
	if len(word) > MaxName {
		return ""
	}
	for _, a := range allowed {
		if d := Distance(strings.ToLower(word), strings.ToLower(a)); d < least && d < len(a) {
			best, least = a, d
		}
	}
	return best
}

// Distance is how many letters have to be changed, put in or left out to make b
// of a: their Levenshtein distance. It takes time by the product of their lengths.
func Distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, diagonal+1, row[j]+1)
		}
	}
	return row[len(b)]
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
