package artifact

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/ganglion-mesh/ganglion/pause"
)

const (
	maxRedirects = 5
	urlTries     = 3
)

// originClient speaks to servers outside of the mesh. It has no certificate, no
// cookies and no credentials, so it can leak none; what it is sent to must be
// https, however often it is sent on.
func originClient() *http.Client {
	t := http.DefaultTransport.(*http.Transport).Clone() //nolint:forcetypeassert // the standard library's
	t.DisableCompression = true                          // the digest is of the bytes as they are served
	t.ResponseHeaderTimeout = 30 * time.Second
	return &http.Client{Transport: t, CheckRedirect: func(r *http.Request, via []*http.Request) error {
		r.Header.Del("Referer") // an address may hold what is nobody else's business
		switch {
		case len(via) > maxRedirects:
			return fmt.Errorf("more than %d redirects", maxRedirects)
		case r.URL.Scheme != "https":
			return fmt.Errorf("redirected to %s://: only https is fetched", r.URL.Scheme)
		}
		return nil
	}}
}

// CheckURL refuses what is not fetched: anything but https, and credentials,
// which would be shown to everyone who may read the declaration.
func CheckURL(raw string) error {
	u, err := url.Parse(raw)
	switch {
	case err != nil || u.Host == "":
		return refused("the address cannot be read")
	case u.Scheme != "https":
		return refused("only https:// is fetched")
	case u.User != nil:
		return refused("an address with a user or password in it is not fetched")
	}
	return nil
}

// fromURL fetches from a server that is no host of the mesh, from the beginning
// or from where an earlier try ended.
func (f *Fetcher) fromURL(ctx context.Context, r Request) error {
	if err := CheckURL(r.URL); err != nil {
		return err
	}
	client := f.cfg.Origin
	if client == nil {
		client = originClient()
		defer client.CloseIdleConnections()
	}
	u, _ := url.Parse(r.URL)
	var err error
	for try := range urlTries {
		if try > 0 {
			pause.For(ctx, f.cfg.Retry/2+jitter(f.cfg.Retry))
		}
		err = f.tryURL(ctx, client, r, u)
		var final *statusError
		if err == nil || ctx.Err() != nil || ours(err) || errors.As(err, &final) && final.code < 500 {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("from %s: %w", u.Host, err)
	}
	return nil
}

// statusError is an answer that is no package.
type statusError struct{ code int }

func (e *statusError) Error() string {
	return "the server answered " + strconv.Itoa(e.code) + " " + http.StatusText(e.code)
}

// Unwrap says that a server which does not know the address has no package.
func (e *statusError) Unwrap() error {
	if e.code == http.StatusNotFound || e.code == http.StatusGone {
		return ErrAbsent
	}
	return nil
}

func (f *Fetcher) tryURL(ctx context.Context, client *http.Client, r Request, u *url.URL) error {
	s := f.cfg.Store
	file, have, err := s.openTail(r.Digest)
	if err != nil {
		return &diskError{err}
	}
	defer file.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	w := f.watch(cancel)
	defer w.stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return err
	}
	if have > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", have))
	}
	resp, err := client.Do(req)
	if err != nil {
		var inner *url.Error
		if errors.As(err, &inner) {
			err = inner.Err // without the address, which the caller names
		}
		return cause(ctx, err)
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusPartialContent && startsAt(resp, have):
	case resp.StatusCode == http.StatusOK:
		have = 0
	case resp.StatusCode == http.StatusRequestedRangeNotSatisfiable:
		return s.finishTail(ctx, file, r)
	default:
		return &statusError{resp.StatusCode}
	}
	if err := f.appendTail(ctx, file, have, resp, w, r); err != nil {
		return err
	}
	return s.finishTail(ctx, file, r)
}

func startsAt(resp *http.Response, have int64) bool {
	return strings.HasPrefix(resp.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-", have))
}

// appendTail writes what comes behind what is there.
func (f *Fetcher) appendTail(ctx context.Context, file *os.File, have int64, resp *http.Response, w *watchdog, r Request) error {
	s := f.cfg.Store
	if have+max(resp.ContentLength, 0) > s.cfg.Limits.Package {
		return refused("larger than %s", Bytes(s.cfg.Limits.Package))
	}
	if err := s.room(max(resp.ContentLength, 0)); err != nil {
		return err
	}
	if err := file.Truncate(have); err != nil {
		return &diskError{err}
	}
	if _, err := file.Seek(have, io.SeekStart); err != nil {
		return &diskError{err}
	}
	out := &roomWriter{store: s, w: &tailWriter{file, have, have + resp.ContentLength, r.Progress, resp.Request.URL.Host}}
	n, err := io.Copy(out, io.LimitReader(f.paced(ctx, w, resp.Body), s.cfg.Limits.Package-have+1))
	if err == nil && have+n > s.cfg.Limits.Package {
		return refused("larger than %s", Bytes(s.cfg.Limits.Package))
	}
	return cause(ctx, err)
}

// tailWriter tells write errors from those of the network, and how far it is.
type tailWriter struct {
	f        *os.File
	at, size int64
	progress func(done, size int64, from string)
	host     string
}

func (t *tailWriter) Write(p []byte) (int, error) {
	n, err := t.f.Write(p)
	if err != nil {
		err = &diskError{err}
	}
	t.at += int64(n)
	t.progress(t.at, max(t.size, t.at), t.host)
	return n, err
}

// finishTail checks the whole and puts it in place. What does not match is
// dropped, so that the next try begins afresh.
func (s *Store) finishTail(ctx context.Context, file *os.File, r Request) error {
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return &diskError{err}
	}
	sum := newChunker()
	if _, err := io.Copy(sum, contextReader{ctx, file}); err != nil {
		return &diskError{err}
	}
	d, chunks := sum.finish()
	if d != r.Digest {
		return errors.Join(fmt.Errorf("%w: it is %s", ErrCorrupt, d.Short()), os.Remove(file.Name()))
	}
	return s.commit(file, d, meta{Chunks: chunks, Name: PlainName(r.URL)})
}

// PlainName is what a package from an address is called: the end of its path.
func PlainName(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return ""
	}
	return cleanName(u.Path)
}
