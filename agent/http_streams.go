package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/events"
	"github.com/ganglion-mesh/ganglion/gossip"
	"github.com/ganglion-mesh/ganglion/workload"
	"github.com/ganglion-mesh/ganglion/workload/output"
)

func newBody(b []byte) io.Reader {
	if len(b) == 0 {
		return nil
	}
	return bytes.NewReader(b)
}

func newReader(b []byte) io.Reader { return bytes.NewReader(b) }

// lines writes NDJSON to a client, one value at a time from any goroutine, each
// flushed so that a follower sees it at once.
type lines struct {
	mu sync.Mutex
	w  http.ResponseWriter
	rc *http.ResponseController
}

func newLines(w http.ResponseWriter) *lines {
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.WriteHeader(http.StatusOK)
	l := &lines{w: w, rc: http.NewResponseController(w)}
	l.rc.Flush() //nolint:errcheck // seen at the next write
	return l
}

// put writes one line as it is; false means that the client has gone.
func (l *lines) put(line []byte) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, err := l.w.Write(append(line, '\n')); err != nil {
		return false
	}
	return l.rc.Flush() == nil
}

func (l *lines) json(v any) bool {
	b, err := json.Marshal(v)
	return err == nil && l.put(b)
}

// eventQuery is what an events request asks for.
type eventQuery struct {
	since  time.Time // zero: only with follow, from now on
	filter events.Filter
	follow bool
	after  uint64 // seq; a follower that lost its stream goes on behind it
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
			return out, api.Errorf(api.CodeInvalid, "since %q: want a duration such as 10m or 24h", s)
		}
		out.since = time.Now().Add(-d)
	}
	if s := q.Get("after"); s != "" {
		if out.after, err = strconv.ParseUint(s, 10, 64); err != nil {
			return out, api.Errorf(api.CodeInvalid, "after %q: want a number", s)
		}
	}
	return out, nil
}

// getLocalEvents streams this host's own recorder.
func (s *server) getLocalEvents(w http.ResponseWriter, r *http.Request) {
	q, err := parseEventQuery(r.URL.Query())
	if err != nil {
		api.WriteError(w, err)
		return
	}
	from := s.recorder.Last() + 1
	if !q.since.IsZero() || !q.follow {
		if from, err = s.recorder.Since(q.since); err != nil {
			api.WriteError(w, err)
			return
		}
	}
	if q.after > 0 {
		from = q.after + 1
	}
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
// follow it is sorted by time.
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
	all, missing := s.collectEvents(r)
	slices.SortStableFunc(all, func(a, b events.Event) int { return a.Time.Compare(b.Time) })
	for _, host := range missing {
		w.Header().Add(api.HeaderMissing, host)
	}
	out := newLines(w)
	for _, e := range all {
		if !out.json(e) {
			return
		}
	}
}

// maxEvents bounds what one replay holds in memory.
const maxEvents = 200_000

// collectEvents reads every host's recorder at once.
func (s *server) collectEvents(r *http.Request) (all []events.Event, missing []string) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, m := range s.pool.Members() {
		if m.Status == gossip.StatusLeft {
			continue
		}
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(r.Context(), 15*time.Second)
			defer cancel()
			err := s.links.client(m.Tags[tagMesh]).Stream(ctx, "/v1/local/events", r.URL.Query(), func(line []byte) bool {
				e, err := events.Parse(line)
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					all = append(all, e)
				}
				return len(all) < maxEvents
			})
			if err != nil {
				mu.Lock()
				missing = append(missing, m.Name)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	slices.Sort(missing)
	return all, missing
}

// followEvents passes on every host's events as they come, hosts that appear
// later included, until the client goes.
func (s *server) followEvents(r *http.Request, out *lines) {
	ctx, cancel := context.WithCancel(r.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	started := map[string]bool{}
	q := r.URL.Query()
	for {
		changed := s.pool.Changed()
		for _, m := range s.pool.Members() {
			if m.Status == gossip.StatusLeft || started[m.Name] {
				continue
			}
			started[m.Name] = true
			wg.Go(func() { s.followHost(ctx, cancel, m.Name, q, out) })
		}
		// A host that comes later is followed from its beginning.
		q = cloneQuery(r.URL.Query(), "since", "8760h")
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}

// followHost follows one host, again after each break, from where it broke.
func (s *server) followHost(ctx context.Context, gone context.CancelFunc, host string, q url.Values, out *lines) {
	var retry backoff
	for ctx.Err() == nil {
		m := byName(s.pool.Members())[host]
		err := s.links.client(m.Tags[tagMesh]).Stream(ctx, "/v1/local/events", q, func(line []byte) bool {
			retry.reset()
			if e, err := events.Parse(line); err == nil {
				q = cloneQuery(q, "after", strconv.FormatUint(e.Seq, 10))
			}
			if !out.put(slices.Clone(line)) {
				gone()
				return false
			}
			return true
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

// getLocalLogs streams the output of one copy that is or was on this host.
func (s *server) getLocalLogs(w http.ResponseWriter, r *http.Request) {
	id, err := workload.ParseCopyID(r.PathValue("app") + "/" + r.PathValue("n"))
	if err != nil {
		api.WriteError(w, api.Errorf(api.CodeInvalid, "%v", err))
		return
	}
	opt := output.ReadOptions{Follow: r.URL.Query().Get("follow") == "true"}
	if t := r.URL.Query().Get("tail"); t != "" {
		if opt.Tail, err = strconv.Atoi(t); err != nil || opt.Tail < 0 {
			api.WriteError(w, api.Errorf(api.CodeInvalid, "tail %q: want a number of lines", t))
			return
		}
	}
	out := newLines(w)
	err = s.outputs.Read(r.Context(), id, opt, func(c output.Chunk) error {
		if !out.json(api.LogChunk{Copy: id.String(), Host: s.cfg.Name, Stream: c.Stream, Data: string(c.Data)}) {
			return io.ErrClosedPipe
		}
		return nil
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) && r.Context().Err() == nil {
		s.log.Debug("stream logs", "copy", id, "error", err)
	}
}

// getLogs streams the output of an app's copies, or with ?copy=N of one, from
// the hosts they are on.
func (s *server) getLogs(w http.ResponseWriter, r *http.Request) {
	copies, err := s.whereIs(r)
	if err != nil {
		api.WriteError(w, err)
		return
	}
	members := byName(s.pool.Members())
	out := newLines(w)
	var wg sync.WaitGroup
	for _, c := range copies {
		id, err := workload.ParseCopyID(c.ID)
		m, ok := members[c.Host]
		if err != nil || !ok {
			continue
		}
		wg.Go(func() {
			path := "/v1/local/logs/" + id.App + "/" + strconv.Itoa(id.N)
			err := s.links.client(m.Tags[tagMesh]).Stream(r.Context(), path, r.URL.Query(), func(line []byte) bool {
				return out.put(slices.Clone(line))
			})
			if err != nil && r.Context().Err() == nil {
				out.json(api.LogChunk{Copy: c.ID, Host: c.Host, Error: err.Error()})
			}
		})
	}
	wg.Wait()
}

// whereIs lists the copies that a logs request is about, from the leader.
func (s *server) whereIs(r *http.Request) ([]topology.CopyStatus, error) {
	n, err := copyNumber(r)
	if err != nil {
		return nil, err
	}
	var st topology.AppStatus
	ctx, cancel := context.WithTimeout(r.Context(), leaderPatience)
	defer cancel()
	app := r.PathValue("app")
	if err := s.links.client(s.addr).Get(ctx, "/v1/status", url.Values{"app": {app}}, &st); err != nil {
		return nil, err
	}
	if n == nil {
		return st.Copies, nil
	}
	want := workload.CopyID{App: app, N: *n}.String()
	for _, c := range st.Copies {
		if c.ID == want {
			return []topology.CopyStatus{c}, nil
		}
	}
	return nil, api.Errorf(api.CodeNotFound, "find copy %s: app %s has no such copy (ganglion status %s)", want, app, app)
}
