package agent

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/events"
	"github.com/ganglion-mesh/ganglion/gossip"
)

// eventQuery is what an events request asks for.
type eventQuery struct {
	since   time.Time // zero: only with follow, from now on
	filter  events.Filter
	follow  bool
	after   uint64 // with resumes: a follower that lost its stream goes on behind this seq
	resumes bool
}

func parseEventQuery(q url.Values) (eventQuery, error) {
	var out eventQuery
	var err error
	pattern := q.Get("filter")
	if pattern == "" {
		pattern = ">"
	}
	if out.filter, err = events.CompileFilter(pattern); err != nil {
		return out, api.Errorf(api.CodeInvalid, "%v", err)
	}
	out.follow = q.Get("follow") == "true"
	if s := q.Get("since"); s != "" {
		d, err := time.ParseDuration(s)
		if err != nil || d < 0 {
			return out, api.Errorf(api.CodeInvalid, "since %q: want a duration such as 10m or 24h", shorten(s))
		}
		out.since = time.Now().Add(-d)
	}
	if s := q.Get("after"); s != "" {
		out.resumes = true
		if out.after, err = strconv.ParseUint(s, 10, 64); err != nil {
			return out, api.Errorf(api.CodeInvalid, "after %q: want a number", shorten(s))
		}
	}
	return out, nil
}

// getLocalEvents streams this host's own recorder. HeaderSeq tells behind which
// event it begins, for a follower that breaks before it has seen one.
func (s *server) getLocalEvents(w http.ResponseWriter, r *http.Request) {
	q, err := parseEventQuery(r.URL.Query())
	if err != nil {
		api.WriteError(w, err)
		return
	}
	from := s.recorder.Last() + 1
	switch {
	case q.resumes:
		// Not beyond the end: a recorder that lost its tail counts on from there.
		from = min(q.after+1, from)
	case !q.since.IsZero() || !q.follow:
		if from, err = s.recorder.Since(q.since); err != nil {
			api.WriteError(w, err)
			return
		}
	}
	w.Header().Set(api.HeaderSeq, strconv.FormatUint(max(from, 1)-1, 10))
	out := newLines(w)
	tell := func(e events.Event) bool {
		return !q.filter.Match(e) || out.json(e)
	}
	if q.follow {
		err = s.recorder.Follow(r.Context(), from, tell)
	} else {
		err = s.recorder.Read(from, tell)
	}
	if err != nil && r.Context().Err() == nil {
		s.log.Warn("stream events", "error", err)
	}
}

// getEvents streams the story of the whole mesh from the recorders of all hosts
// that can be reached, so that it needs neither a leader nor NATS. Without
// follow it is merged by time, each host's events in their own order.
func (s *server) getEvents(w http.ResponseWriter, r *http.Request) {
	q, err := parseEventQuery(r.URL.Query())
	if err != nil {
		api.WriteError(w, err)
		return
	}
	if q.follow {
		s.followEvents(r, newLines(w))
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	var reading sync.WaitGroup
	defer reading.Wait()
	defer cancel()
	var sources []*eventSource
	for _, m := range s.pool.Members() {
		if m.Status == gossip.StatusLeft {
			continue
		}
		src := newEventSource(m.Name)
		sources = append(sources, src)
		reading.Go(func() { src.read(ctx, s.links.client(m.Tags[tagMesh]), r.URL.Query()) })
	}
	for _, src := range sources {
		if !<-src.open {
			w.Header().Add(api.HeaderMissing, src.host)
		}
	}
	out, told := newLines(w), newRepeats()
	if mergeEvents(sources, func(e events.Event) bool { return !told.first(e) || out.json(e) }) {
		for _, src := range sources {
			if src.broken {
				w.Header().Add(http.TrailerPrefix+api.HeaderMissing, src.host)
			}
		}
	}
}

// openTime is how long a host has to begin its part of a replay.
const openTime = 15 * time.Second

// eventSource is one host's part of a replay. Few of its events are in memory at
// any time: the client's pace is that of the hosts.
type eventSource struct {
	host   string
	open   chan bool // told once whether the host answers
	events chan events.Event
	broken bool // it ended before its end; to be read when events is closed
}

func newEventSource(host string) *eventSource {
	return &eventSource{host: host, open: make(chan bool, 1), events: make(chan events.Event, 16)}
}

// read reads the host's recorder until its end or that of ctx.
func (src *eventSource) read(ctx context.Context, client *api.Client, q url.Values) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	late := time.AfterFunc(openTime, cancel)
	opened := false
	err := client.StreamWithHeader(ctx, "/v1/local/events", q, func(h http.Header) {
		if !opened {
			opened = late.Stop()
			src.open <- opened
		}
	}, func(line []byte) bool {
		e, err := events.Parse(line)
		if err != nil {
			return true
		}
		select {
		case src.events <- e:
			return true
		case <-ctx.Done():
			return false
		}
	})
	if src.broken = opened && err != nil; !opened {
		select {
		case src.open <- false:
		default: // told already: it came too late
		}
	}
	close(src.events)
}

// mergeEvents hands the events of all sources to tell, the earliest of those at
// hand first, until all have ended or tell returns false.
func mergeEvents(sources []*eventSource, tell func(events.Event) bool) bool {
	type head struct {
		events.Event
		from *eventSource
	}
	var heads []head
	for _, src := range sources {
		if e, ok := <-src.events; ok {
			heads = append(heads, head{e, src})
		}
	}
	for len(heads) > 0 {
		first := 0
		for i, h := range heads {
			if h.Time.Before(heads[first].Time) {
				first = i
			}
		}
		if !tell(heads[first].Event) {
			return false
		}
		if e, ok := <-heads[first].from.events; ok {
			heads[first].Event = e
		} else {
			heads = slices.Delete(heads, first, first+1)
		}
	}
	return true
}

// followEvents passes on every host's events as they come, hosts that appear
// later included, until the client goes.
func (s *server) followEvents(r *http.Request, out *lines) {
	ctx, cancel := context.WithCancel(r.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	told := newRepeats()
	tell := func(e events.Event, line []byte) bool {
		if e.ID != "" && !told.first(e) || out.put(line) {
			return true
		}
		cancel()
		return false
	}
	followed := map[string]string{} // host ids by name: one that joins again has begun to count anew
	from := r.URL.Query()
	for {
		changed := s.pool.Changed()
		for _, m := range s.pool.Members() {
			id := m.Tags[tagHostID]
			if m.Status == gossip.StatusLeft || id == "" || followed[m.Name] == id {
				continue
			}
			followed[m.Name] = id
			q := from // each host's own: from changes below, before its follower may have begun
			wg.Go(func() { s.followHost(ctx, m.Name, id, q, tell) })
		}
		// A host that comes later is followed from its beginning.
		from = cloneQuery(r.URL.Query(), "since", "8760h")
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}

// followHost follows one host, again after each break, from where it broke, until
// it has left. tell is given each line with the event it is, if it is one.
func (s *server) followHost(ctx context.Context, host, id string, q url.Values, tell func(e events.Event, line []byte) bool) {
	var retry backoff
	for ctx.Err() == nil {
		m, known := byName(s.pool.Members())[host]
		if known && (m.Status == gossip.StatusLeft || m.Tags[tagHostID] != id) {
			return
		}
		err := s.links.client(m.Tags[tagMesh]).StreamWithHeader(ctx, "/v1/local/events", q, func(h http.Header) {
			if seq := h.Get(api.HeaderSeq); seq != "" {
				q = cloneQuery(q, "after", seq)
			}
		}, func(line []byte) bool {
			retry.reset()
			e, err := events.Parse(line)
			if err == nil {
				q = cloneQuery(q, "after", strconv.FormatUint(e.Seq, 10))
			}
			return tell(e, slices.Clone(line))
		})
		if err != nil && ctx.Err() == nil {
			s.log.Debug("follow events", "host", host, "error", err)
		}
		retry.wait(ctx)
	}
}

func cloneQuery(q url.Values, key, value string) url.Values {
	out := url.Values{}
	for k, v := range q {
		out[k] = v
	}
	out.Set(key, value)
	return out
}
