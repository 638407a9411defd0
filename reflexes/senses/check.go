package senses

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/ganglion-mesh/ganglion/intent"
)

// Probe looks once whether a copy works: nil if it does. It ends with ctx, is
// safe for concurrent use, and leaves nothing behind.
type Probe func(ctx context.Context) error

// Target is the copy that a probe looks at.
type Target struct {
	// Addrs are the addresses at which the copy may listen, tried in order: a
	// copy that is bound to one of them alone is reached.
	Addrs []string
	// Ports are the copy's ports by name.
	Ports map[string]int
	// Exec runs a command as the copy would and returns its combined output.
	Exec func(ctx context.Context, argv []string) ([]byte, error)
}

// NewProbe returns the probe of a check whose placeholders are filled. A check
// of type process needs none and is refused, as is smoke.
func NewProbe(c intent.Check, t Target) (Probe, error) {
	switch c.Type {
	case intent.CheckHTTP:
		return newHTTP(c, t)
	case intent.CheckTCP:
		return newTCP(c, t)
	case intent.CheckExec:
		return newExec(c, t)
	}
	return nil, fmt.Errorf("probe check of type %q: cannot; want http, tcp or exec", c.Type)
}

// newHTTP asks with GET and takes any status from 200 to 399. A redirect is an
// answer and is not followed: where it leads is not the copy.
func newHTTP(c intent.Check, t Target) (Probe, error) {
	port, err := t.port(c.Port)
	if err != nil {
		return nil, err
	}
	path := "/" + strings.TrimPrefix(c.Path, "/")
	ref, err := url.Parse(path)
	if err != nil {
		return nil, fmt.Errorf("probe path %q: %w", c.Path, err)
	}
	base := url.URL{Scheme: "http", Host: net.JoinHostPort(t.Addrs[0], port), Path: ref.Path, RawPath: ref.RawPath, RawQuery: ref.RawQuery}
	client := &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialContext:            func(ctx context.Context, _, _ string) (net.Conn, error) { return t.dial(ctx, port) },
			DisableKeepAlives:      true, // a kept connection would say that an old one works, not that a new one does
			DisableCompression:     true,
			MaxResponseHeaderBytes: 64 << 10,
		},
	}
	return func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, base.String(), http.NoBody)
		if err != nil {
			return err
		}
		req.Header.Set("User-Agent", "ganglion-check")
		resp, err := client.Do(req)
		if err != nil {
			return short(err)
		}
		resp.Body.Close()
		if resp.StatusCode < 200 || resp.StatusCode > 399 {
			return fmt.Errorf("GET %s answered %d %s", path, resp.StatusCode, http.StatusText(resp.StatusCode))
		}
		return nil
	}, nil
}

func newTCP(c intent.Check, t Target) (Probe, error) {
	port, err := t.port(c.Port)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) error {
		conn, err := t.dial(ctx, port)
		if err != nil {
			return short(err)
		}
		return conn.Close()
	}, nil
}

func newExec(c intent.Check, t Target) (Probe, error) {
	if len(c.Command) == 0 || t.Exec == nil {
		return nil, errors.New("probe check of type exec: no command")
	}
	argv := slices.Clone(c.Command)
	return func(ctx context.Context) error {
		out, err := t.Exec(ctx, argv)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return short(ctx.Err())
		}
		if line := firstLine(out); line != "" {
			return fmt.Errorf("%w: %s", err, line)
		}
		return err
	}, nil
}

// port returns the number of the named port, or of the only one.
func (t Target) port(name string) (string, error) {
	if len(t.Addrs) == 0 {
		return "", errors.New("probe port: the copy has no address")
	}
	if name == "" && len(t.Ports) == 1 {
		for _, p := range t.Ports {
			return strconv.Itoa(p), nil
		}
	}
	if p, ok := t.Ports[name]; ok {
		return strconv.Itoa(p), nil
	}
	if name == "" {
		return "", fmt.Errorf("probe port: the check names none, and the app has %d", len(t.Ports))
	}
	return "", fmt.Errorf("probe port %q: the app has no such port", name)
}

// dial connects to the first address that accepts, and returns the first error
// if none does.
func (t Target) dial(ctx context.Context, port string) (net.Conn, error) {
	var d net.Dialer
	var first error
	for _, addr := range t.Addrs {
		conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort(addr, port))
		if err == nil {
			return conn, nil
		}
		if first == nil {
			first = err
		}
	}
	return nil, first
}

// short reduces a network error to what a person needs in one line; it still
// wraps the original.
func short(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("no answer in time: %w", context.DeadlineExceeded)
	}
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// firstLine returns the first line of a program's output that says something,
// cut to a size and stripped of what could disturb a terminal.
func firstLine(out []byte) string {
	const most = 200
	for line := range strings.Lines(string(out)) {
		line = strings.TrimSpace(strings.Map(func(r rune) rune {
			if !unicode.IsPrint(r) {
				return ' '
			}
			return r
		}, line))
		if line == "" {
			continue
		}
		if r := []rune(line); len(r) > most {
			line = string(r[:most]) + "…"
		}
		return line
	}
	return ""
}
