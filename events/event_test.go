package events

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"pgregory.net/rapid"
)

// The subjects users write their subscriptions against.
const published = `
ganglion.<mesh>.host.<host>.{joined,suspect,failed,recovered,left,draining,drained,removed,vitals,paused}
ganglion.<mesh>.app.<app>.<n>.{placed,unplaced,started,ready,unhealthy,exited,restarted,stopped,moved,fenced,needs_human}
ganglion.<mesh>.rollout.<app>.{started,progressed,done,failed,rolledback,held}
ganglion.<mesh>.reflex.<rule>.<host>.{fired,observed,suppressed,cleared,staged,reverted}
ganglion.<mesh>.leader.<host>.{elected,lost}
ganglion.<mesh>.intent.<name>.{applied,removed}
ganglion.<mesh>.freeze.<host>.{frozen,thawed}
ganglion.<mesh>.mesh.<setting>.{changed,missed}
`

func TestCatalogueIsWhatWasPromised(t *testing.T) {
	var want, got []string
	for line := range strings.Lines(strings.TrimSpace(published)) {
		head, whats, _ := strings.Cut(strings.TrimSpace(line), ".{")
		tokens := strings.Split(strings.TrimPrefix(head, "ganglion.<mesh>."), ".")
		for i := range tokens[1:] {
			tokens[i+1] = "*"
		}
		for what := range strings.SplitSeq(strings.TrimSuffix(whats, "}"), ",") {
			want = append(want, strings.Join(tokens, ".")+"."+what)
		}
	}
	for _, k := range Catalogue() {
		got = append(got, strings.ReplaceAll(k.Subject, "/", ".")+"."+k.What())
	}
	if !slices.Equal(got, want) {
		t.Errorf("catalogue:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// Every kind can be recorded, read back into its own struct, and lands on its
// subject.
func TestEveryKindThroughTheRecorder(t *testing.T) {
	r := open(t, t.TempDir())
	for _, k := range Catalogue() {
		subject := strings.ReplaceAll(k.Subject, "*", "x-1")
		e := mustAppend(t, r, New(subject, k.New()))
		got := all(t, r, e.Seq)[0]
		if !reflect.DeepEqual(got, e) {
			t.Errorf("%s: read %+v, appended %+v", k.Type, got, e)
		}
		p, err := got.Payload()
		if err != nil || !reflect.DeepEqual(p, k.New()) {
			t.Errorf("%s: payload %#v, %v", k.Type, p, err)
		}
		want := "ganglion.main." + strings.ReplaceAll(subject, "/", ".") + "." + k.What()
		if s := NATSSubject("main", got); s != want || s != strings.ToLower(s) {
			t.Errorf("%s: subject %s, want %s", k.Type, s, want)
		}
	}
}

// The bytes on disk, which are the bytes on NATS, have the published fields.
func TestWireForm(t *testing.T) {
	r := open(t, t.TempDir())
	root := mustAppend(t, r, New(AppSubject("web", "2"), AppExited{Pid: 7, Signal: "SIGKILL", RanMS: 12}))
	mustAppend(t, r, New(AppSubject("web", "2"), AppRestarted{Pid: 8, AfterUS: 900, By: "agent", Start: 2}).With(root.ID, 41))
	var lines []map[string]any
	if err := r.ring.read(1, func(rec record) bool {
		var m map[string]any
		if err := json.Unmarshal(rec.payload, &m); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, m)
		return true
	}); err != nil {
		t.Fatal(err)
	}
	for _, m := range lines {
		if _, err := ulid.ParseStrict(m["id"].(string)); err != nil {
			t.Error(err)
		}
		at, err := time.Parse(time.RFC3339Nano, m["time"].(string))
		if err != nil || time.Since(at).Abs() > time.Minute || !strings.HasSuffix(m["time"].(string), "Z") {
			t.Errorf("time %v: %v", m["time"], err)
		}
		delete(m, "id")
		delete(m, "time")
	}
	want := []map[string]any{{
		"specversion": "1.0", "source": "/hosts/h1", "type": "dev.ganglion.app.exited", "subject": "app/web/2",
		"datacontenttype": "application/json", "causeid": "", "revision": 0.0, "seq": 1.0,
		"data": map[string]any{"pid": 7.0, "code": nil, "signal": "SIGKILL", "ran_ms": 12.0},
	}, {
		"specversion": "1.0", "source": "/hosts/h1", "type": "dev.ganglion.app.restarted", "subject": "app/web/2",
		"datacontenttype": "application/json", "causeid": root.ID, "revision": 41.0, "seq": 2.0,
		"data": map[string]any{"pid": 8.0, "after_us": 900.0, "by": "agent", "start": 2.0},
	}}
	if !reflect.DeepEqual(lines, want) {
		t.Errorf("got  %v\nwant %v", lines, want)
	}
}

// What the hand-written encoder writes, the library reads as it was.
func TestEncodingRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		data, err := json.Marshal(HostLeft{Reason: rapid.String().Draw(t, "reason")})
		if err != nil {
			t.Fatal(err)
		}
		e := Event{
			SpecVersion: "1.0", ID: ulid.Make().String(), Source: "/hosts/h-9", Type: "dev.ganglion.host.left",
			Subject: "host/h-9", Time: time.Unix(rapid.Int64Range(0, 1<<33).Draw(t, "s"), rapid.Int64Range(0, 999999999).Draw(t, "ns")).UTC(),
			DataContentType: "application/json", Revision: rapid.Uint64Max(maxSeq).Draw(t, "rev"),
			Seq: rapid.Uint64Max(maxSeq).Draw(t, "seq"), Dropped: rapid.Uint64Max(9).Draw(t, "dropped"), Data: data,
		}
		got, err := Parse(e.appendJSON(nil))
		if err != nil || !reflect.DeepEqual(got, e) {
			t.Fatalf("got %+v, %v; want %+v", got, err, e)
		}
	})
}

func TestDraftsThatAreRefused(t *testing.T) {
	r := open(t, t.TempDir())
	bad := map[string]Draft{
		"is not of the form":                  New(HostSubject("web"), AppReady{}),
		`subject "app/web"`:                   New("app/web", AppReady{}),
		`subject "app/web/2/3"`:               New("app/web/2/3", AppReady{}),
		`subject "app/we.b/2"`:                New("app/we.b/2", AppReady{}),
		`subject "app/>/2"`:                   New("app/>/2", AppReady{}),
		`subject "app/Web/2"`:                 New("app/Web/2", AppReady{}),
		`subject "app//2"`:                    New("app//2", AppReady{}),
		`"app/` + strings.Repeat("a", 64):     New(AppSubject(strings.Repeat("a", 64), "2"), AppReady{}),
		"not an event struct":                 {Type: "app.ready", Subject: "app/web/2", Data: map[string]int{}},
		"data is <nil>":                       {Type: "app.ready", Subject: "app/web/2"},
		`belongs to type "app.ready"`:         {Type: "app.exited", Subject: "app/web/2", Data: AppReady{}},
		"not in the catalogue":                {Type: "app.exploded", Subject: "app/web/2", Data: AppReady{}},
		`cause "\"}"`:                         New("app/web/2", AppReady{}).With(`"}`, 1),
		"encode data: json: unsupported":      New("host/a", HostVitals{CPU: nan()}),
		`cause "01ARZ3NDEKTSV4RRFFQ69G5FAV "`: New("app/web/2", AppReady{}).With("01ARZ3NDEKTSV4RRFFQ69G5FAV ", 1),
	}
	for want, d := range bad {
		if e, err := r.Append(d); err == nil || !strings.Contains(err.Error(), want) || e.Seq != 0 {
			t.Errorf("%+v: error %v, want one with %q", d, err, want)
		}
	}
	if r.Last() != 0 {
		t.Errorf("refused drafts used up %d seqs", r.Last())
	}
	if e := mustAppend(t, r, started(1)); e.Dropped != 0 {
		t.Errorf("a mistake of the caller counts as dropped: %+v", e)
	}
}

func nan() float64 { zero := 0.0; return zero / zero }

func TestLargeDataIsReplacedNotRefused(t *testing.T) {
	r := open(t, t.TempDir())
	e := mustAppend(t, r, New(AppSubject("web", "2"), AppNeedsHuman{Reason: strings.Repeat("é\x00", MaxData)}))
	var o Omitted
	if err := json.Unmarshal(all(t, r, 1)[0].Data, &o); err != nil || o.OmittedBytes < MaxData || e.Seq != 1 {
		t.Errorf("event %+v has data %+v, %v", e, o, err)
	}
}

func TestFilter(t *testing.T) {
	app := Event{Type: TypePrefix + "app.started", Subject: "app/web/2"}
	host := Event{Type: TypePrefix + "host.failed", Subject: "host/n3"}
	for _, c := range []struct {
		pattern   string
		app, host bool
	}{
		{"", true, true}, {">", true, true}, {"app.web.>", true, false}, {"app.*.*.started", true, false},
		{"app.web.2.exited", false, false}, {"*.*.failed", false, true}, {"*.*.*.*", true, false},
		{"app.>", true, false}, {"app.web.2.started", true, false}, {"app.we.>", false, false},
		{"host.n3.failed", false, true}, {"*.n3.>", false, true},
	} {
		f, err := CompileFilter(c.pattern)
		if err != nil || f.Match(app) != c.app || f.Match(host) != c.host || f.String() != c.pattern {
			t.Errorf("%q: app %v host %v, %v; want %v %v", c.pattern, f.Match(app), f.Match(host), err, c.app, c.host)
		}
	}
	for _, p := range []string{".", "app..>", "app.web", "app.web.2.started.>", "App.web.>", "nope.>", "app.>.x",
		"app.we*.>", "app.web. 2.ready", "app/web/2", "host.*.exited", ">>", "app.web.2.", "ganglion.main.app.>"} {
		if f, err := CompileFilter(p); err == nil || !strings.Contains(err.Error(), "parse filter") {
			t.Errorf("%q compiles to %v, %v", p, f, err)
		}
	}
}

// A filter and NATS agree on what a pattern means, on any input.
func FuzzFilter(f *testing.F) {
	for _, s := range []string{"app.web.>", ">", "*", "...", "host.*.failed", "\x00"} {
		f.Add(s)
	}
	e := Event{Type: TypePrefix + "app.started", Subject: "app/web/2"}
	f.Fuzz(func(t *testing.T, pattern string) {
		fl, err := CompileFilter(pattern)
		if err == nil && fl.Match(e) != naturalMatch(pattern, "app.web.2.started") {
			t.Errorf("%q: %v", pattern, fl.Match(e))
		}
	})
}

// naturalMatch is a second, recursive reading of NATS's rules.
func naturalMatch(pattern, subject string) bool {
	if pattern == "" || pattern == ">" {
		return true
	}
	p, pr, pm := strings.Cut(pattern, ".")
	s, sr, sm := strings.Cut(subject, ".")
	if p != "*" && p != s {
		return false
	}
	if !pm || !sm {
		return pm == sm
	}
	return naturalMatch(pr, sr)
}

func ExampleCompileFilter() {
	f, _ := CompileFilter("app.web.>")
	fmt.Println(f.Match(Event{Type: "dev.ganglion.app.ready", Subject: "app/web/1"}))
	_, err := CompileFilter("app.web")
	fmt.Println(err)
	// Output:
	// true
	// parse filter "app.web": no event has such a subject; write for example app.web.> or host.*.failed
}
