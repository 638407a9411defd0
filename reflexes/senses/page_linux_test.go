package senses

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/ganglion-mesh/ganglion/reflexes"
)

var update = flag.Bool("update", false, "write the table of senses into docs/reflexes.md")

const page = "../../docs/reflexes.md"

// pageRows say of each sense where it looks, what it may need, and what it does
// where it does not have that.
var pageRows = map[string]struct{ from, needs, else_ string }{
	"pressure":      {"/proc/pressure, each 40 ms while there is pressure; at rest, and while no rule reads it, each 500 ms", "a kernel with CONFIG_PSI; CAP_SYS_RESOURCE, to be woken by the kernel", "each 40 ms always, while a rule reads it"},
	"memory":        {"/proc/meminfo, each 200 ms", "", ""},
	"cpu":           {"/proc/stat, each second", "", ""},
	"load":          {"/proc/loadavg, each 5 s", "", ""},
	"limits":        {"/proc/sys/fs/file-nr, each 5 s", "", ""},
	"clocks":        {"boot clock and wall clock, each 500 ms", "", ""},
	"usage":         {"the copy's control group, of version 2 or 1, each second", "a group of the copy's own; root for app.files of other users' processes", "the first process alone, by /proc"},
	"copy-pressure": {"pressure files of the copy's control group, each second", "a group of version 2 of the copy's own, with or without controllers", "Unknown"},
	"oom":           {"memory.events (version 2) by inotify, memory.oom_control (version 1) by eventfd", "a memory group of the copy's own", "the kernel's log, which takes root; of the host /proc/vmstat, each 5 s"},
	"links":         {"rtnetlink, as it changes; all is listed each minute", "", "where the kernel left out changes, all is listed and compared"},
	"link-errors":   {"/proc/net/dev, each 2 s", "", ""},
	"units":         {"systemd's own socket (D-Bus), as it changes; all is listed each minute", "systemd as PID 1, and root", "Unknown"},
	"disks":         {"statfs of file systems that this host stores, each 2 s", "", ""},
	"disk-busy":     {"/proc/diskstats, each 2 s", "a block device", "Unknown"},
	"command:NAME":  {"a command of your own, each 100 ms to 1 min; its first line", "cgroup v2, to end all that it leaves behind", "ends what has stayed in its process group"},
	"events:NAME":   {"NATS, over one connection for all of them, as it is told", "a NATS server that is reached", "Unknown; what is told meanwhile is not heard"},
	"files:NAME":    {"inotify on the directories of the files", "", "what cannot be watched is looked at each 10 s"},
}

// sensesTable is the table of docs/reflexes.md.
func sensesTable(t *testing.T) string {
	t.Helper()
	senses, err := Standard(StandardConfig{Now: bootNow, Copies: NewCopies()})
	if err != nil {
		t.Fatal(err)
	}
	senses = append(senses, must[*Command](t)(NewCommand(CommandConfig{Target: "x", Run: says(""), Now: bootNow})), newFiles(t, "/x"), newEvents(t, nil))
	var b strings.Builder
	b.WriteString("\n| sense | tells | from | takes | else |\n|---|---|---|---|---|\n")
	for _, s := range senses {
		name := strings.Replace(s.Name(), ":x", ":NAME", 1)
		row, ok := pageRows[name]
		if !ok {
			t.Errorf("the sense %s has no row in this test", name)
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", name, families(s.Vars()), row.from, row.needs, row.else_)
	}
	if len(senses) != len(pageRows) {
		t.Errorf("%d senses, and %d rows in this test", len(senses), len(pageRows))
	}
	return b.String() + "\n"
}

// families are the variables, those that are alike but for their last word as
// one; where not all of them are meant, each by itself.
func families(ids []reflexes.VarID) string {
	family := func(id reflexes.VarID) string { name := id.String(); return name[:strings.LastIndexByte(name, '.')] }
	var out []string
	for _, id := range ids {
		name := id.String()
		told, others := 0, 0
		for _, other := range reflexes.Vars() {
			switch {
			case family(other) != family(id), other.Info().Of != 0:
			case slices.Contains(ids, other):
				told++
			default:
				others++
			}
		}
		if told > 1 && others == 0 {
			name = family(id) + ".*"
		}
		if name = "`" + name + "`"; !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return strings.Join(out, ", ")
}

// TestSensesPage holds the documentation against the senses.
func TestSensesPage(t *testing.T) {
	b, err := os.ReadFile(page)
	if err != nil {
		t.Skipf("needs the source beside it: %v", err)
	}
	const begin, end = "<!-- senses -->\n", "<!-- /senses -->"
	head, rest, ok1 := strings.Cut(string(b), begin)
	_, tail, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		t.Fatalf("%s has no place for the senses", page)
	}
	want := head + begin + sensesTable(t) + end + tail
	if *update {
		if err := os.WriteFile(page, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if !*update && want != string(b) {
		t.Error("docs/reflexes.md does not say what the senses are; run go test ./reflexes/senses -run TestSensesPage -update")
	}
}
