package hcl

import (
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/ganglion-mesh/ganglion/intent"
)

// block is one block that is being decoded into a struct. The blocks within an
// app or a top-level reflex share places, which maps the path of each field to
// where it was written; paths are relative to that app or reflex.
type block struct {
	*faults
	places   map[string]hcl.Range
	path     string    // of this block within places; "" for the app or reflex itself
	header   hcl.Range // of the type and labels
	name     string    // the label
	label    hcl.Range
	before   int // problems when decoding of this block began
	attrs    hcl.Attributes
	children hcl.Blocks
}

// read splits body into attributes and blocks. Names that are in neither list
// are refused, with the near one suggested.
func (b *block) read(body hcl.Body, attrs, blocks []string, labelled ...string) {
	b.before = len(b.list)
	schema := &hcl.BodySchema{}
	for _, a := range attrs {
		schema.Attributes = append(schema.Attributes, hcl.AttributeSchema{Name: a})
	}
	for _, t := range blocks {
		header := hcl.BlockHeaderSchema{Type: t}
		for _, l := range labelled {
			if l == t {
				header.LabelNames = []string{"name"}
			}
		}
		schema.Blocks = append(schema.Blocks, header)
	}
	content, diags := body.Content(schema)
	b.diagnostics(diags)
	b.attrs, b.children = content.Attributes, content.Blocks
	for name, a := range b.attrs {
		b.places[b.field(name)] = a.Expr.Range()
	}
}

// field is the path of an attribute of b.
func (b *block) field(name string) string {
	if b.path == "" {
		return name
	}
	return b.path + "." + name
}

// child prepares the decoding of a block within b.
func (b *block) child(raw *hcl.Block, path string) *block {
	c := &block{faults: b.faults, places: b.places, path: path, header: raw.DefRange}
	c.label = raw.TypeRange
	if len(raw.Labels) > 0 {
		c.name, c.label = raw.Labels[0], raw.LabelRanges[0]
	}
	if _, taken := b.places[path]; !taken {
		b.places[path] = c.label
	}
	return c
}

// one decodes the single block of a type, if it is there.
func (b *block) one(kind string, decode func(*block, hcl.Body)) {
	var first *hcl.Block
	for _, raw := range b.children.OfType(kind) {
		if first != nil {
			b.addf(raw.DefRange, "a second %s block; the first is at line %d", kind, first.DefRange.Start.Line)
			continue
		}
		first = raw
		decode(b.child(raw, b.field(kind)), raw.Body)
	}
}

// keyed decodes the blocks of a type whose label is a key of the field.
func (b *block) keyed(kind, field string, decode func(*block, hcl.Body)) {
	seen := make(map[string]hcl.Range)
	for _, raw := range b.children.OfType(kind) {
		c := b.child(raw, b.field(field)+"."+intent.FieldKey(raw.Labels[0]))
		claim(b.faults, seen, kind, c.name, c.label)
		decode(c, raw.Body)
	}
}

// listed decodes the blocks of a type into the elements of the field.
func (b *block) listed(kind, field string, decode func(*block, hcl.Body)) {
	for i, raw := range b.children.OfType(kind) {
		decode(b.child(raw, b.field(field)+"["+strconv.Itoa(i)+"]"), raw.Body)
	}
}

// top is an app or reflex: the root of a set of places.
type top struct {
	*block
	body hcl.Body
}

// named returns the top-level blocks of a type.
func (b *block) named(kind string) []top {
	var out []top
	for _, raw := range b.children.OfType(kind) {
		c := b.child(raw, "")
		c.places = map[string]hcl.Range{"": raw.DefRange, "name": c.label}
		out = append(out, top{c, raw.Body})
	}
	return out
}

// failed reports whether anything was wrong so far in this block.
func (b *block) failed() bool { return len(b.list) > b.before }

// place is where the field with this path was written, or the nearest block
// around where it should have been.
func (b *block) place(path string) hcl.Range {
	for path != "" {
		if at, ok := b.places[path]; ok {
			return at
		}
		path = path[:max(strings.LastIndexAny(path, ".["), 0)]
	}
	return b.places[""]
}

// elements returns the elements of an attribute that is a list, and registers
// their places.
func (b *block) elements(name string) []hclsyntax.Expression {
	a := b.attrs[name]
	if a == nil {
		return nil
	}
	list, ok := a.Expr.(*hclsyntax.TupleConsExpr)
	if !ok {
		b.addf(a.Expr.Range(), "%s is a list, as in %s = [\"a\", \"b\"]", name, name)
		return nil
	}
	for i, e := range list.Exprs {
		b.places[b.field(name)+"["+strconv.Itoa(i)+"]"] = e.Range()
	}
	return list.Exprs
}
