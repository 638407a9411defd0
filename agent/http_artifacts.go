package agent

import (
	"context"
	"io"
	"net/http"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/workload/artifact"
)

const (
	// bodyStall is how long a push may send nothing.
	bodyStall = time.Minute
	// slowest is the rate, in bytes a second, below which who reads a package is
	// given up.
	slowest = 64 << 10
	// turnPatience is how long a request waits for its turn.
	turnPatience = 10 * time.Second
)

// takeTurn waits for a slot. Back is to be called when it is not needed any more.
func takeTurn(r *http.Request, slots chan struct{}) (back func(), err error) {
	ctx, cancel := context.WithTimeout(r.Context(), turnPatience)
	defer cancel()
	select {
	case slots <- struct{}{}:
		return func() { <-slots }, nil
	case <-ctx.Done():
		return nil, api.Errorf(api.CodeNoLeader, "%s: too many packages are on their way at once; try again", r.URL.Path)
	}
}

// putArtifact takes a package: streamed, bounded, and visible only if it is what
// its digest says.
func (s *server) putArtifact(w http.ResponseWriter, r *http.Request) {
	d, err := s.take(w, r)
	if err != nil {
		err = artifactError(err)
		s.log.Debug("take package", "error", err)
		api.WriteError(w, err)
		return
	}
	api.WriteJSON(w, http.StatusOK, api.ArtifactSpread{Digest: string(d), Hosts: []string{s.cfg.Name}})
}

func (s *server) take(w http.ResponseWriter, r *http.Request) (artifact.Digest, error) {
	d, err := digestIn(r)
	if err != nil {
		return "", err
	}
	back, err := takeTurn(r, s.uploads)
	if err != nil {
		return "", err
	}
	defer back()
	return s.artifacts.Put(r.Context(), &lively{http.NewResponseController(w), r.Body}, artifact.PutOptions{Want: d, Name: r.URL.Query().Get("name")})
}

// lively reads a body that must not stall.
type lively struct {
	rc *http.ResponseController
	r  io.Reader
}

func (l *lively) Read(p []byte) (int, error) {
	l.rc.SetReadDeadline(time.Now().Add(bodyStall)) //nolint:errcheck // then there is none
	return l.r.Read(p)
}

func digestIn(r *http.Request) (artifact.Digest, error) {
	d, err := artifact.ParseDigest(r.PathValue("digest"))
	if err != nil {
		return "", api.Errorf(api.CodeInvalid, "%v", err)
	}
	return d, nil
}

// getArtifact serves a package that this host has, or a range of it.
func (s *server) getArtifact(w http.ResponseWriter, r *http.Request) {
	d, err := digestIn(r)
	var back func()
	if err == nil {
		back, err = takeTurn(r, s.reads)
	}
	if err != nil {
		api.WriteError(w, err)
		return
	}
	defer back()
	f, err := s.artifacts.Open(d)
	if err != nil {
		api.WriteError(w, artifactError(err))
		return
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil {
		most := time.Minute + time.Duration(info.Size()/slowest)*time.Second
		http.NewResponseController(w).SetWriteDeadline(time.Now().Add(most)) //nolint:errcheck // then there is none
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Etag", `"`+string(d)+`"`)
	http.ServeContent(w, r, "", time.Time{}, f)
}

// getLocalArtifact describes a package that this host has, for who fetches it.
func (s *server) getLocalArtifact(r *http.Request, _ []byte) (any, error) {
	d, err := digestIn(r)
	if err != nil {
		return nil, err
	}
	c, err := s.artifacts.Chunks(d)
	if err != nil {
		return nil, artifactError(err)
	}
	return artifact.Described{Chunks: c, Name: s.artifacts.Name(d)}, nil
}

// getLocalArtifacts lists what this host has.
func (s *server) getLocalArtifacts(*http.Request, []byte) (any, error) {
	out := []api.LocalArtifact{}
	for _, i := range s.artifacts.List() {
		out = append(out, api.LocalArtifact{
			Digest: string(i.Digest), Name: i.Name, Size: i.Size, Unpacked: i.Unpacked, Pinned: s.packages.Pinned(i.Digest),
		})
	}
	return out, nil
}

// fetchWait is how long a request to fetch waits for the end of it. It is asked
// again until it is there.
const fetchWait = 2 * time.Second

// postFetch makes this host get a package, and tells how far it is.
func (s *server) postFetch(r *http.Request, _ []byte) (any, error) {
	d, err := digestIn(r)
	if err != nil {
		return nil, err
	}
	if c, err := s.callerOf(r); err != nil || !c.isAgent() {
		return nil, api.Errorf(api.CodeDenied, "fetch package to host %s: only agents of the mesh may ask for it", s.cfg.Name)
	}
	ctx, cancel := context.WithTimeout(r.Context(), fetchWait)
	defer cancel()
	for {
		changed := s.packages.Changed()
		st := s.packages.Fetch(d, r.URL.Query().Get("from"))
		if st.Ready || st.Failed || ctx.Err() != nil {
			return api.ArtifactFetch{Have: st.Ready, Failed: st.Failed, Stuck: st.Stuck, Why: st.Why}, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// deleteLocalArtifact removes a package from this host, unless it is needed.
func (s *server) deleteLocalArtifact(r *http.Request, _ []byte) (any, error) {
	d, err := digestIn(r)
	if err != nil {
		return nil, err
	}
	if c, err := s.callerOf(r); err != nil || !c.local && !c.isAgent() {
		return nil, api.Errorf(api.CodeDenied, "remove package from host %s alone: only agents of the mesh may ask for it", s.cfg.Name)
	}
	if s.packages.Pinned(d) {
		return nil, api.Errorf(api.CodeRejected, "remove package %s from host %s: an app needs it", d.Short(), s.cfg.Name)
	}
	return nil, artifactError(s.packages.Remove(d))
}
