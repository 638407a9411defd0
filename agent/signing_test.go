package agent

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"strings"
	"testing"
	"time"

	"aead.dev/minisign"
	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/intent"
	"github.com/ganglion-mesh/ganglion/workload/signature"
)

// signer signs as one of the two tools does.
type signer struct {
	public string
	sign   func([]byte) string
}

func newMinisign(t *testing.T) signer {
	t.Helper()
	public, secret, err := minisign.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return signer{public.String(), func(b []byte) string {
		r := minisign.NewReader(bytes.NewReader(b))
		if _, err := r.Read(make([]byte, len(b)+1)); err != nil {
			t.Error(err)
		}
		return string(r.Sign(secret))
	}}
}

func newSSH(t *testing.T) signer {
	t.Helper()
	_, secret, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewSignerFromKey(secret)
	if err != nil {
		t.Fatal(err)
	}
	return signer{string(ssh.MarshalAuthorizedKey(key.PublicKey())), func(b []byte) string {
		s, err := sshsig.Sign(bytes.NewReader(b), key, sshsig.HashSHA512, signature.Namespace)
		if err != nil {
			t.Error(err)
			return ""
		}
		return string(sshsig.Armor(s))
	}}
}

// bring sends a signature of a package until it is judged.
func (h *host) bring(t *testing.T, digest, sig string) (api.SignatureResponse, error) {
	t.Helper()
	for {
		var out api.SignatureResponse
		err := h.Post(t.Context(), "/v1/artifacts/"+digest+"/signatures", nil, api.SignatureRequest{Signature: sig}, &out)
		if err != nil || out.Waiting == "" || out.Stuck {
			return out, err
		}
	}
}

func (h *host) trustKey(t *testing.T, name, key string) {
	t.Helper()
	if err := h.Post(t.Context(), "/v1/signing/keys", nil, api.TrustRequest{Name: name, Key: key}, nil); err != nil {
		t.Fatal(err)
	}
}

func (h *host) tryApply(t *testing.T, apps ...intent.App) error {
	t.Helper()
	return h.Post(t.Context(), "/v1/apply", nil, api.ApplyRequest{Intents: intent.Intents{Apps: apps}}, nil)
}

// pids are the processes of an app's copies.
func (h *host) pids(t *testing.T, app string) string {
	t.Helper()
	var st topology.AppStatus
	if err := h.Get(t.Context(), "/v1/status?app="+app, nil, &st); err != nil {
		t.Fatal(err)
	}
	out := ""
	for _, c := range st.Copies {
		out += fmt.Sprint(c.ID, " ", c.Pid, " ", c.Ready, "; ")
	}
	return out
}

// sleeping packs a program that differs by what it is called.
func sleeping(t *testing.T, name string) ([]byte, string) {
	t.Helper()
	return makePackage(t, map[string]string{"run": "#!/bin/sh\n# " + name + "\nexec sleep 100000\n"})
}

// TestSignedPackages is a mesh that comes to require signatures while it works.
func TestSignedPackages(t *testing.T) {
	hosts := startMesh(t, 3)
	awaitVoters(t, hosts[0], 3)
	h := hosts[1]
	data, digest := sleeping(t, "before")
	h.push(t, data, digest)
	h.apply(t, packaged("old", 2, digest))
	h.awaitReady(t, "old", 2)
	before := h.pids(t, "old")

	release, ci := newMinisign(t), newSSH(t)
	if err := h.Post(t.Context(), "/v1/signing", nil, api.SigningRequest{Required: true}, nil); api.CodeOf(err) != api.CodeRejected {
		t.Fatalf("signatures are required by no key: %v", err)
	}
	h.trustKey(t, "release", release.public)
	h.trustKey(t, "ci", ci.public)
	if err := h.Post(t.Context(), "/v1/signing", nil, api.SigningRequest{Required: true}, nil); err != nil {
		t.Fatal(err)
	}
	t.Run("unsigned", func(t *testing.T) { unsignedIsRefused(t, h) })
	t.Run("signed", func(t *testing.T) { signedRuns(t, hosts, release, ci) })
	t.Run("signatures of something else", func(t *testing.T) { otherSignatures(t, h, release) })
	t.Run("a host checks too", func(t *testing.T) { hostRefuses(t, hosts, release) })
	t.Run("a key that goes", func(t *testing.T) { keyGoes(t, h) })
	if after := h.pids(t, "old"); after != before {
		t.Errorf("what ran before was touched:\n%s\n%s", before, after)
	}
}

func unsignedIsRefused(t *testing.T, h *host) {
	data, digest := sleeping(t, "unsigned")
	h.push(t, data, digest)
	err := h.tryApply(t, packaged("web", 1, digest))
	if api.CodeOf(err) != api.CodeRejected || !strings.Contains(err.Error(), "ci, release") || strings.Contains(err.Error(), "\n") {
		t.Errorf("apply: %v", err)
	}
	if err := h.Get(t.Context(), "/v1/status?app=web", nil, nil); api.CodeOf(err) != api.CodeNotFound {
		t.Errorf("it was declared: %v", err)
	}
}

// signedRuns: one key has signed the package, the other the line that names it,
// which is taken without the package.
func signedRuns(t *testing.T, hosts []*host, release, ci signer) {
	h := hosts[2]
	data, digest := sleeping(t, "signed")
	if out, err := h.bring(t, digest, ci.sign([]byte(digest+"\n"))); err != nil || len(out.SignedBy) != 1 || out.SignedBy[0] != "ci" {
		t.Fatalf("%+v, %v", out, err)
	}
	h.push(t, data, digest)
	if out, err := h.bring(t, digest, release.sign(data)); err != nil || strings.Join(out.SignedBy, " ") != "ci release" {
		t.Fatalf("%+v, %v", out, err)
	}
	h.apply(t, packaged("web", 3, digest))
	h.awaitReady(t, "web", 3)
	var list []api.Artifact
	if err := h.Get(t.Context(), "/v1/artifacts", nil, &list); err != nil {
		t.Fatal(err)
	}
	for _, a := range list {
		if a.Digest == digest && strings.Join(a.SignedBy, " ") != "ci release" {
			t.Errorf("%+v", a)
		}
	}
	var m api.Mesh
	if err := h.Get(t.Context(), "/v1/mesh", nil, &m); err != nil || m.Signing == nil || !m.Signing.Required || len(m.Signing.Keys) != 2 {
		t.Errorf("%+v, %v", m, err)
	}
}

func otherSignatures(t *testing.T, h *host, release signer) {
	data, digest := sleeping(t, "tampered")
	h.push(t, data, digest)
	for name, c := range map[string]struct {
		sig  string
		code api.Code
	}{
		"of another package":    {release.sign([]byte("another")), api.CodeInvalid},
		"of another digest":     {release.sign([]byte("sha256:" + strings.Repeat("0", 64) + "\n")), api.CodeInvalid},
		"by nobody we know":     {newMinisign(t).sign(data), api.CodeRejected},
		"by no SSH key we know": {newSSH(t).sign(data), api.CodeRejected},
		"garbled":               {"garbled", api.CodeInvalid},
	} {
		if out, err := h.bring(t, digest, c.sig); api.CodeOf(err) != c.code {
			t.Errorf("%s: %+v, %v", name, out, err)
		}
	}
	if err := h.tryApply(t, packaged("web", 3, digest)); api.CodeOf(err) != api.CodeRejected {
		t.Errorf("apply: %v", err)
	}
	absent := "sha256:" + strings.Repeat("1", 64)
	if out, err := h.bring(t, absent, release.sign(data)); err != nil || !out.Stuck {
		t.Errorf("a signature of what nobody has: %+v, %v", out, err)
	}
}

// hostRefuses: a signature that no leader has checked is in the log. The app is
// let in, and no host runs it; what ran runs on.
func hostRefuses(t *testing.T, hosts []*host, release signer) {
	h := hosts[0]
	data, digest := sleeping(t, "forged")
	h.push(t, data, digest)
	await(t, 60*time.Second, "the version before is proved", func() error {
		var st topology.AppStatus
		if err := h.Get(t.Context(), "/v1/status?app=web", nil, &st); err != nil || st.Rollout.Outcome != topology.OutcomeDone {
			return fmt.Errorf("%+v, %v", st.Rollout, err)
		}
		return nil
	})
	before := h.pids(t, "web")
	key, err := signature.ParseKey(release.public)
	if err != nil {
		t.Fatal(err)
	}
	put := topology.Command{PutSignature: &topology.PutSignature{Digest: digest, Key: key.String(), Text: release.sign([]byte("x"))}}
	committed := false
	await(t, 20*time.Second, "the leader commits it", func() error {
		for _, h := range hosts {
			if n := h.agent.server.Load().raft.node(); n != nil && n.Status().Leader && !committed {
				res, err := n.Apply(t.Context(), put)
				if err != nil {
					return err
				}
				committed = res.Err == nil
			}
		}
		if !committed {
			return fmt.Errorf("no leader")
		}
		return nil
	})
	h.apply(t, packaged("web", 3, digest))
	await(t, 60*time.Second, "hosts refuse it", func() error {
		var st topology.AppStatus
		if err := h.Get(t.Context(), "/v1/status?app=web", nil, &st); err != nil {
			return err
		}
		if r := st.Rollout; r.Outcome != topology.OutcomeRolledBack || !strings.Contains(r.Reason, "is not what key "+key.ID()+" signed") {
			return fmt.Errorf("%+v", r)
		}
		if after := h.pids(t, "web"); after != before {
			return fmt.Errorf("what ran was touched:\n%s\n%s", before, after)
		}
		return nil
	})
}

// keyGoes: what it let in runs on, also when it starts again, and is changed no
// more.
func keyGoes(t *testing.T, h *host) {
	var out api.DistrustResponse
	if err := h.Delete(t.Context(), "/v1/signing/keys/ci", &out); err != nil || strings.Join(out.Apps, " ") != "web" {
		t.Fatalf("%+v, %v", out, err)
	}
	if err := h.Delete(t.Context(), "/v1/signing/keys/release", nil); api.CodeOf(err) != api.CodeRejected {
		t.Errorf("the last key of a mesh that requires signatures: %v", err)
	}
	if err := h.Post(t.Context(), "/v1/apps/web/restart", nil, nil, nil); err != nil {
		t.Fatal(err)
	}
	h.awaitReady(t, "web", 3)
}
