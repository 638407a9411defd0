package reflexes

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// starter is the library of reflexes that users begin with.
const starter = "../examples/reflexes/"

// TestStarterLibrary plays against each reflex of the library the story of its
// fault in testdata/starter: what happens, a line of dashes, what the engine did.
func TestStarterLibrary(t *testing.T) {
	files, err := filepath.Glob(starter + "*.hcl")
	if err != nil || len(files) < 8 {
		t.Fatalf("the library has %d files, %v", len(files), err)
	}
	var all []*Rule
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".hcl")
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		rules := compile(t, string(text))
		if len(rules) != 1 || rules[0].Name != name {
			t.Fatalf("%s: want one reflex, called %s", file, name)
		}
		all = append(all, rules...)
		t.Run(name, func(t *testing.T) { playStarter(t, "testdata/starter/"+name+".txt", rules) })
	}
	for _, f := range Lint(all) {
		t.Errorf("%s: %s: %s; %s", f.Rule, f.Path, f.Why, f.Fix)
	}
}

func playStarter(t *testing.T, file string, rules []*Rule) {
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	events, _, _ := strings.Cut(string(b), "\n----\n")
	story, err := ParseStory(events)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Replay(rules, story, ReplayOptions{Config: Config{Seed: 1}})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(got, rules[0].Name+" ") || !strings.Contains(got, "fired") {
		t.Errorf("it never fires:\n%s", got)
	}
	want := strings.TrimRight(events, "\n") + "\n----\n" + got
	if *update {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if want != string(b) {
		t.Errorf("it goes otherwise now; look at the difference after -update:\n%s", got)
	}
}
