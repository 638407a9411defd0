package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/workload/artifact"
	"github.com/ganglion-mesh/ganglion/workload/signature"
)

// endings are what the tools put behind the name of what they have signed.
var endings = [...]string{".minisig", ".sig"}

const (
	// stuckFor is for how long a leader may get nowhere with a package that it
	// needs to check a signature.
	stuckFor = 10 * time.Second
	// originPatience is how long a server outside of the mesh may take to send a
	// signature.
	originPatience = 15 * time.Second
)

// readSignature reads a signature file that a user named.
func readSignature(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("read signature: %w", err)
	}
	defer f.Close()
	return checkedText(path, f)
}

// checkedText reads a signature that can be one. Its size is bounded before it is
// in memory.
func checkedText(from string, r io.Reader) (string, error) {
	b, err := io.ReadAll(io.LimitReader(r, signature.MaxSize+1))
	if err != nil {
		return "", fmt.Errorf("read signature %s: %w", from, err)
	}
	if _, err := signature.Parse(b); err != nil {
		return "", fmt.Errorf("%s: %w", from, err)
	}
	return string(b), nil
}

// bring has the leader take a signature, and waits while it gets the package that
// it checks it against. From is where the package is had if no host has it.
func (c *cli) bring(ctx context.Context, client *api.Client, digest, text, from string) (api.SignatureResponse, error) {
	p := &progress{c: c}
	defer p.end()
	key, heard := newKey(), time.Now()
	for {
		var out api.SignatureResponse
		err := client.PostOnce(ctx, "/v1/artifacts/"+digest+"/signatures", key, api.SignatureRequest{Signature: text, URL: from}, &out)
		switch {
		case err != nil || out.Waiting == "":
			return out, err
		case !out.Stuck:
			heard = time.Now()
		case time.Since(heard) > stuckFor:
			return out, fmt.Errorf("sign package %s: the leader needs it to check the signature: %s; push it, or sign the line that names it", artifact.Digest(digest).Short(), out.Waiting)
		}
		p.show("the leader gets the package to check its signature: " + out.Waiting)
		select {
		case <-ctx.Done():
			return out, ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// bringAlong is bring that remembers who has signed.
func (b *baggage) bringAlong(ctx context.Context, client *api.Client, digest, text, from string) error {
	out, err := b.bring(ctx, client, digest, text, from)
	if err == nil {
		b.signed = out.SignedBy
	}
	return err
}

// beside brings the signatures that lie beside what was pushed. One that is not
// good is told and left: whether one is needed, the mesh decides.
func (b *baggage) beside(ctx context.Context, client *api.Client, digest, path string) error {
	for _, ending := range endings {
		name := filepath.Clean(path) + ending
		text, err := readSignature(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := b.offer(ctx, client, name, digest, text, "", err); err != nil {
			return err
		}
	}
	return nil
}

// atOrigin brings the signatures that are beside a package at its address, if the
// mesh asks for any.
func (b *baggage) atOrigin(ctx context.Context, client *api.Client, address, digest string) error {
	p, err := b.signing(ctx, client)
	if err != nil || !p.Required {
		return err
	}
	for _, ending := range endings {
		text, err := fetchSignature(ctx, b.origin, address, ending)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := b.offer(ctx, client, artifact.PlainName(address)+ending, digest, text, address, err); err != nil {
			return err
		}
	}
	return nil
}

// offer brings a signature that was found, or tells why not.
func (b *baggage) offer(ctx context.Context, client *api.Client, name, digest, text, from string, found error) error {
	p, err := b.signing(ctx, client)
	if err != nil || len(p.Keys) == 0 {
		return err // nobody's signature counts here
	}
	if found == nil {
		found = b.bringAlong(ctx, client, digest, text, from)
	}
	switch api.CodeOf(found) {
	case api.CodeNoLeader, api.CodeUnknown, api.CodeDenied:
		return found
	}
	if found != nil {
		fmt.Fprintf(b.errs, "%s is not taken: %s\n", name, oneLine(found.Error()))
	}
	return ctx.Err()
}

// signing is the mesh's policy, asked for once.
func (b *baggage) signing(ctx context.Context, client *api.Client) (api.Signing, error) {
	if b.policy == nil {
		var p api.Signing
		if err := client.Get(ctx, "/v1/signing", nil, &p); err != nil {
			return p, err
		}
		b.policy = &p
	}
	return *b.policy, nil
}

// fetchSignature reads what is at address with ending behind its path. What is
// not there is fs.ErrNotExist.
func fetchSignature(ctx context.Context, client *http.Client, address, ending string) (string, error) {
	if err := artifact.CheckURL(address); err != nil {
		return "", err
	}
	u, err := url.Parse(address)
	if err != nil {
		return "", err
	}
	u.Path, u.RawPath = u.Path+ending, ""
	ctx, cancel := context.WithTimeout(ctx, originPatience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return "", err
	}
	if client == nil {
		client = httpsOnly()
		defer client.CloseIdleConnections()
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", fmt.Errorf("read signature: %w", err)
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
		return checkedText(u.Host+u.Path, resp.Body)
	case http.StatusNotFound, http.StatusGone:
		return "", fs.ErrNotExist
	}
	return "", fmt.Errorf("read signature: %s answered %s", u.Host, resp.Status)
}

// httpsOnly is a client without credentials that is never sent to anything but
// https.
func httpsOnly() *http.Client {
	return &http.Client{
		Transport: http.DefaultTransport.(*http.Transport).Clone(), //nolint:forcetypeassert // the standard library's
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			if r.URL.Scheme != "https" || len(via) > 5 {
				return errors.New("redirected too often, or to something that is not https")
			}
			return nil
		},
	}
}
