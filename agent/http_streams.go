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
	if s.outputs == nil {
		return // this driver keeps none
	}
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
		if err != nil || c.Host == "" {
			continue // it has no host yet
		}
		m, ok := members[c.Host]
		if !ok {
			out.json(api.LogChunk{Copy: c.ID, Host: c.Host, Error: "read output: gossip does not know host " + c.Host})
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

// lookPatience is how long a request for logs waits for a leader to say where the
// copies are: an election passes, and no longer.
const lookPatience = 6 * time.Second

// seenBy asks every host that can be reached which copies of an app it has: with
// no leader they know best.
func (s *server) seenBy(ctx context.Context, app string) []topology.CopyStatus {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	var mu sync.Mutex
	var wg sync.WaitGroup
	var all []topology.CopyStatus
	for _, m := range s.pool.Members() {
		if m.Status != gossip.StatusAlive || m.Tags[tagMesh] == "" {
			continue
		}
		wg.Go(func() {
			var list []topology.AppStatus
			if s.links.client(m.Tags[tagMesh]).Get(ctx, "/v1/local/status", url.Values{"app": {app}}, &list) != nil {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			for _, st := range list {
				for _, c := range st.Copies {
					c.Host = m.Name
					all = append(all, c)
				}
			}
		})
	}
	wg.Wait()
	return all
}

// whereIs lists the copies that a logs request is about, from the leader.
func (s *server) whereIs(r *http.Request) ([]topology.CopyStatus, error) {
	n, err := copyNumber(r)
	if err != nil {
		return nil, err
	}
	var st topology.AppStatus
	ctx, cancel := context.WithTimeout(r.Context(), lookPatience)
	defer cancel()
	app := r.PathValue("app")
	if err := s.links.client(s.addr).Get(ctx, "/v1/status", url.Values{"app": {app}}, &st); err != nil {
		if ctx.Err() == nil && api.CodeOf(err) != api.CodeNoLeader {
			return nil, err
		}
		if st.Copies = s.seenBy(r.Context(), app); len(st.Copies) == 0 {
			return nil, s.noLeader()
		}
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
