package topology

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/ganglion-mesh/ganglion/intent"
)

// need is what a copy asks of a host.
type need struct {
	app     *appPlan
	key     CopyKey
	spec    intent.App     // of the version to run
	keep    map[string]int // ports it has, to be kept where they can
	ports   []string       // names of the spec's ports, in order
	statics int            // how many of them are static
	moving  bool           // where it runs it stops first
	tried   []string       // hosts where it kept failing
}

func (a *appPlan) need(key CopyKey, version string, keep map[string]int) *need {
	n := &need{app: a, key: key, spec: a.Versions[version], keep: keep}
	n.ports = sortedKeys(n.spec.Ports)
	for _, name := range n.ports {
		if n.spec.Ports[name].Static != 0 {
			n.statics++
		}
	}
	return n
}

// filter is one reason why a host cannot have a copy. Check decides and Explain
// says why not, in words that follow "2 of 3 hosts ".
type filter struct {
	check   func(*need, *room) bool
	explain func(*need, *room) string
}

// hostFilters judge the host, roomFilters what is left of it. They are in the
// order in which a user would ask, and constant.
var hostFilters = []filter{
	{
		check:   func(_ *need, r *room) bool { return r.obs.Alive },
		explain: func(*need, *room) string { return "down" },
	}, {
		check:   func(_ *need, r *room) bool { return r.fresh && !r.obs.Suspect },
		explain: func(*need, *room) string { return "not heard from in time" },
	}, {
		check:   func(_ *need, r *room) bool { return r.Drain == DrainNone },
		explain: func(_ *need, r *room) string { return "being emptied (drain)" },
	}, {
		check:   (*need).mayHave,
		explain: func(n *need, r *room) string { return n.leaseRefuses(r) },
	}, {
		check:   func(n *need, r *room) bool { return !slices.Contains(n.tried, r.Name) },
		explain: func(*need, *room) string { return "where it kept failing" },
	}, {
		check:   func(n *need, r *room) bool { return n.app.fit(r).refused == "" },
		explain: func(n *need, r *room) string { return "refused by " + n.app.fit(r).refused },
	},
}

var roomFilters = []filter{
	{
		check:   func(n *need, r *room) bool { return n.spec.Run.User == "" || r.obs.CanUser },
		explain: func(n *need, _ *room) string { return "unable to run copies as user " + strconv.Quote(n.spec.Run.User) },
	}, {
		check:   func(n *need, r *room) bool { return r.staticTaken(n) == "" },
		explain: func(n *need, r *room) string { return r.staticTaken(n) },
	}, {
		check: func(n *need, r *room) bool { return n.spec.Resources.CPU <= r.freeCPU() },
		explain: func(n *need, r *room) string {
			return fmt.Sprintf("without enough CPU (needs %s, %s free)", cores(n.spec.Resources.CPU), cores(max(0, r.freeCPU())))
		},
	}, {
		check: func(n *need, r *room) bool {
			return n.spec.Resources.Memory == 0 || int64(n.spec.Resources.Memory) <= r.freeFor(n.key)
		},
		explain: func(n *need, r *room) string {
			return fmt.Sprintf("without enough memory (needs %s, %s free)", size(int64(n.spec.Resources.Memory)), size(r.freeFor(n.key)))
		},
	}, {
		check:   func(n *need, r *room) bool { return r.canAssign(n) },
		explain: func(*need, *room) string { return "without enough free ports" },
	},
}

// refuses returns why a room cannot have the copy, or "".
func (r *room) refuses(n *need) string {
	for _, list := range [][]filter{hostFilters, roomFilters} {
		for i := range list {
			if !list[i].check(n, r) {
				return list[i].explain(n, r)
			}
		}
	}
	return ""
}

// accepts is refuses without the words.
func (r *room) accepts(n *need) bool {
	for i := range hostFilters {
		if !hostFilters[i].check(n, r) {
			return false
		}
	}
	return r.holds(n)
}

// holds reports whether there is room for the copy, whatever the host's state.
func (r *room) holds(n *need) bool {
	for i := range roomFilters {
		if !roomFilters[i].check(n, r) {
			return false
		}
	}
	return true
}

// slack is how much of a core rounding may take: sums of 0.1 are not exact.
const slack = 1e-9

func (r *room) freeCPU() float64 { return r.obs.CPU - r.cpu + slack }

func (r *room) freeMemory() int64 { return max(0, r.obs.Memory-r.memory-r.keptMemory) }

// freeFor is freeMemory with what the copy itself may still have here.
func (r *room) freeFor(key CopyKey) int64 {
	own := int64(0)
	if m := r.kept[key]; m != nil {
		own = m.Memory
	}
	return max(0, r.obs.Memory-r.memory-r.keptMemory+own)
}

func (r *room) staticTaken(n *need) string {
	if n.statics == 0 {
		return ""
	}
	for _, name := range n.ports {
		port := n.spec.Ports[name].Static
		if port == 0 {
			continue
		}
		if by, ok := r.ports[port]; ok {
			return fmt.Sprintf("with port %d taken by %s", port, by)
		}
		if by, ok := r.keeps(port, n.key); ok {
			return fmt.Sprintf("with port %d until %s has ended there", port, by)
		}
		if r.reportedTaken(port) {
			return fmt.Sprintf("with port %d taken by something else", port)
		}
	}
	return ""
}

// refusal sums up why no host can have the copy: "no host will do: 2 of 3
// refused by zone != 'c'; 1 down".
func (p *planner) refusal(n *need) string {
	if len(p.rooms) == 0 {
		return "the mesh has no hosts"
	}
	var order []string
	times := map[string]int{}
	for _, r := range p.rooms {
		why := r.refuses(n)
		if times[why] == 0 {
			order = append(order, why)
		}
		times[why]++
	}
	const most = 8 // reasons told
	var b strings.Builder
	fmt.Fprintf(&b, "no host will do: of %d, ", len(p.rooms))
	for i, why := range order {
		if i == most {
			fmt.Fprintf(&b, "; and %d more reasons", len(order)-most)
			break
		}
		if i > 0 {
			b.WriteString("; ")
		}
		fmt.Fprintf(&b, "%d %s", times[why], why)
	}
	return b.String()
}

func cores(n float64) string { return strconv.FormatFloat(n, 'f', -1, 64) }

// size prints bytes for people, rounded down.
func size(n int64) string {
	for _, u := range []struct {
		size int64
		name string
	}{{1 << 30, "GiB"}, {1 << 20, "MiB"}, {1 << 10, "KiB"}} {
		if n >= u.size && (n%u.size == 0 || n >= 10*u.size) {
			return strconv.FormatInt(n/u.size, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10) + "B"
}
