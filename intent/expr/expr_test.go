package expr

import (
	"errors"
	"reflect"
	"strings"
	"sync"
	"testing"
)

func TestPlacementMatches(t *testing.T) {
	labels := map[string]string{"zone": "a", "disk": "ssd", "rack": "12", "type": "edge", "host": "n1"}
	cases := map[string]bool{
		"zone != 'c'":                            true,
		`zone == "c"`:                            false,
		"zone in ['a', 'b'] && disk == 'ssd'":    true,
		"gpu == ''":                              true, // absent is empty
		"gpu != '' || zone == 'a'":               true,
		"!(zone == 'a')":                         false,
		"host.startsWith('n')":                   true,
		"host.matches('^n[0-9]+$')":              true,
		"int(rack) > 10":                         true,
		"size(zone) == 1":                        true,
		"zone < 'b'":                             true,
		"type == 'edge'":                         true, // also a function of cel
		"string == '' && int == '' && map == ''": true,
		"true":                                   true,
		"zone == 'a' ? disk == 'ssd' : false":    true,
	}
	for src, want := range cases {
		p, err := CompilePlacement(src)
		if err != nil {
			t.Errorf("%s: %v", src, err)
			continue
		}
		if got, err := p.Matches(labels); err != nil || got != want {
			t.Errorf("%s: %v, %v, want %v", src, got, err, want)
		}
	}
}

func TestPlacementRefusesWithThePlace(t *testing.T) {
	cases := []struct {
		src          string
		line, column int
		why          string
	}{
		{"", 0, 0, "an expression is required"},
		{" \n", 0, 0, "an expression is required"},
		{"zone != ", 1, 9, "the end"},
		{"zone = 'c'", 1, 6, "="},
		{"zone == 'c", 1, 9, "'c"},
		{"zone == 3", 1, 6, "== cannot be applied to (string, int)"},
		{"zone != 3", 1, 6, "!= cannot be applied to (string, int)"},
		{"!zone", 1, 1, "! cannot be applied to (string)"},
		{"zone", 0, 0, "yields a string"},
		{"zone == 'a' &&\n nope(zone)", 2, 6, "undeclared reference to 'nope'"},
		{"zone.a == 'x'", 1, 5, "field"},
		{"[1,2].exists(x, x > 1)", 1, 13, "exists"},
		{strings.Repeat("(", 200) + "true" + strings.Repeat(")", 200), 0, 0, ""},
		{strings.Repeat("-(", 300) + "1", 0, 0, ""},
		{strings.Repeat("a", maxSource+1), 0, 0, "at most 2048"},
		{"'" + strings.Repeat("\xff", 10) + "' == zone", 0, 0, ""},
	}
	for _, c := range cases {
		p, err := CompilePlacement(c.src)
		var e *Error
		if p != nil || !errors.As(err, &e) {
			t.Errorf("%.40q: got %v, %v", c.src, p, err)
			continue
		}
		if c.line != 0 && (e.Line != c.line || e.Column != c.column) || !strings.Contains(e.Why, c.why) {
			t.Errorf("%.40q: at %d:%d: %s, want %d:%d and %q", c.src, e.Line, e.Column, e.Why, c.line, c.column, c.why)
		}
		if s := e.Error(); strings.Contains(s, "\n") || len(s) > 300 || s == "" {
			t.Errorf("%.40q: not one line: %q", c.src, s)
		}
	}
}

// TestCostIsBounded doubles a label until the text would be huge: what cannot
// be shown to be cheap is refused, and what is accepted ends.
func TestCostIsBounded(t *testing.T) {
	sum := "(" + strings.TrimSuffix(strings.Repeat("zone+", 45), "+") + ")"
	if p, err := CompilePlacement(sum + ".matches('(a|b|c)*d(e|f)*" + strings.Repeat("(x|y)*", 40) + "')"); err == nil {
		_, err = p.Matches(map[string]string{"zone": strings.Repeat("a", maxLabel)})
		t.Errorf("accepted; evaluation: %v", err)
	}
	p, err := CompilePlacement("zone == 'a'")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Matches(map[string]string{"zone": strings.Repeat("a", maxLabel+1)}); err == nil {
		t.Error("a label beyond what the cost was estimated with was evaluated")
	}
}

func TestMeaninglessLabelDoesNotMatch(t *testing.T) {
	p, err := CompilePlacement("int(rack) > 3")
	if err != nil {
		t.Fatal(err)
	}
	if ok, err := p.Matches(nil); ok || err == nil || !strings.Contains(err.Error(), "int(rack) > 3") {
		t.Errorf("got %v, %v", ok, err)
	}
	if got := p.Labels(); !reflect.DeepEqual(got, []string{"rack"}) || p.String() != "int(rack) > 3" {
		t.Errorf("got %q and %q", got, p)
	}
}

func TestPlacementIsSharedByGoroutines(t *testing.T) {
	p, err := CompilePlacement("zone == 'a'")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			zone := []string{"a", "b"}[i%2]
			for range 200 {
				if ok, err := p.Matches(map[string]string{"zone": zone}); err != nil || ok != (zone == "a") {
					t.Errorf("zone %s: %v, %v", zone, ok, err)
				}
			}
		})
	}
	wg.Wait()
}

func TestCheckSyntax(t *testing.T) {
	for _, ok := range []string{"host.memory.available_ratio < 0.05", "app.restarts > 3 && psi.memory.full_10s > 0.2"} {
		if err := CheckSyntax(ok); err != nil {
			t.Errorf("%s: %v", ok, err)
		}
	}
	for _, bad := range []string{"", "host.memory <", "a ===", "a b", strings.Repeat("[", 500)} {
		var e *Error
		if err := CheckSyntax(bad); !errors.As(err, &e) {
			t.Errorf("%.20q: got %v", bad, err)
		}
	}
}

func TestCheck(t *testing.T) {
	if err := Check("zone", true); err == nil {
		t.Error("a string was accepted for a placement")
	}
	if err := Check("zone", false); err != nil {
		t.Errorf("variables of conditions are not known here: %v", err)
	}
}

func FuzzPlacement(f *testing.F) {
	for _, s := range []string{"zone != 'c'", "a in ['x'] ? b == '' : !c.startsWith('d')", "int(x) / 0 == 1", "`", "\x00", "a.b.c", "{'a': b}['a'] == ''"} {
		f.Add(s, "v")
	}
	f.Fuzz(func(t *testing.T, src, value string) {
		_ = CheckSyntax(src)
		p, err := CompilePlacement(src)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || strings.Contains(err.Error(), "\n") {
				t.Fatalf("%T: %v", err, err)
			}
			return
		}
		labels := map[string]string{}
		for _, l := range p.Labels() {
			labels[l] = value
		}
		first, err1 := p.Matches(labels)
		second, err2 := p.Matches(labels)
		if first != second || (err1 == nil) != (err2 == nil) {
			t.Fatalf("%v, %v then %v, %v", first, err1, second, err2)
		}
	})
}

func BenchmarkCompilePlacement(b *testing.B) {
	for b.Loop() {
		if _, err := CompilePlacement("zone != 'c' && disk == 'ssd'"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMatches(b *testing.B) {
	p, err := CompilePlacement("zone != 'c' && disk == 'ssd'")
	if err != nil {
		b.Fatal(err)
	}
	labels := map[string]string{"zone": "a", "disk": "ssd"}
	for b.Loop() {
		if _, err := p.Matches(labels); err != nil {
			b.Fatal(err)
		}
	}
}
