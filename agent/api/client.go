package api

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
)

// Client speaks to one agent. It may be used from many goroutines.
type Client struct {
	base string
	http *http.Client
	addr string
}

// Dial returns a client of the agent at addr: unix:PATH or https://host:port.
// tlsConfig is for https alone. Nothing is sent before the first call.
func Dial(addr string, tlsConfig *tls.Config) (*Client, error) {
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		path = strings.TrimPrefix(path, "//")
		dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		}
		return New("http://agent", &http.Transport{DialContext: dial, MaxIdleConnsPerHost: 8}, addr), nil
	}
	u, err := url.Parse(addr)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("agent address %q: want unix:/path/of/socket or https://host:port", addr)
	}
	if tlsConfig == nil {
		return nil, fmt.Errorf("agent address %s: it needs GANGLION_CERT, GANGLION_KEY and GANGLION_CA", addr)
	}
	t := &http.Transport{TLSClientConfig: tlsConfig, ForceAttemptHTTP2: true}
	return New(strings.TrimSuffix(addr, "/"), t, addr), nil
}

// New returns a client over a ready transport. addr is what errors call the
// agent.
func New(base string, rt http.RoundTripper, addr string) *Client {
	return &Client{base: base, http: &http.Client{Transport: rt}, addr: addr}
}

// Get reads path into out.
func (c *Client) Get(ctx context.Context, path string, query url.Values, out any) error {
	_, err := c.do(ctx, http.MethodGet, path, query, "", nil, out)
	return err
}

// GetWithHeader is Get for a caller that also wants the headers of the answer.
func (c *Client) GetWithHeader(ctx context.Context, path string, query url.Values, out any) (http.Header, error) {
	return c.do(ctx, http.MethodGet, path, query, "", nil, out)
}

// Post sends in to path and reads the answer into out; both may be nil.
func (c *Client) Post(ctx context.Context, path string, query url.Values, in, out any) error {
	_, err := c.do(ctx, http.MethodPost, path, query, "", in, out)
	return err
}

// PostOnce is Post with an idempotency key: a write that was committed under a
// key is not committed a second time.
func (c *Client) PostOnce(ctx context.Context, path, key string, in, out any) error {
	_, err := c.do(ctx, http.MethodPost, path, nil, key, in, out)
	return err
}

// Delete asks for path to be removed.
func (c *Client) Delete(ctx context.Context, path string, out any) error {
	_, err := c.do(ctx, http.MethodDelete, path, nil, "", nil, out)
	return err
}

func (c *Client) do(ctx context.Context, method, path string, query url.Values, key string, in, out any) (http.Header, error) {
	resp, err := c.send(ctx, method, path, query, key, in)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if out == nil {
		_, err = io.Copy(io.Discard, resp.Body)
	} else {
		err = json.NewDecoder(resp.Body).Decode(out)
	}
	if err != nil {
		return nil, c.lost(method, path, err)
	}
	return resp.Header, nil
}

// Stream reads an NDJSON answer and calls line for each value, until the stream
// ends, ctx is done or line returns false.
func (c *Client) Stream(ctx context.Context, path string, query url.Values, line func([]byte) bool) error {
	return c.StreamWithHeader(ctx, path, query, func(http.Header) {}, line)
}

// StreamWithHeader is Stream that shows head the headers before the first line,
// and again, behind the last, what could be told only then.
func (c *Client) StreamWithHeader(ctx context.Context, path string, query url.Values, head func(http.Header), line func([]byte) bool) error {
	resp, err := c.send(ctx, http.MethodGet, path, query, "", nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	head(resp.Header)
	sc := bufio.NewScanner(resp.Body)
	sc.Buffer(make([]byte, 64<<10), MaxReport)
	for sc.Scan() {
		if len(sc.Bytes()) > 0 && !line(sc.Bytes()) {
			return nil
		}
	}
	if err := sc.Err(); err != nil && ctx.Err() == nil {
		return c.lost(http.MethodGet, path, err)
	}
	if len(resp.Trailer) > 0 {
		head(resp.Trailer)
	}
	return ctx.Err()
}

func (c *Client) send(ctx context.Context, method, path string, query url.Values, key string, in any) (*http.Response, error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, fmt.Errorf("encode request %s: %w", path, err)
		}
		body = bytes.NewReader(b)
	}
	target := c.base + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if key != "" {
		req.Header.Set(HeaderRequest, key)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.lost(method, path, err)
	}
	if resp.StatusCode >= 300 {
		defer resp.Body.Close()
		return nil, readError(resp)
	}
	return resp, nil
}

// lost explains a request that got no whole answer. A write that never reached
// the agent changed nothing; one that was cut off may have.
func (c *Client) lost(method, path string, err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		if method == http.MethodGet {
			return err
		}
		return Errorf(CodeUnknown, "%s %s: no answer in time: it may or may not have happened; look before you try again", method, path)
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return &Error{Code: CodeInternal, Message: fmt.Sprintf("connect agent %s: %v; is the agent running? (systemctl status ganglion, or set GANGLION_ADDR)", c.addr, op.Err)}
	}
	if method == http.MethodGet {
		return fmt.Errorf("read %s from agent %s: %w", path, c.addr, err)
	}
	return Errorf(CodeUnknown, "%s %s: the connection broke (%v): it may or may not have happened; look before you try again", method, path, err)
}

// CloseIdle closes connections that carry nothing.
func (c *Client) CloseIdle() { c.http.CloseIdleConnections() }
