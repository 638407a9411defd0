package reflexes

import (
	"encoding/json"
	"flag"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/intent/expr"
)

var update = flag.Bool("update", false, "rewrite what documentation and golden files say")

// The page for users is written from the table that the checker uses.
func TestVarsPage(t *testing.T) {
	const page, begin, end = "../docs/reflexes.md", "<!-- vars -->\n", "<!-- /vars -->"
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok1 := strings.Cut(string(b), begin)
	_, tail, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		t.Fatalf("%s has no place for the tables", page)
	}
	want := head + begin + VarsMarkdown() + "\n" + end + tail
	if *update {
		if err := os.WriteFile(page, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if string(b) != want {
		t.Errorf("%s is not what the table says; run go test ./reflexes -run TestVarsPage -update", page)
	}
}

func TestTableIsSound(t *testing.T) {
	form := regexp.MustCompile(`^[a-z]+(\.[a-z0-9_]+){1,3}$`)
	seen := map[string]bool{}
	for _, id := range Vars() {
		v := id.Info()
		fail := func(why string) { t.Errorf("%s: %s", v.Name, why) }
		if !form.MatchString(v.Name) || seen[v.Name] {
			fail("is no name, or there twice")
		}
		seen[v.Name] = true
		if v.Type == expr.None || v.Scope == 0 || v.Source == "" || v.Doc == "" || strings.ContainsAny(v.Doc, "|\n") {
			fail("the row is not whole")
		}
		if got, ok := Lookup(v.Name); !ok || got != id {
			fail("is not found by its name")
		}
		if v.Edge && (v.Type != expr.IntType || v.MaxAge != 0) {
			fail("a counter is an int and does not age")
		}
		if w := v.With; w != 0 && (!w.Info().Edge || w.Info().Scope != v.Scope || w <= id || v.MaxAge != 0) {
			fail("goes with no counter of its scope that comes later")
		}
		if o := v.Of; o != 0 && (!o.Info().Edge || o.Info().Scope != v.Scope || v.Window < time.Second || v.Type != expr.IntType) {
			fail("counts no counter of its scope")
		}
		if strings.HasSuffix(v.Name, "_ratio") != (v.Unit == "ratio") && v.Unit != "ratio" {
			fail("a ratio says so")
		}
	}
	for a := range seen {
		for b := range seen {
			if strings.HasPrefix(b, a+".") {
				t.Errorf("%s would hide %s in conditions", a, b)
			}
		}
	}
}

func TestFactsReadBackAsWritten(t *testing.T) {
	for _, target := range []Target{Host(), CopyTarget("web/2"), {ScopeDisk, "/var/lib:x"}, {ScopeUnit, "a@b.service"}} {
		b, err := json.Marshal(target)
		var got Target
		if err != nil || json.Unmarshal(b, &got) != nil || got != target {
			t.Errorf("%v: %s, %v, %v", target, b, got, err)
		}
	}
	for _, bad := range []string{"", "host:x", "copy", "copy:", "planet:x"} {
		if got, err := ParseTarget(bad); err == nil {
			t.Errorf("%q was read as %v", bad, got)
		}
	}
	for _, v := range []Value{{}, Bool(true), Bool(false), Int(-3), Float(2), Float(0.05), Float(1e300), Text(`a"b`)} {
		b, err := json.Marshal(v)
		var got Value
		if err != nil || json.Unmarshal(b, &got) != nil || got != v {
			t.Errorf("%v: %s, %v, %v", v, b, got, err)
		}
	}
}

// An inbox that is full of edges loses none: the counters tell.
func TestInboxKeepsEveryEdge(t *testing.T) {
	b := NewInbox()
	var buf [8]Fact
	for i := range int64(1000) {
		b.Put(Exit{Copy: "web/1", Count: i + 1, Code: i, At: time.Duration(i)}.Facts(buf[:0])...)
		b.Put(Fact{Var: HostMemAvail, Target: Host(), Value: Float(float64(i)), At: time.Duration(i)})
	}
	facts := b.Take()
	if len(facts) > 1000*2 {
		t.Errorf("%d facts wait", len(facts))
	}
	counts, last := 0, map[VarID]Value{}
	for _, f := range facts {
		if f.Var == ExitCount {
			counts++
			if last[ExitCode].AsInt() != f.Value.AsInt()-1 {
				t.Fatalf("edge %v is told of by code %v", f.Value, last[ExitCode])
			}
		}
		last[f.Var] = f.Value
	}
	if counts != maxEdges || last[ExitCount] != Int(1000) || last[HostMemAvail] != Float(999) || b.Folded != 1000-maxEdges {
		t.Errorf("%d edges, the last %v, memory %v, folded %d", counts, last[ExitCount], last[HostMemAvail], b.Folded)
	}
	b.Put(Fact{Var: HostMemAvail, Target: Host(), Value: Float(1), At: 5}, Fact{Var: HostMemAvail, Target: Host(), Value: Float(2), At: 4})
	if got := b.Take(); len(got) != 1 || !reflect.DeepEqual(got[0].Value, Float(1)) {
		t.Errorf("an older value replaced a newer one: %v", got)
	}
}
