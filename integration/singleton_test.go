package integration

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/integration/rig"
)

const (
	singletons = 8   // a mesh
	meshes     = 2   // in parallel
	pairsEach  = 100 // of faults, a mesh, as far as patience lets
	fewest     = 8   // below, a mesh has shown nothing

	patience = 100 * time.Second
	// busy is how late the watch may be until the machine is too busy with other
	// tests to tell how long a failover takes. That nothing runs twice is checked
	// all the same.
	busy = 100 * time.Millisecond
)

// shortLease are lease timers that make failovers quick.
var shortLease = topology.Timers{Hold: time.Second, Kill: 300 * time.Millisecond, Grace: 2 * time.Second}

func (w witness) appName(i int) string { return fmt.Sprintf("one%d", i) }

// singletons declares apps each of which holds a lock on its own file for as long
// as it runs, and writes its token down. Who does not get the lock writes so.
func (w witness) singletons(n int) string {
	var b strings.Builder
	for i := range n {
		script := fmt.Sprintf(`umask 0; exec 9>>%[1]s/$GANGLION_APP.lock; flock -n 9 || echo "$GANGLION_APP on $GANGLION_HOST, token $GANGLION_TOKEN" >>%[1]s/doubled; echo "$GANGLION_TOKEN $GANGLION_HOST $GANGLION_START" >>%[1]s/$GANGLION_APP.tokens; exec sleep 100000`, w.dir)
		fmt.Fprintf(&b, "app %q {\n  singleton = true\n  run {\n    command = [\"/bin/sh\", \"-c\", %q]\n  }\n}\n", w.appName(i), script)
	}
	return b.String()
}

// tenure is one start of a singleton.
type tenure struct {
	token uint64
	host  string
	start int
}

// tenures reads what the copies of an app have written.
func (w witness) tenures(t *testing.T, app string) (list []tenure) {
	f, err := os.Open(filepath.Join(w.dir, app+".tokens"))
	if err != nil {
		return nil
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var x tenure
		if n, _ := fmt.Sscan(lines.Text(), &x.token, &x.host, &x.start); n != 3 {
			t.Errorf("%s wrote %q", app, lines.Text())
			continue
		}
		list = append(list, x)
	}
	return list
}

// checkTokens holds that tokens rise from grant to grant, and that each is of one
// host; it returns how often the app changed hands.
func (w witness) checkTokens(t *testing.T, app string) (changes int) {
	list := w.tenures(t, app)
	for i := 1; i < len(list); i++ {
		a, b := list[i-1], list[i]
		if b.token < a.token || b.token == a.token && b.host != a.host {
			t.Errorf("%s: %+v after %+v", app, b, a)
		}
		if b.host != a.host {
			changes++
		}
	}
	return changes
}

// owners watches which locks are held, without touching them.
type owners struct {
	dir   string
	mu    sync.Mutex
	late  time.Duration        // the worst that a tick was late since asked: how busy this machine is
	since map[string]time.Time // when an app was last left without an owner; zero: it has one
	gaps  map[string][]span    // that are over
	done  chan struct{}
	ended sync.WaitGroup
}

type span struct{ from, to time.Time }

func watchOwners(w witness, n int) *owners {
	o := &owners{dir: w.dir, since: map[string]time.Time{}, gaps: map[string][]span{}, done: make(chan struct{})}
	for i := range n {
		o.since[w.appName(i)] = time.Now()
	}
	o.ended.Go(func() {
		tick := time.NewTicker(lookEvery)
		defer tick.Stop()
		for last := time.Now(); ; last = time.Now() {
			select {
			case <-o.done:
				return
			case <-tick.C:
				o.look(time.Since(last) - lookEvery)
			}
		}
	})
	return o
}

const lookEvery = 50 * time.Millisecond

// lateness returns how late the watch was at worst since the last call.
func (o *owners) lateness() time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	defer func() { o.late = 0 }()
	return o.late
}

func (o *owners) stop() {
	close(o.done)
	o.ended.Wait()
}

// look reads the kernel's list of locks.
func (o *owners) look(late time.Duration) {
	b, err := os.ReadFile("/proc/locks")
	if err != nil {
		return
	}
	held, now := string(b), time.Now()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.late = max(o.late, late)
	for app, since := range o.since {
		var st syscall.Stat_t
		owned := syscall.Stat(filepath.Join(o.dir, app+".lock"), &st) == nil && strings.Contains(held, fmt.Sprintf(":%d 0 EOF", st.Ino))
		switch {
		case owned && !since.IsZero():
			o.gaps[app] = append(o.gaps[app], span{since, now})
			o.since[app] = time.Time{}
		case !owned && since.IsZero():
			o.since[app] = now
		}
	}
}

// ownerless lists the apps that have no owner.
func (o *owners) ownerless() (list []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for app, since := range o.since {
		if !since.IsZero() {
			list = append(list, app)
		}
	}
	slices.Sort(list)
	return list
}

// longest is the longest gap that reaches into the time after from, counted from
// since at the earliest.
func (o *owners) longest(from, since time.Time) (longest time.Duration, app string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for name, gaps := range o.gaps {
		for _, g := range gaps {
			if g.to.Before(from) {
				continue
			}
			begun := g.from
			if begun.Before(since) {
				begun = since
			}
			if d := g.to.Sub(begun); d > longest {
				longest, app = d, name
			}
		}
	}
	return longest, app
}

// Eight singletons on each of two meshes, under up to 200 pairs of faults, as many
// as there is time for: no lock is ever asked for while another copy holds it,
// tokens rise, and each singleton is back within the window that its timers give
// (S4). make soak gives it more time, and the timers that meshes have.
func TestSingletonsUnderFaults(t *testing.T) {
	t.Parallel()
	timers, rounds, end := shortLease, pairsEach, time.Now().Add(patience)
	if soak := os.Getenv("GANGLION_TEST_SOAK"); soak != "" {
		d, err := time.ParseDuration(soak)
		if err != nil {
			t.Fatal(err)
		}
		timers, rounds, end = topology.DefaultTimers(), 1<<20, time.Now().Add(d)
	}
	// Not as parallel tests, of which no more run at a time than there are cores.
	var all sync.WaitGroup
	for i := range meshes {
		all.Go(func() {
			t.Run(fmt.Sprintf("mesh%d", i), func(t *testing.T) { torment(t, uint64(i), timers, rounds, end) })
		})
	}
	all.Wait()
}

func torment(t *testing.T, seed uint64, timers topology.Timers, rounds int, end time.Time) {
	r := rig.New(t, 5)
	r.Env = []string{fmt.Sprintf("GANGLION_TEST_LEASE=%s,%s,%s", timers.Hold, timers.Kill, timers.Grace)}
	r.Start()
	awaitVoters(t, r, 3)
	w := newWitness(t)
	h := r.Hosts[0]
	h.Must("apply", "--detach", h.File("one.hcl", w.singletons(singletons)))
	o := watchOwners(w, singletons)
	defer o.stop()
	owned := func() error {
		if list := o.ownerless(); len(list) > 0 {
			return fmt.Errorf("without an owner: %v", list)
		}
		return nil
	}
	rig.Await(t, 2*time.Minute, owned)
	n := newNemesis(t, r, seed, timers.Hold)
	window, lost := timers.Window(), topology.LeaderWindow
	worst := map[string]time.Duration{}
	round, judged := 0, 0
	for ; round < rounds && (round < fewest || time.Now().Before(end)); round++ {
		o.lateness()
		list := w.tenures(t, w.appName(n.rnd.IntN(singletons)))
		holder := r.Hosts[0]
		for _, x := range r.Hosts {
			if x.Name == list[len(list)-1].host {
				holder = x
			}
		}
		begun := time.Now()
		b := n.strike(round, holder)
		if w.check(t); t.Failed() {
			t.Fatalf("round %d: %s", round, b.what)
		}
		rig.Await(t, 2*time.Minute, owned)
		limit, class := window, "one host lost"
		if b.leader {
			limit, class = limit+lost, "the leader lost"
		}
		if !b.whole {
			limit, class = window+lost, "all hosts back"
		}
		gap, app := o.longest(begun, b.since)
		late := o.lateness()
		if late > busy {
			continue
		}
		judged++
		worst[class] = max(worst[class], gap)
		if gap > limit+10*late { // at each of many steps
			t.Errorf("round %d: %s: %s had no owner for %s, want at most %s", round, b.what, app, gap, limit)
		}
	}
	changes := 0
	for i := range singletons {
		changes += w.checkTokens(t, w.appName(i))
	}
	t.Logf("%d pairs of faults, %d changes of owner; in the %d while this machine was not too busy, longest without one: %v", round, changes, judged, worst)
	if changes < round/4 {
		t.Errorf("the faults did not bite: %d changes of owner in %d rounds", changes, round)
	}
}

// A keeper that is killed takes its copy along, and the host starts another.
func TestKilledKeeperTakesItsCopyAlong(t *testing.T) {
	t.Parallel()
	r := rig.New(t, 1)
	h := r.Hosts[0]
	h.StartAgent()
	h.Must("init")
	w := newWitness(t)
	h.Must("apply", h.File("one.hcl", w.singletons(1)))
	for range 2 { // more would be a crash loop, with its back-off
		st, _ := awaitReady(t, h, w.appName(0), 1, 30*time.Second)
		pid := st.Copies[0].Pid
		keeper := parentOf(t, pid)
		if cmd, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", keeper)); !strings.Contains(string(cmd), "keeper") {
			t.Fatalf("the parent of copy %d is %q", pid, cmd)
		}
		if err := syscall.Kill(keeper, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		rig.Await(t, 5*time.Second, func() error {
			if alive(pid) {
				return fmt.Errorf("copy %d outlives its keeper", pid)
			}
			return nil
		})
		rig.Await(t, 30*time.Second, func() error {
			st, err := status(h, w.appName(0))
			if err == nil && (st.Ready != 1 || st.Copies[0].Pid == pid) {
				err = fmt.Errorf("not back: %+v", st)
			}
			return err
		})
	}
	w.check(t)
	w.checkTokens(t, w.appName(0))
	if st, _ := status(h, w.appName(0)); st.Copies[0].Token == 0 || st.Copies[0].Token != w.tenures(t, w.appName(0))[0].token {
		t.Errorf("restarts changed the token: %+v, began with %+v", st.Copies, w.tenures(t, w.appName(0))[0])
	}
}

func parentOf(t *testing.T, pid int) (parent int) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	rest := string(b[strings.LastIndexByte(string(b), ')')+1:])
	var state string
	if _, err := fmt.Sscan(rest, &state, &parent); err != nil {
		t.Fatal(err)
	}
	return parent
}
