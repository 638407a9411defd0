package workload

import (
	"reflect"
	"testing"

	"pgregory.net/rapid"
)

func TestPlan(t *testing.T) {
	web := func(n int) CopyID { return CopyID{App: "web", N: n} }
	desired := []Desired{
		{ID: web(3), Version: "v2", Generation: 5},
		{ID: web(0), Version: "v2", Generation: 5},
		{ID: web(1), Version: "v2", Generation: 5},
		{ID: web(2), Version: "v2", Generation: 5, Stopped: true},
		{ID: web(4), Version: "v2", Generation: 6},
	}
	observed := []Observed{
		{ID: web(1), Version: "v1", Generation: 4, Pid: 11},
		{ID: web(2), Version: "v2", Generation: 5, Pid: 12},
		{ID: web(3), Version: "v1", Generation: 4, Pid: 13},
		{ID: web(3), Version: "v2", Generation: 5, Pid: 14},
		{ID: web(4), Version: "v2", Generation: 5, Pid: 15},
		{ID: CopyID{App: "old", N: 0}, Version: "v1", Generation: 1, Pid: 9},
	}
	want := []Op{
		{Kind: OpStop, ID: CopyID{App: "old", N: 0}, Pid: 9, Why: "no longer placed on this host"},
		{Kind: OpStart, ID: web(0), Why: "not running"},
		{Kind: OpReplace, ID: web(1), Pid: 11, Why: "runs version v1, not v2"},
		{Kind: OpStop, ID: web(2), Pid: 12, Why: "asked to stop"},
		{Kind: OpStop, ID: web(3), Pid: 13, Why: "a second one of this copy"},
		{Kind: OpKeep, ID: web(3), Pid: 14},
		{Kind: OpReplace, ID: web(4), Pid: 15, Why: "placed or asked to restart since"},
	}
	if got := Plan(desired, observed); !reflect.DeepEqual(got, want) {
		t.Fatalf("got\n%+v\nwant\n%+v", got, want)
	}
}

// Carrying a plan out leads to what is desired, touches each running copy at
// most once, and a plan made then keeps everything.
func TestPlanReachesTheDesired(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		id := rapid.Custom(func(t *rapid.T) CopyID {
			return CopyID{App: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "app"), N: rapid.IntRange(0, 3).Draw(t, "n")}
		})
		generation := rapid.Uint64Range(1, 3)
		desired := rapid.SliceOfNDistinct(rapid.Custom(func(t *rapid.T) Desired {
			return Desired{ID: id.Draw(t, "id"), Version: "v", Generation: generation.Draw(t, "g"), Stopped: rapid.Bool().Draw(t, "stopped")}
		}), 0, 8, func(d Desired) CopyID { return d.ID }).Draw(t, "desired")
		observed := rapid.SliceOfNDistinct(rapid.Custom(func(t *rapid.T) Observed {
			return Observed{ID: id.Draw(t, "id"), Version: "v", Generation: generation.Draw(t, "g"), Pid: rapid.IntRange(1, 99).Draw(t, "pid")}
		}), 0, 12, func(o Observed) int { return o.Pid }).Draw(t, "observed")

		after := carryOut(t, Plan(desired, observed), desired, observed)
		running := 0
		for _, d := range desired {
			if !d.Stopped {
				running++
			}
		}
		if len(after) != running {
			t.Fatalf("%d run, want %d", len(after), running)
		}
		for _, op := range Plan(desired, after) {
			if op.Kind != OpKeep {
				t.Fatalf("not settled: %+v", op)
			}
		}
	})
}

func carryOut(t *rapid.T, ops []Op, desired []Desired, observed []Observed) (after []Observed) {
	byPid, touched := map[int]Observed{}, map[int]bool{}
	for _, o := range observed {
		byPid[o.Pid] = o
	}
	next := 1000
	for _, op := range ops {
		if op.Pid != 0 {
			if touched[op.Pid] || byPid[op.Pid].ID != op.ID {
				t.Fatalf("%+v: touched twice or not of this copy", op)
			}
			touched[op.Pid] = true
		}
		switch op.Kind {
		case OpKeep:
			after = append(after, byPid[op.Pid])
		case OpStart, OpReplace:
			for _, d := range desired {
				if d.ID == op.ID {
					next++
					after = append(after, Observed{ID: d.ID, Version: d.Version, Generation: d.Generation, Pid: next})
				}
			}
		}
	}
	if len(touched) != len(byPid) {
		t.Fatalf("%d of %d running copies are in the plan", len(touched), len(byPid))
	}
	return after
}
