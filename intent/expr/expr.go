package expr

import (
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"

	"cel.dev/cel-go/cel"

	"github.com/ganglion-mesh/ganglion/intent"
)

// The bounds of an expression. A unit of cost is about 50 ns.
const (
	maxSource = intent.MaxExpression
	maxCost   = 10000 // of one evaluation
	maxDepth  = 50    // of nesting
	maxNodes  = 1000
	maxLabel  = 256 // bytes of a label's value
)

// Error is an expression that cannot be used. Line and Column, both from 1,
// count within Source; they are 0 if the fault has no place.
type Error struct {
	Source string
	Line   int
	Column int
	Why    string
}

func (e *Error) Error() string {
	if e.Line == 0 {
		return e.Why
	}
	return fmt.Sprintf("%s (at %d:%d of the expression)", e.Why, e.Line, e.Column)
}

// Check compiles src and throws the result away: as an expression over labels
// if placement, else as far as CheckSyntax can. It suits the fields of an
// intent.Expression. A failure is an *Error.
func Check(src string, placement bool) error {
	if placement {
		_, err := CompilePlacement(src)
		return err
	}
	return CheckSyntax(src)
}

// CheckSyntax parses a condition of a reflex, whose variables are not known
// here. A failure is an *Error.
func CheckSyntax(src string) error {
	env, err := cel.NewCustomEnv(limits()...)
	if err != nil {
		return fmt.Errorf("make environment: %w", err)
	}
	_, err = parse(env, src)
	return err
}

// limits make parsing cheap whatever the text. Without macros there are no
// loops, so that the cost of an expression is linear in its length.
func limits() []cel.EnvOption {
	return []cel.EnvOption{
		cel.ClearMacros(),
		cel.ParserRecursionLimit(maxDepth),
		cel.ParserErrorRecoveryLimit(1),
		cel.ParserExpressionSizeLimit(maxSource),
		cel.ExpressionNodeLimit(maxNodes),
		cel.ExpressionNestingDepthLimit(maxDepth),
	}
}

func parse(env *cel.Env, src string) (*cel.Ast, error) {
	switch {
	case strings.TrimSpace(src) == "":
		return nil, &Error{Source: src, Why: "an expression is required"}
	case !utf8.ValidString(src):
		return nil, &Error{Source: src, Why: "is not UTF-8"}
	case len(src) > maxSource:
		return nil, &Error{Source: src, Why: fmt.Sprintf("%d bytes; an expression has at most %d", len(src), maxSource)}
	}
	parsed, issues := env.Parse(src)
	return parsed, asError(src, issues)
}

// asError turns the first of cel's issues into an *Error of one line.
func asError(src string, issues *cel.Issues) error {
	if issues == nil || issues.Err() == nil {
		return nil
	}
	e := &Error{Source: src, Why: issues.Err().Error()}
	if all := issues.Errors(); len(all) > 0 {
		e.Why = plain(all[0].Message)
		if loc := all[0].Location; loc.Line() > 0 {
			e.Line, e.Column = loc.Line(), loc.Column()+1
		}
	}
	e.Why, _, _ = strings.Cut(e.Why, "\n")
	if len(e.Why) > 200 {
		e.Why = strings.ToValidUTF8(e.Why[:200], "") + "…"
	}
	return e
}

var (
	expecting = regexp.MustCompile(` expecting \{.*`)
	overload  = regexp.MustCompile(`^found no matching overload for '([^']*)' applied to '(.*)'$`)
)

// plain puts cel's messages into the words of someone who does not know its
// grammar.
func plain(message string) string {
	message = strings.TrimPrefix(message, "Syntax error: ")
	message = expecting.ReplaceAllString(message, "")
	message = strings.ReplaceAll(message, "'<EOF>'", "the end")
	if strings.HasPrefix(message, "token recognition error at: '= ") {
		return "unexpected =; compare with =="
	}
	if m := overload.FindStringSubmatch(message); m != nil {
		op := strings.Trim(m[1], "_@!") // _==_ is how cel calls ==
		if op == "" {
			op = "!"
		}
		if m[1] == "_!=_" {
			op = "!="
		}
		return fmt.Sprintf("%s cannot be applied to %s", op, m[2])
	}
	return message
}
