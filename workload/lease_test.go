package workload_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/workload"
)

// A copy that would get its stop signal at once is not to be started.
func TestLeaseIsLiveUntilItsFence(t *testing.T) {
	l := workload.Lease{Token: 7, Deadline: 20 * time.Second, Fence: 3 * time.Second}
	for now, live := range map[time.Duration]bool{
		0: true, 17*time.Second - 1: true, 17 * time.Second: false, 20 * time.Second: false, time.Hour: false,
	} {
		if got := l.Live(now); got != live {
			t.Errorf("live at %s: %v, want %v", now, got, live)
		}
	}
	if (workload.Lease{}).Live(0) {
		t.Error("no lease at all is live at boot")
	}
}

// What records of copies hold survives their reading, and copies without a lease
// do not mention one.
func TestLeaseOfASpecSurvivesItsRecord(t *testing.T) {
	with := workload.Spec{ID: workload.CopyID{App: "db"}, Lease: &workload.Lease{Token: 1<<63 + 1, Deadline: 5, Fence: 2, Signal: 15}}
	raw, err := json.Marshal(with)
	if err != nil {
		t.Fatal(err)
	}
	var got workload.Spec
	if err := json.Unmarshal(raw, &got); err != nil {
		t.Fatal(err)
	}
	if got.Lease == nil || *got.Lease != *with.Lease {
		t.Errorf("read back %+v, want %+v", got.Lease, with.Lease)
	}
	var fields map[string]any
	raw, _ = json.Marshal(workload.Spec{})
	if err := json.Unmarshal(raw, &fields); err != nil {
		t.Fatal(err)
	}
	if _, ok := fields["lease"]; ok {
		t.Error("a spec without a lease names one")
	}
}
