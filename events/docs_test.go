package events

import (
	"cmp"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"reflect"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite EVENTS.md")

const docsHead = `# Events

Generated from the structs of this package; ` + "`go test ./events -run TestDocs -update`" + ` writes it anew.

Each event is one CloudEvents 1.0 message in structured JSON. On NATS it is published on the subject shown, with the headers
` + "`Content-Type: application/cloudevents+json`" + ` and ` + "`Ganglion-Age-Ms`" + ` (since it was recorded, by its host's clock, when it was published); ` + "`ganglion events`" + ` prints the same JSON, a line an event.

| attribute | |
|---|---|
%s
Attributes that a later version adds are to be ignored by readers that do not know them. Data above %d KiB is replaced by
` + "`{\"omitted_bytes\": N}`" + `. An event may arrive more than once: ` + "`id`" + ` tells. A gap in ` + "`seq`" + ` of one ` + "`source`" + ` on NATS can be filled with
` + "`ganglion events --since`" + `; a gap there too means evicted or damaged records, or ` + "`dropped`" + ` says why.
`

// EVENTS.md is what the code says.
func TestDocs(t *testing.T) {
	docs := structDocs(t)
	var b strings.Builder
	var attrs strings.Builder
	for _, f := range docs["Event"].fields {
		fmt.Fprintf(&attrs, "| `%s` | %s |\n", f.name, strings.ReplaceAll(cmp.Or(f.doc, "as CloudEvents says"), "<", `\<`))
	}
	fmt.Fprintf(&b, docsHead, attrs.String(), MaxData>>10)
	area := ""
	for _, k := range Catalogue() {
		if k.Area() != area {
			area = k.Area()
			fmt.Fprintf(&b, "\n## %s\n\nNATS subject `ganglion.<mesh>.%s.<what>`, attribute `subject` = `%s`.\n\n| event | when | data |\n|---|---|---|\n",
				area, named(k.Subject, "."), named(k.Subject, "/"))
		}
		name := reflect.TypeOf(k.New()).Elem().Name()
		d := docs[name]
		_, when, ok := strings.Cut(d.doc, name+": ")
		if !ok {
			t.Errorf("the comment of %s does not start with %q", name, name+": ")
		}
		var fields []string
		for _, f := range d.fields {
			if f.doc == "" {
				t.Errorf("%s.%s has no comment", name, f.name)
			}
			fields = append(fields, fmt.Sprintf("`%s` %s: %s", f.name, f.typ, f.doc))
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", k.Type, strings.TrimSpace(when), strings.Join(fields, "<br>"))
	}
	if *update {
		if err := os.WriteFile("EVENTS.md", []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile("EVENTS.md")
	if err != nil || string(got) != b.String() {
		t.Errorf("EVENTS.md is not what the code says (%v); run go test ./events -run TestDocs -update", err)
	}
}

// named writes the stars of a subject form as the names they stand for.
func named(form, sep string) string {
	names := map[string][]string{"host": {"<host>"}, "app": {"<app>", "<n>"}, "rollout": {"<app>"}, "reflex": {"<rule>", "<host>"},
		"leader": {"<host>"}, "intent": {"<name>"}, "freeze": {"<host>"}, "mesh": {"<setting>"}}
	area, _, _ := strings.Cut(form, "/")
	return area + sep + strings.Join(names[area], sep)
}

type fieldDoc struct{ name, typ, doc string }

type structDoc struct {
	doc    string
	fields []fieldDoc
}

// structDocs reads the comments of the package's structs.
func structDocs(t *testing.T) map[string]structDoc {
	t.Helper()
	out := map[string]structDoc{}
	for _, file := range []string{"event.go", "data_host.go", "data_app.go", "data_mesh.go"} {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range f.Decls {
			g, ok := decl.(*ast.GenDecl)
			if !ok || g.Tok != token.TYPE {
				continue
			}
			spec := g.Specs[0].(*ast.TypeSpec)
			if st, ok := spec.Type.(*ast.StructType); ok {
				out[spec.Name.Name] = structDoc{doc: strings.Join(strings.Fields(g.Doc.Text()), " "), fields: fieldDocs(st)}
			}
		}
	}
	return out
}

func fieldDocs(st *ast.StructType) (out []fieldDoc) {
	for _, f := range st.Fields.List {
		tag, _, _ := strings.Cut(reflect.StructTag(strings.Trim(f.Tag.Value, "`")).Get("json"), ",")
		out = append(out, fieldDoc{name: tag, typ: jsonType(f.Type), doc: strings.TrimSpace(f.Comment.Text())})
	}
	return out
}

func jsonType(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return jsonType(e.X) + " or null"
	case *ast.ArrayType:
		return "list of " + jsonType(e.Elt)
	case *ast.MapType:
		return "map of " + jsonType(e.Value)
	case *ast.SelectorExpr:
		return "any"
	case *ast.Ident:
		switch e.Name {
		case "string", "bool":
			return e.Name
		}
	}
	return "number"
}
