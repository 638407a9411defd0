package copies

import (
	"encoding/json"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/packages"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/workload/workloadtest"
)

// What a one-shot came to while no agent ran is told once, and what succeeded is
// not run again.
func TestEndsWithoutAnAgentAreLearnt(t *testing.T) {
	job := copyOf("job", 0)
	for name, c := range map[string]struct {
		end    func(h *workloadtest.Host)
		starts int
		done   uint64
		told   string
	}{
		"success": {func(h *workloadtest.Host) { h.Exit(job, 0) }, 1, 7, `"code":0`},
		"failure": {func(h *workloadtest.Host) { h.Exit(job, 3) }, 2, 0, `"code":3`},
		"signal":  {func(h *workloadtest.Host) { h.Kill(job, syscall.SIGSEGV) }, 2, 0, `"signal":"SIGSEGV"`},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				r.set(assign("job", 0, 7, once))
				r.kill()
				c.end(r.host)
				for range 3 {
					r.boot()
					r.m.Resume(topology.Slice{MeshID: "m", Host: "h1", Assignments: []topology.Assignment{assign("job", 0, 7, once)}})
					synctest.Wait()
					if n := r.startsOf(job); n > c.starts {
						t.Fatalf("%d starts", n)
					}
					r.m.Confirm()
					synctest.Wait()
					if rep := r.report(job); rep.Done != c.done || r.startsOf(job) != c.starts {
						t.Fatalf("%+v, %d starts, want %d", rep, r.startsOf(job), c.starts)
					}
					if left := r.host.Ends(); len(left) > 0 {
						t.Errorf("still kept: %v", left)
					}
					r.kill()
				}
				exits := 0
				for _, e := range r.eventsOf(job) {
					if e.Type == "exited" {
						exits++
						if got, _ := json.Marshal(e.Data); !strings.Contains(string(got), c.told) {
							t.Errorf("told %s, want %s", got, c.told)
						}
					}
				}
				if exits != 1 {
					t.Errorf("told %v: want one exit", r.told(job))
				}
				r.boot()
				r.set()
			})
		})
	}
}

// A one-shot that the mesh has dropped meanwhile is forgotten, but not before
// that is certain; one whose package went away is told when it is back.
func TestEndsOfWhatIsNotWantedAreForgotten(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		job, fetched := copyOf("job", 0), copyOf("fetched", 0)
		r.stock("sha256:a", packages.State{Ready: true, Dir: "/a"})
		both := []topology.Assignment{assign("job", 0, 7, once), assign("fetched", 0, 7, once, artifact("sha256:a"))}
		r.set(both...)
		r.kill()
		r.host.Exit(job, 0)
		r.host.Exit(fetched, 0)
		r.boot()
		r.m.Resume(topology.Slice{MeshID: "m", Host: "h1"})
		synctest.Wait()
		if left := r.host.Ends(); len(left) != 2 {
			t.Fatalf("kept %v: want both, before anything is certain", left)
		}
		r.stock("sha256:a", packages.State{Why: "on its way"})
		r.m.Confirm()
		r.set(both[1])
		if left := r.host.Ends(); len(left) != 1 || left[0] != fetched {
			t.Fatalf("kept %v, want %s", left, fetched)
		}
		r.stock("sha256:a", packages.State{Ready: true, Dir: "/a"})
		if rep := r.report(fetched); rep.Done != 7 || r.startsOf(fetched) != 1 || len(r.host.Ends()) != 0 {
			t.Errorf("%+v, %d starts, kept %v", rep, r.startsOf(fetched), r.host.Ends())
		}
	})
}

// However often the agent dies, and whenever the job ends, every try is counted
// once and a success is the last.
func TestEndsAreCountedOnce(t *testing.T) {
	for seed := range uint64(60) {
		bubble(t, func(t *testing.T, r *rig) {
			rnd := rand.New(rand.NewPCG(seed, 7))
			job := copyOf("job", 0)
			fails := rnd.IntN(4)
			r.set(assign("job", 0, 7, once))
			for range 60 {
				synctest.Wait()
				switch rnd.IntN(3) {
				case 0:
					if n := r.startsOf(job); n <= fails {
						r.host.Exit(job, 1)
					} else {
						r.host.Exit(job, 0)
					}
				case 1:
					r.kill()
					if rnd.IntN(2) == 0 {
						r.host.Exit(job, min(1, max(0, fails+1-r.startsOf(job))))
					}
					r.boot()
					r.set(assign("job", 0, 7, once))
				default:
					pass(time.Duration(rnd.Int64N(int64(10 * time.Second))))
				}
			}
			exits := 0
			for _, what := range r.told(job) {
				if what == "exited" {
					exits++
				}
			}
			if n := r.startsOf(job); n != fails+1 || exits != fails+1 || r.report(job).Done != 7 || len(r.host.Ends()) > 0 {
				t.Errorf("seed %d: %d failures: %d starts, %d exits told, %+v, kept %v", seed, fails, n, exits, r.report(job), r.host.Ends())
			}
			r.set()
		})
	}
}
