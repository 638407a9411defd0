package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/events"
	"github.com/ganglion-mesh/ganglion/intent"
)

func TestReplayIsMergedByTime(t *testing.T) {
	at := time.Now()
	source := func(host string, minutes ...int) *eventSource {
		src := newEventSource(host)
		go func() {
			defer close(src.events)
			for _, m := range minutes {
				src.events <- events.Event{ID: host + strconv.Itoa(m), Time: at.Add(time.Duration(m) * time.Minute)}
			}
		}()
		return src
	}
	var got []string
	all := []*eventSource{source("a", 1, 4, 5), source("b"), source("c", 2, 3, 9)}
	if !mergeEvents(all, func(e events.Event) bool { got = append(got, e.ID); return true }) {
		t.Error("cut short")
	}
	if want := []string{"a1", "c2", "c3", "a4", "a5", "c9"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// TestReplayTellsWhoBroke: what is missing behind the first line is told too.
func TestReplayTellsWhoBroke(t *testing.T) {
	broken := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		newLines(w)
		panic(http.ErrAbortHandler)
	}))
	defer broken.Close()
	src := newEventSource("h1")
	go src.read(t.Context(), api.New(broken.URL, http.DefaultTransport, "h1"), nil)
	if !<-src.open {
		t.Fatal("not opened")
	}
	if _, ok := <-src.events; ok || !src.broken {
		t.Errorf("broken: %v", src.broken)
	}
	gone := newEventSource("h2")
	broken.Close()
	go gone.read(t.Context(), api.New(broken.URL, http.DefaultTransport, "h2"), nil)
	if <-gone.open {
		t.Error("a host that cannot be reached answers")
	}
}

// follow collects the marks that h tells until the test ends.
func (h *host) follow(t *testing.T, q url.Values) <-chan int64 {
	t.Helper()
	marks := make(chan int64, 10_000)
	go h.Stream(t.Context(), "/v1/events", q, func(line []byte) bool {
		var e struct {
			Data events.HostDrained `json:"data"`
		}
		if json.Unmarshal(line, &e) == nil {
			marks <- e.Data.TookMS
		}
		return true
	})
	return marks
}

func (h *host) mark(n int64) {
	h.agent.server.Load().emit(events.New(events.HostSubject("h2"), events.HostDrained{TookMS: n}))
}

func TestFollowerMissesNothingInABreak(t *testing.T) {
	hosts := startMesh(t, 2)
	marks := hosts[0].follow(t, url.Values{"follow": {"true"}, "filter": {"host.h2.drained"}})
	n, seen := int64(0), int64(0)
	next := func() error {
		select {
		case got := <-marks:
			if seen != 0 && got != seen+1 {
				t.Fatalf("mark %d follows %d", got, seen)
			}
			seen = got
		default:
		}
		if seen == 0 || seen < n {
			return fmt.Errorf("%d of %d", seen, n)
		}
		return nil
	}
	await(t, 10*time.Second, "following", func() error {
		n++
		hosts[1].mark(n)
		if next(); seen == 0 {
			return errors.New("nothing comes")
		}
		return nil
	})
	await(t, 10*time.Second, "all marks", next)
	for range 2 {
		hosts[1].stop(t)
		hosts[1].run(t)
		await(t, 10*time.Second, "up", func() error {
			if hosts[1].agent.server.Load() == nil {
				return errors.New("not yet")
			}
			return nil
		})
		for range 5 {
			n++
			hosts[1].mark(n)
		}
		await(t, 20*time.Second, "all marks", next)
	}
}

// Who follows without saying since when is told what happens from now on.
func TestFollowerIsNotToldThePast(t *testing.T) {
	h := startHost(t, "h2", nil)
	h.init(t)
	const past = 5
	for n := range int64(past) {
		h.mark(n + 1)
	}
	for range 20 {
		marks := h.follow(t, url.Values{"follow": {"true"}, "filter": {"host.h2.drained"}})
		await(t, 10*time.Second, "a mark", func() error {
			h.mark(past + 1)
			select {
			case got := <-marks:
				if got <= past {
					t.Fatalf("mark %d was made before", got)
				}
				return nil
			default:
				return errors.New("nothing comes")
			}
		})
	}
}

// TestStreamTellsWhereItBegins: a follower whose stream breaks before the first
// event goes on from there.
func TestStreamTellsWhereItBegins(t *testing.T) {
	h := startHost(t, "h2", nil)
	h.init(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var begins string
	q := url.Values{"follow": {"true"}, "filter": {"host.h2.drained"}}
	head := func(hd http.Header) { begins = hd.Get(api.HeaderSeq); cancel() }
	h.StreamWithHeader(ctx, "/v1/local/events", q, head, func([]byte) bool { return true })
	h.mark(7) // during the break
	q.Set("after", begins)
	var got []string
	q.Del("follow")
	err := h.Stream(t.Context(), "/v1/local/events", q, func(line []byte) bool { got = append(got, string(line)); return true })
	if err != nil || len(got) != 1 {
		t.Errorf("behind %q: %v, %v", begins, got, err)
	}
	q.Set("after", "999999") // of a recorder that lost its tail
	q.Set("follow", "true")
	sctx, over := context.WithTimeout(t.Context(), 10*time.Second)
	defer over()
	h.StreamWithHeader(sctx, "/v1/local/events", q, func(http.Header) { h.mark(8) }, func([]byte) bool { over(); return false })
	if sctx.Err() == context.DeadlineExceeded {
		t.Error("a follower from beyond the end waits for ever")
	}
}

// TestLeave: the host's word reaches the leader, and its answer comes back.
func TestLeave(t *testing.T) {
	hosts := startMesh(t, 3)
	web := sleeper("web", 3)
	web.Update.HealthyFor = intent.Duration(100 * time.Millisecond)
	hosts[0].apply(t, web)
	hosts[0].awaitReady(t, "web", 3)
	for _, h := range []*host{hosts[2], hosts[0]} { // the second may lead
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		if err := h.Post(ctx, "/v1/leave", nil, nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	st := hosts[1].awaitReady(t, "web", 3)
	for _, c := range st.Copies {
		if c.Host != "h2" {
			t.Errorf("copy %s is on %s", c.ID, c.Host)
		}
	}
}
