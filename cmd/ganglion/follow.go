package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/pause"
)

const (
	// readPatience is for how long reads are tried again while the agent
	// restarts or the mesh has no leader.
	readPatience = 20 * time.Second
	// longPoll is how long one blocking read is waited for. The server's own
	// wait is longer; a short one here bounds what a missed change can cost.
	longPoll = 5 * time.Second
	// retryPause is between two tries of a read.
	retryPause = 200 * time.Millisecond
)

// newKey makes an idempotency key.
func newKey() string { return rand.Text() }

// watch follows the status of all apps, or of one, over restarts of the agent
// and changes of the leader. The first next answers at once, each later one
// when something may have changed.
type watch struct {
	client   *api.Client
	app      string // empty: all
	cursor   string
	patience time.Duration // for how long reads are tried again; 0: not
	renews   bool          // the time to wait begins anew with every progress
}

// next returns the status, of one app as a list of one. That there is no such
// app is an error with api.CodeNotFound.
func (w *watch) next(ctx context.Context) ([]topology.AppStatus, error) {
	var since time.Time
	for {
		list, err := w.read(ctx)
		if err == nil || ctx.Err() != nil || !passing(err) {
			return list, err
		}
		if since.IsZero() {
			since = time.Now()
		}
		if time.Since(since) >= w.patience {
			return nil, err
		}
		if !pause.For(ctx, retryPause) {
			return nil, err
		}
	}
}

// read is one read, blocking if there is a cursor.
func (w *watch) read(ctx context.Context) ([]topology.AppStatus, error) {
	query := url.Values{}
	if w.app != "" {
		query.Set("app", w.app)
	}
	if w.cursor == "" {
		return w.get(ctx, query)
	}
	query.Set("after", w.cursor)
	short, cancel := context.WithTimeout(ctx, longPoll)
	defer cancel()
	list, err := w.get(short, query)
	if err != nil && short.Err() != nil && ctx.Err() == nil {
		query.Del("after")
		return w.get(ctx, query)
	}
	return list, err
}

func (w *watch) get(ctx context.Context, query url.Values) (list []topology.AppStatus, err error) {
	var head http.Header
	if w.app == "" {
		head, err = w.client.GetWithHeader(ctx, "/v1/status", query, &list)
	} else {
		var one topology.AppStatus
		head, err = w.client.GetWithHeader(ctx, "/v1/status", query, &one)
		list = []topology.AppStatus{one}
	}
	if err != nil {
		return nil, err
	}
	w.cursor = head.Get(api.HeaderCursor)
	return list, nil
}

// passing tells whether a failed read may succeed in a moment: the agent
// restarts, or a leader is being elected.
func passing(err error) bool {
	var answer *api.Error
	if !errors.As(err, &answer) {
		return true // the connection broke
	}
	switch answer.Code {
	case api.CodeNoLeader, api.CodeNoMesh, api.CodeInternal, api.CodeUnknown:
		return true
	}
	return false
}

// verdict is what a look at an app says about what is waited for.
type verdict struct {
	done bool
	fail error  // it will not come
	wait string // what is missing, in one line
	mark string // differs from that of the look before if something went on
}

// await follows app until judge says that it is done or has failed, or timeout
// passes. A judge is given nil when there is no such app.
func (c *cli) await(ctx context.Context, w *watch, timeout time.Duration, judge func([]topology.AppStatus) verdict) error {
	limit, cancel := context.WithCancel(ctx)
	defer cancel()
	timer := time.AfterFunc(timeout, cancel)
	defer timer.Stop()
	p := &progress{c: c}
	defer p.end()
	last := verdict{wait: "nothing is known yet"}
	for {
		list, err := w.next(limit)
		switch {
		case isCode(err, api.CodeNotFound):
			list = nil
		case ctx.Err() != nil:
			return fmt.Errorf("interrupted; what was committed goes on (ganglion status)")
		case limit.Err() != nil:
			return fmt.Errorf("not done after %s: %s", timeout, last.wait)
		case err != nil:
			return err
		}
		before := last.mark
		if last = judge(list); w.renews && last.mark != before {
			timer.Reset(timeout)
		}
		if last.done || last.fail != nil {
			return last.fail
		}
		p.show(last.wait)
		// A fast stream of changes must not become a fast stream of reads.
		if w.cursor == "" || isCode(err, api.CodeNotFound) {
			pause.For(limit, retryPause)
		}
	}
}

// unwell tells what an app lacks: how many copies are ready, how far its rollout
// is, else why the first of the copies that are not ready is not.
func unwell(st topology.AppStatus) string {
	parts := []string{fmt.Sprintf("%s is %s, %d of %d ready", st.App, st.State, st.Ready, st.Want)}
	if st.State == topology.AppRolling && st.Why != "" {
		return parts[0] + ": " + oneLine(st.Why)
	}
	for _, cp := range st.Copies {
		if !cp.Ready || cp.Version != st.Version {
			parts = append(parts, copyLine(cp))
			break
		}
	}
	if len(parts) == 1 && st.Why != "" {
		parts = append(parts, oneLine(st.Why))
	}
	return strings.Join(parts, ": ")
}

func copyLine(cp topology.CopyStatus) string {
	line := cp.ID
	if cp.Host != "" {
		line += " on " + cp.Host
	}
	line += " is " + string(cp.State)
	if cp.Why != "" {
		line += ": " + oneLine(cp.Why)
	}
	return line
}

// changed tells whether two statuses differ, and remembers the newer.
type changed map[string]string

func (seen changed) note(key string, v any) bool {
	b, err := json.Marshal(v)
	if err != nil || seen[key] == string(b) {
		return false
	}
	seen[key] = string(b)
	return true
}
