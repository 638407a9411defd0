package virtual

import (
	"encoding/json"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/events"
	"github.com/ganglion-mesh/ganglion/workload"
)

// TestHourOfCrashLoop: an app whose program ends as soon as it runs costs at most 70
// restarts an hour, is still tried at the end of it, and is told about once a minute;
// its neighbours are not touched.
func TestHourOfCrashLoop(t *testing.T) {
	Run(t, Config{Hosts: 1, Seed: 5}, func(t *testing.T, m *Mesh) {
		m.Found()
		m.Apply(App("loop", 1), App("well", 3))
		m.AwaitReady(time.Minute, "loop", 1)
		m.AwaitReady(time.Minute, "well", 3)
		before := m.History()
		begun := time.Now()
		h := m.Hosts[0]
		for time.Since(begun) < time.Hour {
			h.Kernel().Exit(workload.CopyID{App: "loop"}, 1)
			Sleep(100 * time.Millisecond)
		}
		kinds := map[string]int{}
		err := h.Stream(t.Context(), "/v1/local/events", url.Values{"since": {"24h"}, "filter": {"app.>"}}, func(line []byte) bool {
			var e events.Event
			if err := json.Unmarshal(line, &e); err != nil {
				t.Fatal(err)
			}
			if e.Time.After(begun) {
				kinds[e.Kind()+" "+e.Subject]++
			}
			return true
		})
		if err != nil {
			t.Fatal(err)
		}
		const most = 70
		after := m.History()
		began := begunFor(after, "loop", before.Now)
		t.Logf("%d restarts; told: %v", len(began), kinds)
		if len(began) > most || len(began) < most/2 || after.Now-began[len(began)-1].From > 90*time.Second {
			t.Errorf("%d restarts, the last %s before the end", len(began), after.Now-began[len(began)-1].From)
		}
		for kind, n := range kinds { // an end and a restart a minute, and a person is called for each ten
			if !strings.HasSuffix(kind, " app/loop/0") || n > most {
				t.Errorf("told %d times: %s", n, kind)
			}
		}
		if n := kinds["app.needs_human app/loop/0"]; n < 5 || n > 7 {
			t.Errorf("a person is called for %d times", n)
		}
		if touched := begunFor(after, "well", before.Now); len(touched) > 0 || len(after.Running("well")) != 3 {
			t.Errorf("neighbours that began again: %v", touched)
		}
	})
}
