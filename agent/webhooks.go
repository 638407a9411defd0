package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/agent/reflexer"
	"github.com/ganglion-mesh/ganglion/events"
	"github.com/ganglion-mesh/ganglion/pause"
)

const (
	webhookTries  = 3
	webhookTime   = 10 * time.Second // of one try
	webhookPause  = time.Second      // before the second try; four times as long before the next
	webhooksWait  = 64               // that wait for their turn; what is more is not sent
	webhooksAtOne = 4                // that are being sent at a time
)

// errRedirect is the answer of an address that sends elsewhere.
var errRedirect = errors.New("it answers with a redirect, which is not followed")

// webhooks sends events of firings to where their rules say. What is not sent
// when the agent ends is lost: the event itself is not.
type webhooks struct {
	send   func(*http.Request) (*http.Response, error)
	pause  time.Duration // before the second try
	failed func(h webhook, err error)
	queue  chan webhook
}

// webhook is one event on its way to one address.
type webhook struct {
	url          string
	rule, target string // that the event is about
	id, chain    string // of the event
	body         []byte
}

// newWebhooks returns one that says of what could not be delivered.
func newWebhooks(failed func(webhook, error)) *webhooks {
	client := &http.Client{
		Timeout: webhookTime,
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{Timeout: webhookTime}).DialContext,
			TLSHandshakeTimeout: webhookTime, ForceAttemptHTTP2: true, DisableKeepAlives: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return &webhooks{send: client.Do, pause: webhookPause, failed: failed, queue: make(chan webhook, webhooksWait)}
}

// post sends an event to where the actions of its rung say. It never blocks.
func (w *webhooks) post(e events.Event, t reflexer.Told) {
	for _, a := range t.Tells {
		if a.Op != "webhook" {
			continue
		}
		h := webhook{url: a.Target, rule: t.Rule, target: t.Target.String(), id: e.ID, chain: e.Chain}
		var err error
		if h.body, err = json.Marshal(e); err == nil {
			select {
			case w.queue <- h:
				continue
			default:
				err = fmt.Errorf("%d others wait to be sent", webhooksWait)
			}
		}
		w.failed(h, err)
	}
}

// run sends what is posted until ctx ends.
func (w *webhooks) run(ctx context.Context) {
	var all sync.WaitGroup
	for range webhooksAtOne {
		all.Go(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case h := <-w.queue:
					if err := w.deliver(ctx, h); err != nil && ctx.Err() == nil {
						w.failed(h, err)
					}
				}
			}
		})
	}
	all.Wait()
}

// deliver tries to send an event a few times, under the same id each time.
func (w *webhooks) deliver(ctx context.Context, h webhook) error {
	wait := w.pause
	for try := 1; ; try++ {
		again, err := w.try(ctx, h)
		if err == nil {
			return nil
		}
		if !again {
			return err
		}
		if try == webhookTries {
			return fmt.Errorf("%w; tried %d times", err, try)
		}
		if !pause.For(ctx, wait) {
			return ctx.Err()
		}
		wait *= 4
	}
}

// try sends an event once. It tells whether what went wrong may pass.
func (w *webhooks) try(ctx context.Context, h webhook) (again bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, webhookTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.url, bytes.NewReader(h.body))
	if err != nil {
		return false, err
	}
	req.Header.Set("Content-Type", "application/cloudevents+json; charset=utf-8")
	req.Header.Set("User-Agent", "ganglion")
	req.Header.Set("Idempotency-Key", h.id)
	resp, err := w.send(req)
	if sent, ok := errors.AsType[*url.Error](err); ok {
		err = sent.Err // without the address, which is told beside it
	}
	if err != nil {
		return true, err
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, 4<<10) // what it says is of no interest
	switch s := resp.StatusCode; {
	case s/100 == 2:
		return false, nil
	case s/100 == 3:
		return false, errRedirect
	default:
		return s >= 500 || s == http.StatusRequestTimeout || s == http.StatusTooManyRequests, fmt.Errorf("it answers %s", resp.Status)
	}
}

// undelivered tells that the event of a firing did not come to where it was to be
// sent.
func (n *nerves) undelivered(h webhook, err error) {
	rule, app := api.SplitRule(h.rule)
	data := events.ReflexSuppressed{
		Rule: rule, App: app, Target: h.target, Facts: factsOf(nil), Action: fmt.Sprintf("webhook(%q)", h.url), Reason: "not delivered: " + err.Error(),
	}
	n.emit(events.New(events.ReflexSubject(rule, n.cfg.Name), data).With(h.id, n.slices.index()).Along(h.chain))
}
