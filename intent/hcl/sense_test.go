package hcl

import (
	"reflect"
	"strings"
	"testing"

	"github.com/ganglion-mesh/ganglion/intent"
)

func TestSenseBlocks(t *testing.T) {
	in, err := Parse("x.hcl", []byte(`
sense "warm" {
  command = ["/bin/warm", "-c"]
  every   = "2s"
  timeout = "1s"
  user    = "ops"
}
sense "conf" {
  files = ["/etc/x"]
}
sense "story" {
  events = ["app.db.*.unhealthy"]
}
`))
	want := []intent.Sense{
		{Name: "warm", Command: []string{"/bin/warm", "-c"}, Every: 2 * intent.Second, Timeout: intent.Second, User: "ops"},
		{Name: "conf", Files: []string{"/etc/x"}},
		{Name: "story", Events: []string{"app.db.*.unhealthy"}},
	}
	if err != nil || !reflect.DeepEqual(in.Senses, want) {
		t.Errorf("%+v, %v", in.Senses, err)
	}
	for src, want := range map[string]string{
		"sense \"x\" {\n  command = [\"warm\"]\n}":                                     "x.hcl:2:",
		"sense \"x\" {\n  comand = [\"/x\"]\n}":                                        `"comand"`,
		"sense \"x\" {\n  files = [\"/x\"]\n}\nsense \"x\" {\n  files = [\"/x\"]\n}\n": `sense "x" is declared twice, first at x.hcl:1`,
		"sense \"x\" {\n  command = [\"/x\"]\n  every = \"1h\"\n}":                     "x.hcl:3:",
		"sense \"x\" {}": "a command, files or events are required",
	} {
		if _, err := Parse("x.hcl", []byte(src)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", src, err, want)
		}
	}
}
