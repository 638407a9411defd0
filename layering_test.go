// Package ganglion_test holds the rules of the house that a compiler cannot
// check: who may import whom, and that the pure packages are pure.
package ganglion_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/ganglion-mesh/ganglion/"

// room is one package directory: what of this module it may import (a trailing
// slash allows the whole subtree), and whether it must stay pure.
type room struct {
	may  []string
	pure bool
	why  string // why it may import no more
}

// house is the table of allowed edges. A package that is not in it fails the
// test, so that a new room is a decision and not an accident.
var house = map[string]room{
	"intent":      {pure: false, why: "the vocabulary: everyone imports it, it imports nobody; Main does the only input and output"},
	"intent/hcl":  {may: []string{"intent", "intent/expr"}, why: "a way to write intents, ignorant of what runs them"},
	"intent/expr": {may: []string{"intent"}, pure: true, why: "expressions, within the bounds of the vocabulary: topology and reflexes share them"},
	"intent/cron": {pure: true, why: "times of schedules alone; the zones it reads are data of the system"},

	"consensus/topology": {may: []string{"intent", "intent/expr", "intent/cron"}, pure: true, why: "every voter must compute the same: no clock, randomness or I/O"},
	"reflexes":           {may: []string{"intent", "intent/expr"}, pure: true, why: "rules are stepped in virtual time"},
	"workload":           {may: []string{"intent"}, pure: true, why: "supervision and planning are pure; drivers do the work"},
	"workload/signature": {pure: true, why: "whether a signature is good follows from its bytes, a key and a package alone; who is trusted is decided elsewhere"},

	"mutanttest": {why: "puts bugs into source for tests to catch; knows no package"},
	"pid1":       {why: "a connection to systemd, for whoever needs one; knows nobody"},
	"pause":      {why: "waits; knows nobody"},
	"durable":    {why: "files that outlive a crash, for whoever keeps some; knows nobody"},

	"consensus":               {may: []string{"consensus/topology", "durable"}, why: "raft; siblings are wired by agent"},
	"consensus/consensustest": {may: []string{"consensus", "consensus/topology"}, why: "test network of consensus"},
	"gossip":                  {may: []string{"durable", "pause"}, why: "serf; knows nothing of what the mesh decides"},
	"gossip/gossiptest":       {may: []string{"gossip"}, why: "test network of gossip"},
	"events":                  {may: []string{"durable", "pause"}, why: "the story; knows nothing of who tells it"},
	"trust":                   {may: []string{"durable"}, why: "keys and certificates; knows nothing of what they protect"},
	"reflexes/senses":         {may: []string{"reflexes", "reflexes/senses/procfs", "intent", "pid1"}, why: "facts from the host; agent translates"},
	"reflexes/senses/procfs":  {why: "reads the kernel's text files; knows no fact"},
	"workload/output":         {may: []string{"workload", "pause"}, why: "output files of copies, shared by the drivers"},
	"workload/bootclock":      {why: "one clock, for drivers, keepers, packages and the agent"},
	"workload/program":        {may: []string{"workload"}, why: "what drivers share about a copy's program; knows no driver"},
	"workload/hook":           {may: []string{"workload/program"}, why: "runs one command of a user's, bounded: knows no copy and no reflex"},
	"workload/keeper":         {may: []string{"workload", "workload/bootclock", "workload/program"}, why: "the process that ends a singleton with its lease; knows no driver, no agent"},
	"workload/process":        {may: []string{"workload", "workload/bootclock", "workload/keeper", "workload/output", "workload/program"}, why: "a driver"},
	"workload/systemd":        {may: []string{"durable", "workload", "workload/bootclock", "workload/keeper", "workload/output", "workload/program", "pid1"}, why: "a driver"},
	"workload/vip":            {why: "addresses on interfaces: knows no lease and no rule"},
	"workload/artifact":       {may: []string{"workload/bootclock", "pause"}, why: "packages by content: knows no agent, no mesh and no app"},
	"workload/workloadtest":   {may: []string{"workload", "workload/output"}, why: "the conformance suite knows no driver"},

	"agent":           {may: []string{"intent/", "consensus/", "gossip", "events", "trust", "reflexes/", "workload/", "agent/", "durable", "pause"}, why: "the only package that knows all siblings"},
	"agent/api":       {may: []string{"intent", "intent/expr", "intent/cron", "consensus/topology", "events", "reflexes"}, why: "what travels between agents and clients, and what of it is refused: no machinery"},
	"agent/packages":  {may: []string{"intent", "workload/artifact", "pause"}, why: "gets and keeps packages, whoever runs from them and whoever has them"},
	"agent/copies":    {may: []string{"intent", "consensus/topology", "workload", "workload/bootclock", "reflexes/senses", "agent/packages", "durable", "pause"}, why: "runs copies through the Driver contract, whoever the driver is"},
	"agent/brake":     {may: []string{"trust"}, why: "who has frozen the mesh, and who may end that: knows nothing of what is held"},
	"agent/reflexer":  {may: []string{"durable", "intent", "reflexes"}, why: "runs the engine of reflexes: who senses, and who acts, is not its business"},
	"agent/addresses": {may: []string{"consensus/topology", "reflexes", "workload/vip"}, why: "keeps addresses under leases: who grants and renews those, and where it is noted, is not its business"},
	"agent/leases":    {may: []string{"consensus/topology"}, pure: true, why: "leases are stepped in virtual time, on clocks that differ"},

	"cmd/ganglion": {may: []string{"intent/", "agent/", "consensus/topology", "events", "trust", "reflexes", "workload/keeper", "workload/artifact", "workload/signature", "pause"}, why: "a client of the API and a shell around agent"},
	"integration/": {may: []string{"intent/", "consensus/", "gossip/", "events", "trust", "reflexes/", "workload/", "agent/", "integration/"}, why: "tests may see everything"},
	"examples/":    {may: []string{"intent/"}, why: "what users write"},
}

// impure are imports that a pure package may not have.
var impure = []string{"net", "os", "io/ioutil", "log", "math/rand", "math/rand/v2", "crypto/rand", "os/exec", "net/http"}

// clock are the functions of package time that read or wait for the clock.
var clock = []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "NewTimer", "NewTicker", "Tick"}

func TestLayering(t *testing.T) {
	for dir, files := range sources(t) {
		if dir == "." {
			continue
		}
		r, ok := find(dir)
		if !ok {
			t.Errorf("%s is not in the table of rooms: add it with what it may import", dir)
			continue
		}
		for _, f := range files {
			checkImports(t, dir, r, f)
			if r.pure {
				checkPure(t, dir, f)
			}
		}
	}
}

func checkImports(t *testing.T, dir string, r room, f *ast.File) {
	t.Helper()
	for _, imp := range f.Imports {
		p, _ := strconv.Unquote(imp.Path.Value)
		local, ok := strings.CutPrefix(p, module)
		if !ok || local == dir {
			continue
		}
		if !slices.ContainsFunc(r.may, func(m string) bool { return within(local, m) }) {
			t.Errorf("%s may not import %s: %s", dir, local, r.why)
		}
	}
}

func checkPure(t *testing.T, dir string, f *ast.File) {
	t.Helper()
	for _, imp := range f.Imports {
		if p, _ := strconv.Unquote(imp.Path.Value); slices.Contains(impure, p) {
			t.Errorf("%s is pure and may not import %s", dir, p)
		}
	}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			t.Errorf("%s is pure and may not start a goroutine", dir)
		case *ast.SelectorExpr:
			if x, ok := n.X.(*ast.Ident); ok && x.Name == "time" && slices.Contains(clock, n.Sel.Name) {
				t.Errorf("%s is pure and may not call time.%s", dir, n.Sel.Name)
			}
		}
		return true
	})
}

// find returns the room of dir: its own, or the subtree that holds it.
func find(dir string) (room, bool) {
	if r, ok := house[dir]; ok {
		return r, true
	}
	for d := dir; d != "."; d = path.Dir(d) {
		if r, ok := house[d+"/"]; ok {
			return r, true
		}
	}
	return room{}, false
}

func within(pkg, allowed string) bool {
	tree, isTree := strings.CutSuffix(allowed, "/")
	return pkg == tree || isTree && strings.HasPrefix(pkg, allowed)
}

// sources parses every non-test Go file of the module, by directory.
func sources(t *testing.T) map[string][]*ast.File {
	t.Helper()
	out := map[string][]*ast.File{}
	fset := token.NewFileSet()
	err := filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); p != "." && (strings.HasPrefix(name, ".") || name == "testdata") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(p, ".go") || strings.HasSuffix(p, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(fset, p, nil, parser.SkipObjectResolution|parser.ParseComments)
		if err != nil {
			return err
		}
		dir := filepath.ToSlash(filepath.Dir(p))
		out[dir] = append(out[dir], f)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestEveryPackageIsDocumented(t *testing.T) {
	for dir, files := range sources(t) {
		if !slices.ContainsFunc(files, func(f *ast.File) bool { return f.Doc != nil }) {
			t.Errorf("%s has no package comment", dir)
		}
	}
}
