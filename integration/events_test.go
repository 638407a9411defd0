package integration

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/integration/rig"
)

// story is the sequence numbers of each host, sorted and each once, as someone
// heard them.
type story map[string][]uint64

func (s story) add(t *testing.T, line []byte) {
	var e struct {
		Source string `json:"source"`
		Seq    uint64 `json:"seq"`
	}
	if err := json.Unmarshal(line, &e); err != nil {
		t.Fatalf("event %q: %v", line, err)
	}
	s[e.Source] = append(s[e.Source], e.Seq)
}

func (s story) tidy() story {
	for host, seqs := range s {
		slices.Sort(seqs)
		s[host] = slices.Compact(seqs)
	}
	return s
}

// recorded is the story as the recorders of all hosts tell it.
func recorded(t *testing.T, h *rig.Host) story {
	t.Helper()
	out := story{}
	for line := range strings.Lines(h.Must("events", "--since", "1h", "-o", "json")) {
		out.add(t, []byte(line))
	}
	return out.tidy()
}

// heard is the story as a subscriber has written it down.
func heard(t *testing.T, path string) story {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	out := story{}
	sc := bufio.NewScanner(f)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		if strings.HasPrefix(sc.Text(), "{") {
			out.add(t, sc.Bytes())
		}
	}
	return out.tidy()
}

// missing tells what of all is not in s.
func (s story) missing(all story) error {
	for host, seqs := range all {
		for _, seq := range seqs {
			if _, ok := slices.BinarySearch(s[host], seq); !ok {
				return fmt.Errorf("event %d of %s was not heard (%d of %d were)", seq, host, len(s[host]), len(seqs))
			}
		}
	}
	return nil
}

func (s story) gapless(t *testing.T) {
	t.Helper()
	for host, seqs := range s {
		if seqs[0] != 1 || seqs[len(seqs)-1] != uint64(len(seqs)) {
			t.Errorf("%s: %d events from %d to %d: some are missing", host, len(seqs), seqs[0], seqs[len(seqs)-1])
		}
	}
}

// startHelper runs this test binary as one of its helpers on a host.
func startHelper(t *testing.T, h *rig.Host, name, log, addr string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return h.Start([]string{"GANGLION_TEST_HELPER=" + name, "GANGLION_TEST_ADDR=" + addr}, log, self)
}

// NATS is gone for a minute while things happen: afterwards the recorders and a
// subscriber that was there before have every event, and no workload noticed.
func TestNATSStoppedForAMinute(t *testing.T) {
	t.Parallel()
	r := rig.New(t, 3)
	h := r.Hosts[0]
	url := "nats://" + h.Addr + ":4333"
	server := startHelper(t, h, "nats", "nats.log", h.Addr)
	startHelper(t, h, "subscribe", "heard.log", url)
	r.Start("--nats", url)
	log := filepath.Join(h.Dir, "heard.log")
	h.Must("apply", h.File("web.hcl", sleepers("web", 6)))
	before, _ := awaitReady(t, h, "web", 6, 20*time.Second)
	rig.Await(t, 60*time.Second, func() error { return heard(t, log).missing(recorded(t, h)) })

	server.Process.Kill()
	server.Wait()
	gone := time.Now()
	h.Must("apply", h.File("more.hcl", sleepers("more", 3)))
	killed := before.Copies[0]
	if err := syscall.Kill(killed.Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	awaitReady(t, h, "web", 6, 20*time.Second)
	r.Hosts[1].Kill() // an agent restarts meanwhile
	r.Hosts[1].StartAgent("--nats", url)
	h.Must("delete", "more", "--yes")
	time.Sleep(time.Until(gone.Add(time.Minute))) // the minute that is promised

	startHelper(t, h, "nats", "nats.log", h.Addr)
	rig.Await(t, 90*time.Second, func() error { return heard(t, log).missing(recorded(t, h)) })
	recorded(t, h).gapless(t)
	heard(t, log).gapless(t)
	after, _ := awaitReady(t, h, "web", 6, 20*time.Second)
	for i, c := range before.Copies {
		if a := after.Copies[i]; a.ID != killed.ID && (a.Pid != c.Pid || a.Host != c.Host) {
			t.Errorf("copy %s noticed: pid %d on %s, then %d on %s", c.ID, c.Pid, c.Host, a.Pid, a.Host)
		}
	}
}

// A subscriber of the embedded servers hears what ganglion events tells.
func TestAnyNATSClientHearsTheStory(t *testing.T) {
	t.Parallel()
	r := startMesh(t, 3, 3)
	h := r.Hosts[1]
	startHelper(t, h, "subscribe", "heard.log", "nats://127.0.0.1:4222")
	log := filepath.Join(h.Dir, "heard.log")
	// What is published before anyone subscribed is nobody's; the routes between
	// the servers carry the subscription within moments.
	rig.Await(t, 30*time.Second, func() error {
		if b, _ := os.ReadFile(log); !strings.Contains(string(b), "subscribed") {
			return fmt.Errorf("not subscribed: %s", b)
		}
		return nil
	})
	h.Must("apply", h.File("web.hcl", sleepers("web", 3)))
	rig.Await(t, 60*time.Second, func() error {
		b, _ := os.ReadFile(log)
		for _, want := range []string{"dev.ganglion.intent.applied", "dev.ganglion.app.placed", "dev.ganglion.app.started", "dev.ganglion.app.ready"} {
			if !strings.Contains(string(b), want) {
				return fmt.Errorf("%s was not heard, but this: %.2000s", want, b)
			}
		}
		return nil
	})
}
