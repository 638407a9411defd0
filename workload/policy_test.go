package workload

import (
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/intent"
)

func TestPolicyOfReadsEveryRule(t *testing.T) {
	no := false
	got, err := PolicyOf(intent.App{
		Name:    "web",
		Restart: intent.Restart{Limit: 3, Window: intent.Minute, BackoffMax: 5 * intent.Second},
		Stop:    intent.Stop{Signal: "SIGINT", Grace: 2 * intent.Second},
		Checks: []intent.Check{
			{Type: intent.CheckProcess},
			{Type: intent.CheckHTTP, Path: "/healthz", Every: intent.Second, Timeout: 2 * intent.Second, Grace: 3 * intent.Second, Failures: 4, Live: &no},
			{Type: intent.CheckSmoke, Command: []string{"x"}},
			{Type: intent.CheckExec, Command: []string{"ping", "me"}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	s := time.Second
	want := Policy{
		Limit: 3, Window: time.Minute, BackoffMax: 5 * s, Stable: DefaultStable, Settle: DefaultSettle,
		Stop: StopRule{Signal: syscall.SIGINT, Grace: 2 * s},
		Checks: []CheckPolicy{
			{Name: "http /healthz", Every: s, Timeout: 2 * s, Grace: 3 * s, Failures: 4},
			{Name: "exec ping me", Every: 5 * s, Timeout: s, Grace: 10 * s, Failures: 3, Live: true},
		},
	}
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("got\n%+v\nwant\n%+v", got, want)
	}
}

func TestPolicyOfRefusesUnknownSignals(t *testing.T) {
	for _, name := range []string{"SIGSTOP", "9", "SIG", "SIGSIGTERM"} {
		if _, err := PolicyOf(intent.App{Name: "web", Stop: intent.Stop{Signal: name}}); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{"SIGKILL", "KILL", "kill"} {
		if sig, err := ParseSignal(name); err != nil || sig != syscall.SIGKILL {
			t.Errorf("%q: %v, %v", name, sig, err)
		}
	}
}

func TestDescribe(t *testing.T) {
	for _, c := range []struct {
		exit Exit
		want string
	}{
		{Exit{Known: true, Code: 3, Ran: 1500 * time.Microsecond}, "exited with code 3 after 2ms"},
		{Exit{Known: true, Signal: syscall.SIGSEGV, Ran: 90*time.Second + 400*time.Millisecond}, "ended by SIGSEGV after 1m30s"},
		{Exit{Known: true, Signal: 40, Ran: time.Second}, "ended by signal 40 after 1s"},
		{Exit{Ran: time.Second}, "ended after 1s, how is not known"},
	} {
		if got := describe(c.exit); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}

func TestCopyID(t *testing.T) {
	for _, bad := range []string{"", "web", "web/", "/1", "web/-1", "web/x", "web/1/2"} {
		if id, err := ParseCopyID(bad); err == nil {
			t.Errorf("%q read as %v", bad, id)
		}
	}
	if id, err := ParseCopyID("web/12"); err != nil || id != (CopyID{App: "web", N: 12}) {
		t.Errorf("%v, %v", id, err)
	}
}
