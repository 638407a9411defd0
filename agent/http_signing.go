package agent

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/agent/packages"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/intent"
	"github.com/ganglion-mesh/ganglion/trust"
	"github.com/ganglion-mesh/ganglion/workload/artifact"
	"github.com/ganglion-mesh/ganglion/workload/signature"
)

// signWait is how long a request with a signature waits for the package: shorter
// than who hands it on waits for an answer. It is asked again until it is there.
const signWait = 5 * time.Second

// governs tells whether the caller may change whom the mesh trusts: operators and
// local root, of any host, but no host by itself.
func (c caller) governs() bool {
	switch {
	case c.local:
		return true
	case c.peer.Role == trust.RoleOperator:
		return c.via == ""
	}
	return c.peer.Role == trust.RoleAgent && (c.via == callerLocal || strings.HasPrefix(c.via, trust.RoleOperator+"/"))
}

// governed serves those alone who may change whom the mesh trusts.
func (s *server) governed(h answer) answer {
	return func(r *http.Request, body []byte) (any, error) {
		if who, err := s.callerOf(r); err != nil || !who.governs() {
			return nil, api.Errorf(api.CodeDenied, "change the policy on signatures: only local root and operators may, no host by itself")
		}
		return h(r, body)
	}
}

// setSigning commits a change of the policy.
func (s *server) setSigning(r *http.Request, c topology.SetSigning, what string) error {
	who, err := s.callerOf(r)
	if err != nil {
		return err
	}
	if _, err := s.commit(r, topology.Command{SetSigning: &c}); err != nil {
		return err
	}
	s.log.Warn("the policy on signatures of packages was changed", "change", what, "by", who.handedOn())
	return nil
}

// getSigning answers the policy on signatures.
func (s *server) getSigning(r *http.Request, _ []byte) (any, error) {
	state, err := s.settled(r.Context())
	if err != nil {
		return nil, err
	}
	p := state.Signing()
	out := api.Signing{Required: p.Required, Keys: []api.SigningKey{}}
	for _, k := range p.Keys {
		line := api.SigningKey{Name: k.Name, Key: k.Key}
		if key, err := signature.ParseKey(k.Key); err == nil {
			line.Kind, line.ID = key.Kind(), key.ID()
		}
		out.Keys = append(out.Keys, line)
	}
	return out, nil
}

// postSigning says whether packages must be signed.
func (s *server) postSigning(r *http.Request, body []byte) (any, error) {
	var req api.SigningRequest
	if err := decode(body, &req); err != nil {
		return nil, err
	}
	what := "make signatures optional"
	if req.Required {
		what = "require signatures"
	}
	return nil, s.setSigning(r, topology.SetSigning{Require: &req.Required}, what)
}

// postSigningKey trusts a key.
func (s *server) postSigningKey(r *http.Request, body []byte) (any, error) {
	var req api.TrustRequest
	if err := decode(body, &req); err != nil {
		return nil, err
	}
	key, err := signature.ParseKey(req.Key)
	if err != nil {
		return nil, api.Errorf(api.CodeInvalid, "trust key %s: %v", req.Name, err)
	}
	err = s.setSigning(r, topology.SetSigning{Trust: &topology.SigningKey{Name: req.Name, Key: key.String()}}, "trust key "+req.Name)
	if err != nil {
		return nil, err
	}
	return api.SigningKey{Name: req.Name, Kind: key.Kind(), ID: key.ID(), Key: key.String()}, nil
}

// deleteSigningKey trusts a key no longer. What it let in runs on.
func (s *server) deleteSigningKey(r *http.Request, _ []byte) (any, error) {
	state, err := s.settled(r.Context())
	if err != nil {
		return nil, err
	}
	name, out := r.PathValue("name"), api.DistrustResponse{Apps: []string{}}
	if err := s.setSigning(r, topology.SetSigning{Distrust: name}, "distrust key "+name); err != nil {
		return nil, err
	}
	for _, app := range state.Apps() {
		for _, key := range app.Signed { // order does not matter
			if state.Signing().Name(key) == name {
				out.Apps = append(out.Apps, app.Spec.Name)
				break
			}
		}
	}
	return out, nil
}

// postSignature takes a signature of a package. The leader checks it against the
// package itself, which it gets for that: nobody's word is taken for it.
func (s *server) postSignature(r *http.Request, body []byte) (any, error) {
	d, err := digestIn(r)
	if err != nil {
		return nil, err
	}
	var req api.SignatureRequest
	if err := decode(body, &req); err != nil {
		return nil, err
	}
	sig, err := signature.Parse([]byte(req.Signature))
	if err != nil {
		return nil, api.Errorf(api.CodeInvalid, "sign package %s: %v", d.Short(), err)
	}
	state, err := s.settled(r.Context())
	if err != nil {
		return nil, err
	}
	key, waiting, err := s.signer(r, state.Signing(), sig, d, req.URL)
	if err != nil || waiting.Why != "" {
		return api.SignatureResponse{Digest: string(d), SignedBy: []string{}, Waiting: waiting.Why, Stuck: waiting.Stuck}, err
	}
	put := topology.PutSignature{Digest: string(d), Key: key, Text: sig.String()}
	if _, err := s.commit(r, topology.Command{PutSignature: &put}); err != nil {
		return nil, err
	}
	s.log.Info("package is signed", "package", d.Short(), "key", state.Signing().Name(key))
	return api.SignatureResponse{Digest: string(d), SignedBy: s.raft.node().State().SignedBy(string(d))}, nil
}

// signer is the trusted key that has signed the package, or how far the package
// is that is needed to know.
func (s *server) signer(r *http.Request, p topology.Signing, sig signature.Signature, d artifact.Digest, url string) (string, packages.State, error) {
	keys := keysOf(p, sig)
	if len(keys) == 0 {
		return "", packages.State{}, api.Errorf(api.CodeRejected, "sign package %s: key %s has made this signature, and this mesh does not trust it (ganglion artifact policy)", d.Short(), sig.KeyID())
	}
	for _, k := range keys {
		err := sig.Check(k, string(d), nil)
		if err == nil {
			return k.String(), packages.State{}, nil
		}
	}
	if st := s.fetchToCheck(r.Context(), d, url); !st.Ready {
		return "", st, nil
	}
	back, err := takeTurn(r, s.uploads)
	if err != nil {
		return "", packages.State{}, err
	}
	defer back()
	for _, k := range keys {
		c := &content{store: s.artifacts, digest: d, sum: sha256.New()}
		err = sig.Check(k, string(d), c.open)
		if (err == nil || errors.Is(err, signature.ErrBad)) && !c.whole() {
			err = fmt.Errorf("%w: on host %s", artifact.ErrCorrupt, s.cfg.Name)
		}
		if err == nil {
			return k.String(), packages.State{}, nil
		}
	}
	if errors.Is(err, signature.ErrBad) {
		return "", packages.State{}, api.Errorf(api.CodeInvalid, "sign package %s: the signature by key %s is of something else; sign the archive itself, or the line that ganglion artifact push prints", d.Short(), sig.KeyID())
	}
	return "", packages.State{}, api.Errorf(api.CodeRejected, "sign package %s: %v", d.Short(), err)
}

// keysOf are the trusted keys that a signature claims to be by. Ids of minisign
// are no proof, and two keys may share one.
func keysOf(p topology.Signing, sig signature.Signature) (list []signature.Key) {
	for _, k := range p.Keys {
		if key, err := signature.ParseKey(k.Key); err == nil && key.ID() == sig.KeyID() {
			list = append(list, key)
		}
	}
	return list
}

// fetchToCheck sees to it that the package is on this host, and waits a moment for
// it.
func (s *server) fetchToCheck(ctx context.Context, d artifact.Digest, url string) packages.State {
	ctx, cancel := context.WithTimeout(ctx, signWait)
	defer cancel()
	run := intent.Run{Artifact: string(d)}
	if url != "" {
		run = intent.Run{Artifact: url, Digest: string(d)}
	}
	for {
		changed := s.packages.Changed()
		st := s.packages.Store(run)
		if st.Ready || st.Failed || st.Stuck || ctx.Err() != nil {
			return st
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// meshSigning is what the mesh tells of the policy in passing.
func meshSigning(p topology.Signing) *api.MeshSigning {
	if len(p.Keys) == 0 {
		return nil
	}
	out := &api.MeshSigning{Required: p.Required}
	for _, k := range p.Keys {
		out.Keys = append(out.Keys, k.Name)
	}
	slices.Sort(out.Keys)
	return out
}
