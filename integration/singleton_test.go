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

	"github.com/ganglion-mesh/ganglion/integration/rig"
)

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
		for {
			select {
			case <-o.done:
				return
			case <-tick.C:
				o.look()
			}
		}
	})
	return o
}

const lookEvery = 50 * time.Millisecond

func (o *owners) stop() {
	close(o.done)
	o.ended.Wait()
}

// look reads the kernel's list of locks.
func (o *owners) look() {
	b, err := os.ReadFile("/proc/locks")
	if err != nil {
		return
	}
	held, now := string(b), time.Now()
	o.mu.Lock()
	defer o.mu.Unlock()
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

// owned tells which apps have no owner.
func (o *owners) owned() error {
	if list := o.ownerless(); len(list) > 0 {
		return fmt.Errorf("without an owner: %v", list)
	}
	return nil
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
