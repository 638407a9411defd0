package hcl

import (
	"encoding"
	"math/big"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/ganglion-mesh/ganglion/intent"
)

// scalar returns what e says as text: a string with its placeholders kept
// literally, a number or a boolean. Anything else is reported.
func (f *faults) scalar(e hclsyntax.Expression) (string, bool) {
	switch e := e.(type) {
	case *hclsyntax.TemplateExpr:
		return f.template(e.Parts)
	case *hclsyntax.TemplateWrapExpr:
		return f.template([]hclsyntax.Expression{e.Wrapped})
	case *hclsyntax.LiteralValueExpr:
		return f.literal(e)
	case *hclsyntax.UnaryOpExpr:
		if text, ok := f.scalar(e.Val); ok && e.Op == hclsyntax.OpNegate {
			return "-" + text, true
		}
		return "", false
	case *hclsyntax.ScopeTraversalExpr:
		f.addf(e.Range(), "unexpected %s; a string stands in quotes", traversalText(e.Traversal))
		return "", false
	}
	f.addf(e.Range(), "want a plain value here: a string, a number, true or false")
	return "", false
}

func (f *faults) literal(e *hclsyntax.LiteralValueExpr) (string, bool) {
	v := e.Val
	switch {
	case v.IsNull() || !v.IsKnown():
		f.addf(e.Range(), "null is not a value; leave the attribute out")
	case v.Type() == cty.String:
		return v.AsString(), true
	case v.Type() == cty.Bool:
		return strconv.FormatBool(v.True()), true
	case v.Type() == cty.Number:
		return f.written(e.Range()), true // "1.10" stays what it is
	default:
		f.addf(e.Range(), "want a plain value here")
	}
	return "", false
}

// written is the text of the file in a range.
func (f *faults) written(at hcl.Range) string {
	if !at.CanSliceBytes(f.src) {
		return ""
	}
	return string(at.SliceBytes(f.src))
}

// template joins the parts of a quoted string. The only interpolations are
// placeholders; they become the text that they were written as.
func (f *faults) template(parts []hclsyntax.Expression) (string, bool) {
	var out strings.Builder
	for _, part := range parts {
		switch part := part.(type) {
		case *hclsyntax.LiteralValueExpr:
			if part.Val.IsNull() || part.Val.Type() != cty.String {
				f.addf(part.Range(), "unexpected ${%s}; write the value itself", f.written(part.Range()))
				return "", false
			}
			out.WriteString(part.Val.AsString())
		case *hclsyntax.ScopeTraversalExpr:
			name := traversalText(part.Traversal)
			if err := intent.CheckPlaceholder(name); err != nil {
				f.addf(part.Range(), "%v", err)
				return "", false
			}
			out.WriteString("${" + name + "}")
		default:
			f.addf(part.Range(), "only the placeholders ${port.NAME}, ${copy.n}, ${host.name} and ${host.addr} stand in a string; a shell variable is written $NAME")
			return "", false
		}
	}
	return out.String(), true
}

// traversalText writes a name as it stands in the file: port.http, host.name.
func traversalText(t hcl.Traversal) string {
	var out strings.Builder
	for _, step := range t {
		switch step := step.(type) {
		case hcl.TraverseRoot:
			out.WriteString(step.Name)
		case hcl.TraverseAttr:
			out.WriteString("." + step.Name)
		case hcl.TraverseIndex:
			// port.8080 is read as an index; so is port["x"], which is no placeholder.
			if n, ok := smallInt(step.Key); ok {
				out.WriteString("." + strconv.FormatInt(n, 10))
			} else {
				out.WriteString("[…]")
			}
		default:
			out.WriteString("[…]")
		}
	}
	return out.String()
}

func smallInt(v cty.Value) (int64, bool) {
	if v.IsNull() || v.Type() != cty.Number || v.AsBigFloat().IsInf() {
		return 0, false
	}
	n, accuracy := v.AsBigFloat().Int64()
	return n, accuracy == big.Exact && n >= 0
}

// str decodes a string.
func (b *block) str(name string, into *string) {
	if a := b.attrs[name]; a != nil {
		if s, ok := b.scalar(a.Expr.(hclsyntax.Expression)); ok {
			*into = s
		}
	}
}

// parsed decodes a value that reads itself from text: a duration or a size.
func (b *block) parsed(name string, into encoding.TextUnmarshaler) {
	a := b.attrs[name]
	if a == nil {
		return
	}
	s, ok := b.scalar(a.Expr.(hclsyntax.Expression))
	if !ok {
		return
	}
	if err := into.UnmarshalText([]byte(s)); err != nil {
		b.addf(a.Expr.Range(), "%s: %v", name, err)
	}
}

// span decodes a duration that has a default other than zero. The structs
// cannot tell zero from left out, so a written zero is refused instead of being
// replaced by the default.
func (b *block) span(name string, into *intent.Duration) {
	b.parsed(name, into)
	if a := b.attrs[name]; a != nil && *into == 0 && !b.failed() {
		b.addf(a.Expr.Range(), "%s: zero means the default; write 1ms for the shortest", name)
	}
}

// whole decodes an integer. With positive, a written zero is refused, as by
// span.
func (b *block) whole(name string, into *int, positive bool) {
	a := b.attrs[name]
	if a == nil {
		return
	}
	s, ok := b.scalar(a.Expr.(hclsyntax.Expression))
	if !ok {
		return
	}
	n, err := strconv.Atoi(s)
	switch {
	case err != nil:
		b.addf(a.Expr.Range(), "%s: %s is not a whole number", name, show(s))
	case n == 0 && positive:
		b.addf(a.Expr.Range(), "%s: must be at least 1", name)
	default:
		*into = n
	}
}

func (b *block) float(name string, into *float64) {
	a := b.attrs[name]
	if a == nil {
		return
	}
	s, ok := b.scalar(a.Expr.(hclsyntax.Expression))
	if !ok {
		return
	}
	v, err := strconv.ParseFloat(s, 64)
	if err != nil {
		b.addf(a.Expr.Range(), "%s: %s is not a number", name, show(s))
		return
	}
	*into = v
}

// boolean decodes true or false and reports whether it was written.
func (b *block) boolean(name string, into *bool) bool {
	a := b.attrs[name]
	if a == nil {
		return false
	}
	if e, ok := a.Expr.(*hclsyntax.LiteralValueExpr); ok && e.Val.Type() == cty.Bool && !e.Val.IsNull() {
		*into = e.Val.True()
		return true
	}
	b.addf(a.Expr.Range(), "%s is true or false, without quotes", name)
	return false
}

func (b *block) strings(name string, into *[]string) {
	for _, e := range b.elements(name) {
		s, ok := b.scalar(e)
		if !ok {
			return
		}
		*into = append(*into, s)
	}
}

// stringMap decodes { KEY = "value" }.
func (b *block) stringMap(name string, into *map[string]string) {
	a := b.attrs[name]
	if a == nil {
		return
	}
	object, ok := a.Expr.(*hclsyntax.ObjectConsExpr)
	if !ok {
		b.addf(a.Expr.Range(), "%s is a map, as in %s = { KEY = \"value\" }", name, name)
		return
	}
	*into = b.object(object, b.field(name))
}

// object decodes the entries of { KEY = "value" } and registers their places
// under path.
func (b *block) object(object *hclsyntax.ObjectConsExpr, path string) map[string]string {
	out := make(map[string]string, len(object.Items))
	for _, item := range object.Items {
		key := hcl.ExprAsKeyword(item.KeyExpr)
		if key == "" {
			wrapped, ok := item.KeyExpr.(*hclsyntax.ObjectConsKeyExpr)
			if !ok {
				continue
			}
			if key, ok = b.scalar(wrapped.Wrapped); !ok {
				continue
			}
		}
		if _, twice := out[key]; twice {
			b.addf(item.KeyExpr.Range(), "%s is set twice", show(key))
			continue
		}
		b.places[path+"."+intent.FieldKey(key)] = item.KeyExpr.Range()
		if value, ok := b.scalar(item.ValueExpr); ok {
			out[key] = value
		}
	}
	return out
}

// show quotes a piece of the file for a message.
func show(s string) string { return `"` + intent.FieldKey(s) + `"` }
