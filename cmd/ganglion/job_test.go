package main

import (
	"strings"
	"testing"

	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/intent"
)

// Apply waits for the end of a one-shot, and for a schedule to be taken up.
func TestApplyOfJobs(t *testing.T) {
	for _, tc := range []struct {
		kind  string
		state topology.AppState
		done  bool
		fail  string
	}{
		{intent.KindOnce, topology.AppPending, false, ""},
		{intent.KindOnce, topology.AppRolling, false, ""},
		{intent.KindOnce, topology.AppSteady, true, ""},
		{intent.KindOnce, topology.AppDegraded, false, "job has failed: exit 3"},
		{intent.KindSchedule, topology.AppPending, false, ""},
		{intent.KindSchedule, topology.AppSteady, true, ""},
		{intent.KindSchedule, topology.AppDegraded, true, ""}, // of its last run, perhaps of another version
		{intent.KindSchedule, topology.AppStopped, false, "job is stopped"},
	} {
		st := topology.AppStatus{App: "job", Kind: tc.kind, Version: "v1", State: tc.state, Why: "exit 3"}
		v := appliedApp("v1", st)
		if v.done != tc.done || (v.fail == nil) != (tc.fail == "") || v.fail != nil && !strings.Contains(v.fail.Error(), tc.fail) {
			t.Errorf("%s %s: %+v", tc.kind, tc.state, v)
		}
	}
}

func TestRestartOfJobs(t *testing.T) {
	restart := &acting{verb: "restart"}
	for _, tc := range []struct {
		kind  string
		state topology.AppState
		done  bool
		fails bool
	}{
		{intent.KindOnce, topology.AppPending, false, false},
		{intent.KindOnce, topology.AppRolling, false, false},
		{intent.KindOnce, topology.AppSteady, true, false},
		{intent.KindOnce, topology.AppDegraded, false, true},
		{intent.KindSchedule, topology.AppSteady, true, false},
		{intent.KindSchedule, topology.AppPending, false, false},
	} {
		for _, copy := range []string{"", "0"} { // a job has one copy
			st := topology.AppStatus{App: "job", Kind: tc.kind, Version: "v1", State: tc.state, Why: "exit 3"}
			if v := restart.judge(target{app: "job", copy: copy}, []topology.AppStatus{st}); v.done != tc.done || (v.fail != nil) != tc.fails {
				t.Errorf("%s %s: %+v", tc.kind, tc.state, v)
			}
		}
	}
}

func TestWhatJobsSayOfThemselves(t *testing.T) {
	in := intent.Intents{Apps: []intent.App{{Name: "job", Once: true}}}
	if got := everything(map[string]string{"job": "v1"}, in); got != "job v1 is done" {
		t.Errorf("%q", got)
	}
	in.Apps = append(in.Apps, intent.App{Name: "web"})
	if got := everything(map[string]string{"job": "v1", "web": "v2"}, in); !strings.Contains(got, "or are done") {
		t.Errorf("%q", got)
	}
	if got := appWhy(topology.AppStatus{State: topology.AppSteady, Why: "next due at noon"}); got != "next due at noon" {
		t.Errorf("%q", got)
	}
}
