package hcl

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/ganglion-mesh/ganglion/intent"
	"github.com/ganglion-mesh/ganglion/intent/expr"
)

// The bounds of what is read.
const (
	maxFile  = intent.MaxSpec // bytes of a file
	maxFiles = 1000           // of a directory
	maxDepth = 16             // of brackets and blocks; the vocabulary needs 5
)

// Parse reads one file of declarations. filename is used in messages only. The
// intents are as written, without defaults, but valid: what package intent and
// package intent/expr object to is reported here, with its place. The error is
// an *Error.
func Parse(filename string, src []byte) (intent.Intents, error) {
	return ParseJudged(filename, src, nil)
}

// Judge tells what is wrong with a valid reflex, in an app or, with "", outside
// of apps, as an *intent.ValidationError with paths relative to the reflex. It
// knows the variables, which this package does not.
type Judge func(r intent.Reflex, app string) error

// ParseJudged is Parse that reports what judge objects to as well.
func ParseJudged(filename string, src []byte, judge Judge) (intent.Intents, error) {
	f := &faults{src: src, judge: judge}
	in := parse(f, filename, newNames())
	if err := f.err(); err != nil {
		return intent.Intents{}, err
	}
	return in, nil
}

// ParsePath reads a file, or all *.hcl of a directory as one declaration. A
// problem in the files is an *Error.
func ParsePath(path string) (intent.Intents, error) { return ParsePathJudged(path, nil) }

// ParsePathJudged is ParsePath that reports what judge objects to as well.
func ParsePathJudged(path string, judge Judge) (intent.Intents, error) {
	files, err := filesAt(path)
	if err != nil {
		return intent.Intents{}, err
	}
	var all intent.Intents
	var problems []Problem
	seen := newNames()
	for _, name := range files {
		src, err := read(name)
		if err != nil {
			return intent.Intents{}, err
		}
		f := &faults{src: src, judge: judge}
		in := parse(f, name, seen)
		all.Apps = append(all.Apps, in.Apps...)
		all.Reflexes = append(all.Reflexes, in.Reflexes...)
		all.Senses = append(all.Senses, in.Senses...)
		_ = f.err() // sorts
		problems = append(problems, f.list...)
	}
	if len(problems) > 0 {
		return intent.Intents{}, &Error{Problems: problems}
	}
	// Each declaration is valid by now; what is left are limits of the whole.
	if err := all.Validate(); err != nil {
		return intent.Intents{}, fmt.Errorf("read %s: %w", path, err)
	}
	return all, nil
}

func filesAt(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read intents: %w", err)
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	entries, err := os.ReadDir(path) // sorted by name
	if err != nil {
		return nil, fmt.Errorf("read intents: %w", err)
	}
	var files []string
	for _, e := range entries {
		if filepath.Ext(e.Name()) == ".hcl" && !e.IsDir() {
			files = append(files, filepath.Join(path, e.Name()))
		}
	}
	switch {
	case len(files) == 0:
		return nil, fmt.Errorf("read intents: no *.hcl file in %s", path)
	case len(files) > maxFiles:
		return nil, fmt.Errorf("read intents: %d files in %s; at most %d are read", len(files), path, maxFiles)
	}
	return files, nil
}

// read reads a regular file, and no more of it than may be parsed.
func read(name string) ([]byte, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, fmt.Errorf("read intents: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("read intents: %s is not a regular file", name)
	}
	file, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("read intents: %w", err)
	}
	defer file.Close()
	src, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read intents: %w", err)
	}
	return src, nil
}

// names remembers where apps, reflexes and senses were declared.
type names struct {
	apps, reflexes, senses map[string]hcl.Range
}

func newNames() *names {
	return &names{map[string]hcl.Range{}, map[string]hcl.Range{}, map[string]hcl.Range{}}
}

// claim reports a second declaration of a name.
func claim(f *faults, seen map[string]hcl.Range, kind, name string, at hcl.Range) {
	if first, ok := seen[name]; ok && name != "" {
		f.addf(at, "%s %q is declared twice, first at %s:%d", kind, name, first.Filename, first.Start.Line)
		return
	}
	seen[name] = at
}

func parse(f *faults, filename string, seen *names) intent.Intents {
	start := hcl.Range{Filename: filename, Start: hcl.InitialPos, End: hcl.InitialPos}
	if len(f.src) > maxFile {
		f.src, f.list = nil, nil
		f.addf(start, "the file has more than %d bytes; split it", maxFile)
		return intent.Intents{}
	}
	if !plainTokens(f, filename) {
		return intent.Intents{}
	}
	file, diags := hclsyntax.ParseConfig(f.src, filename, hcl.InitialPos)
	if diags.HasErrors() {
		f.diagnostics(diags)
		return intent.Intents{}
	}
	root := &block{faults: f, places: map[string]hcl.Range{}, header: start}
	root.read(file.Body, nil, []string{"app", "reflex", "sense"}, "app", "reflex", "sense")
	var in intent.Intents
	for _, b := range root.named("app") {
		app := decodeApp(b)
		claim(f, seen.apps, "app", app.Name, b.label)
		check(b.block, app.Validate(), app.Expressions())
		for i, r := range app.Reflexes {
			checkReflex(b.block, fmt.Sprintf("reflexes[%d].", i), r, app.Name)
		}
		in.Apps = append(in.Apps, app)
	}
	for _, b := range root.named("reflex") {
		reflex := decodeReflex(b)
		claim(f, seen.reflexes, "reflex", reflex.Name, b.label)
		check(b.block, reflex.Validate(), reflex.Expressions())
		checkReflex(b.block, "", reflex, "")
		in.Reflexes = append(in.Reflexes, reflex)
	}
	for _, b := range root.named("sense") {
		sense := decodeSense(b)
		claim(f, seen.senses, "sense", sense.Name, b.label)
		check(b.block, sense.Validate(), nil)
		in.Senses = append(in.Senses, sense)
	}
	return in
}

// check adds what package intent found wrong with the declaration in b, and
// compiles its expressions. It stays silent where decoding has failed already,
// as half a declaration would only be blamed for what did not get into it.
func check(b *block, err error, expressions []intent.Expression) {
	if b.failed() {
		return
	}
	bad := make(map[string]bool)
	var invalid *intent.ValidationError
	if errors.As(err, &invalid) {
		for _, p := range invalid.Problems {
			bad[p.Path] = true
			b.addf(b.place(p.Path), "%s%s", fieldName(p.Path), p.Why)
		}
	}
	for _, e := range expressions {
		if bad[e.Path] {
			continue
		}
		if err := expr.Check(e.Source, e.Placement); err != nil {
			b.addf(within(b, b.place(e.Path), err), "%s%s", fieldName(e.Path), reason(err))
		}
	}
}

// checkReflex adds what the judge finds wrong with a reflex, whose fields have
// paths that begin with prefix. It stays silent where something else was found.
func checkReflex(b *block, prefix string, r intent.Reflex, app string) {
	if b.judge == nil || b.failed() {
		return
	}
	var invalid *intent.ValidationError
	if err := b.judge(r, app); errors.As(err, &invalid) {
		for _, p := range invalid.Problems {
			b.addf(b.place(prefix+p.Path), "%s%s", fieldName(prefix+p.Path), p.Why)
		}
	}
}

// fieldName introduces a problem by the field it is in; the place says which
// declaration that is.
func fieldName(path string) string {
	if path == "" {
		return ""
	}
	return path + ": "
}

func reason(err error) string {
	var e *expr.Error
	if errors.As(err, &e) {
		return e.Why
	}
	return err.Error()
}

// within narrows the range of a string that holds an expression to the place in
// the expression that err names. It can do so only where the string stands in
// the file as it is, on one line without escapes.
func within(b *block, at hcl.Range, err error) hcl.Range {
	var e *expr.Error
	if !errors.As(err, &e) || e.Line != 1 || at.End.Byte > len(b.src) || at.Start.Byte >= at.End.Byte {
		return at
	}
	runes := []rune(e.Source)
	if string(b.src[at.Start.Byte:at.End.Byte]) != `"`+e.Source+`"` || e.Column-1 > len(runes) {
		return at
	}
	at.Start.Byte += 1 + len(string(runes[:e.Column-1]))
	at.Start.Column += e.Column
	at.End.Byte = min(at.Start.Byte+1, at.End.Byte)
	return at
}

// plainTokens refuses, before anything is parsed, what the vocabulary has no
// use for and a recursive parser would pay for: deep nesting and operators.
func plainTokens(f *faults, filename string) bool {
	// Faults of the lexer are reported again, and better, by the parser.
	tokens, _ := hclsyntax.LexConfig(f.src, filename, hcl.InitialPos)
	depth := 0
	var quote hcl.Range
	for i, t := range tokens {
		switch t.Type {
		case hclsyntax.TokenOQuote:
			quote = t.Range
		case hclsyntax.TokenQuotedNewline:
			// The parser would go on, and find fault with what follows.
			f.addf(quote, "the string that begins here does not end on this line")
			return false
		case hclsyntax.TokenOBrace, hclsyntax.TokenOBrack, hclsyntax.TokenOParen, hclsyntax.TokenTemplateInterp:
			if depth++; depth > maxDepth {
				f.addf(t.Range, "nested more than %d levels deep", maxDepth)
				return false
			}
		case hclsyntax.TokenCBrace, hclsyntax.TokenCBrack, hclsyntax.TokenCParen, hclsyntax.TokenTemplateSeqEnd:
			depth--
		case hclsyntax.TokenMinus:
			if i+1 < len(tokens) && tokens[i+1].Type == hclsyntax.TokenNumberLit {
				continue // a sign; refused later where it makes no sense
			}
		}
		if slices.Contains(operators, t.Type) {
			f.addf(t.Range, "unexpected %q: a file holds plain values; quote expressions, and use the Go form for loops and arithmetic", t.Bytes)
			return false
		}
	}
	return true
}

var operators = []hclsyntax.TokenType{
	hclsyntax.TokenPlus, hclsyntax.TokenMinus, hclsyntax.TokenStar, hclsyntax.TokenSlash, hclsyntax.TokenPercent,
	hclsyntax.TokenEqualOp, hclsyntax.TokenNotEqual, hclsyntax.TokenLessThan, hclsyntax.TokenLessThanEq,
	hclsyntax.TokenGreaterThan, hclsyntax.TokenGreaterThanEq, hclsyntax.TokenAnd, hclsyntax.TokenOr, hclsyntax.TokenBang,
	hclsyntax.TokenQuestion, hclsyntax.TokenTemplateControl, hclsyntax.TokenFatArrow, hclsyntax.TokenEllipsis, hclsyntax.TokenDoubleColon,
}
