package reflexes

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ganglion-mesh/ganglion/intent"
	"github.com/ganglion-mesh/ganglion/intent/hcl"
)

// compile compiles the reflexes of a text in HCL, those in apps too.
func compile(t testing.TB, text string) []*Rule {
	t.Helper()
	in, err := hcl.Parse("rules.hcl", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	c, err := NewCompiler()
	if err != nil {
		t.Fatal(err)
	}
	var out []*Rule
	add := func(r intent.Reflex, app string) {
		rule, err := c.Compile(r, app)
		if err != nil {
			t.Fatalf("reflex %s: %v", r.Name, err)
		}
		out = append(out, rule)
	}
	for _, a := range in.Apps {
		for _, r := range a.Reflexes {
			add(r, a.Name)
		}
	}
	for _, r := range in.Reflexes {
		add(r, "")
	}
	return out
}

// TestStories plays the stories in testdata: rules, a line of dashes, what
// happens, a line of dashes, what the engine did.
func TestStories(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no stories: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			parts := strings.SplitN(string(b), "\n----\n", 3)
			if len(parts) < 2 {
				t.Fatal("want rules, a line of dashes, a story")
			}
			story, err := ParseStory(parts[1])
			if err != nil {
				t.Fatal(err)
			}
			got, err := Replay(compile(t, parts[0]), story, ReplayOptions{Config: Config{Seed: 1}})
			if err != nil {
				t.Fatal(err)
			}
			want := parts[0] + "\n----\n" + strings.TrimRight(parts[1], "\n") + "\n----\n" + got
			if *update {
				if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if want != string(b) {
				t.Errorf("it goes otherwise now; look at the difference after -update:\n%s", got)
			}
		})
	}
}
