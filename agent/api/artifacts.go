package api

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
)

// Artifact is one line of GET /v1/artifacts: a package somewhere in the mesh.
type Artifact struct {
	Digest string   `json:"digest"`
	Name   string   `json:"name"`  // of what was pushed; empty if not known
	Size   int64    `json:"size"`  // bytes
	Hosts  []string `json:"hosts"` // that have it whole
	Apps   []string `json:"apps"`  // of which a kept version names it

	SignedBy []string `json:"signed_by"` // names of the keys, of those trusted now, that signed it
}

// LocalArtifact is one line of GET /v1/local/artifacts: a package on one host.
type LocalArtifact struct {
	Digest   string `json:"digest"`
	Name     string `json:"name"`
	Size     int64  `json:"size"`     // bytes of the package; 0 if only what was unpacked is left
	Unpacked int64  `json:"unpacked"` // bytes of what was unpacked
	Pinned   bool   `json:"pinned"`   // a copy, or a version that is kept, needs it
}

// ArtifactFetch answers POST /v1/local/artifacts/{digest}/fetch: how far the
// host is.
type ArtifactFetch struct {
	Have   bool   `json:"have"`
	Failed bool   `json:"failed,omitempty"` // it cannot be had as it is
	Stuck  bool   `json:"stuck,omitempty"`  // the last try failed
	Why    string `json:"why,omitempty"`
}

// ArtifactSpread answers POST /v1/artifacts/{digest}/spread: who has the package
// for certain.
type ArtifactSpread struct {
	Digest string   `json:"digest"`
	Hosts  []string `json:"hosts"`
}

// HasArtifact asks whether the agent has a package.
func (c *Client) HasArtifact(ctx context.Context, digest string) (bool, error) {
	resp, err := c.stream(ctx, http.MethodHead, "/v1/artifacts/"+digest, nil, nil, 0, "")
	if err != nil {
		return false, err
	}
	resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
		return true, nil
	case http.StatusNotFound:
		return false, nil
	case http.StatusPreconditionFailed: // what an error says is in a body, which HEAD has not
		return false, c.Get(ctx, "/v1/mesh", nil, nil)
	}
	return false, Errorf(CodeInternal, "ask agent %s for package %s: it answered %s", c.addr, digest, resp.Status)
}

// PutArtifact sends a package of size bytes to the agent. A push that was cut off
// has changed nothing.
func (c *Client) PutArtifact(ctx context.Context, digest, name string, body io.Reader, size int64) error {
	resp, err := c.stream(ctx, http.MethodPut, "/v1/artifacts/"+digest, url.Values{"name": {name}}, io.NopCloser(body), size, "")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 300 {
		return readError(resp)
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

// ReadArtifact reads n bytes of a package from off on. The caller closes it. That
// the agent has no such package is an Error with CodeNotFound.
func (c *Client) ReadArtifact(ctx context.Context, digest, byteRange string) (io.ReadCloser, error) {
	resp, err := c.stream(ctx, http.MethodGet, "/v1/artifacts/"+digest, nil, nil, 0, byteRange)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode >= 300 {
		defer resp.Body.Close()
		return nil, readError(resp)
	}
	if byteRange != "" && resp.StatusCode != http.StatusPartialContent {
		resp.Body.Close()
		return nil, Errorf(CodeInternal, "read package %s from agent %s: asked for a part, it sends all", digest, c.addr)
	}
	return resp.Body, nil
}

// stream sends a request whose body or answer is not JSON.
func (c *Client) stream(ctx context.Context, method, path string, query url.Values, body io.ReadCloser, size int64, byteRange string) (*http.Response, error) {
	target := c.base + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	var r io.Reader
	if body != nil {
		r = body
	}
	req, err := http.NewRequestWithContext(ctx, method, target, r)
	if err != nil {
		return nil, err
	}
	if req.ContentLength = size; body != nil {
		req.Header.Set("Content-Type", "application/octet-stream")
	}
	if byteRange != "" {
		req.Header.Set("Range", byteRange)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		err = c.lost(http.MethodGet, path, err) // whatever was cut off changed nothing
		var known *Error
		if !errors.As(err, &known) && ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, err
	}
	return resp, nil
}
