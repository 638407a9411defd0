package trust

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// joinRig is a mesh whose first host takes joins with one known token.
type joinRig struct {
	mesh
	mux   *Mux
	token Token
	calls atomic.Int32
}

// newJoinRig serves joins; change, if not nil, spoils the good answer.
func newJoinRig(t *testing.T, role string, change func(*JoinResponse)) *joinRig {
	t.Helper()
	r := &joinRig{mesh: newMesh(t, "mesh-a")}
	tok, err := NewToken(r.auth.CertPEM, role)
	must(t, err)
	r.token = tok
	stored := tok.Hash()
	r.mux = startMux(t, r.identity(t, "h1", RoleAgent), MuxConfig{})
	serveEach(t, r.mux.Listener(ALPNJoin), func(c net.Conn) {
		_ = ServeJoin(c.(*tls.Conn), func(req JoinRequest) (JoinResponse, error) {
			r.calls.Add(1)
			if !req.Token().Verify(stored) {
				return JoinResponse{}, &JoinRefused{Why: "the token is not valid"}
			}
			if req.Host == "broken" {
				return JoinResponse{}, errors.New("internal detail")
			}
			cert, err := r.auth.Sign(req.CSR, req.Host, role)
			if err != nil {
				return JoinResponse{}, &JoinRefused{Why: err.Error()}
			}
			resp := JoinResponse{MeshID: r.id, MeshName: r.name, Role: role, Cert: cert, CA: r.auth.CertPEM,
				GossipKey: []byte("0123456789abcdef"), Seeds: []string{"10.0.0.1:7946"}}
			if change != nil {
				change(&resp)
			}
			return resp, nil
		})
	})
	return r
}

func (r *joinRig) join(host string, tok Token, csr []byte) (JoinResponse, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return Join(ctx, r.mux.Addr().String(), tok, JoinRequest{Host: host, HostID: "id-" + host, CSR: csr})
}

// TestJoinMakesAMember: what Join returns is an identity that the mesh's hosts
// talk to.
func TestJoinMakesAMember(t *testing.T) {
	for _, role := range []string{RoleAgent, RoleOperator} {
		r := newJoinRig(t, role, nil)
		serveEach(t, r.mux.Listener(ALPNH2), func(c net.Conn) { _, _ = c.Write([]byte("x")) })
		csr, key, err := NewCSR("h2")
		must(t, err)
		parsed, err := ParseToken(r.token.String())
		must(t, err)
		resp, err := r.join("h2", parsed, csr)
		must(t, err)
		i, err := NewIdentity(Credentials{MeshID: resp.MeshID, MeshName: resp.MeshName, Host: "h2", HostID: "id-h2",
			Role: resp.Role, CertPEM: resp.Cert, KeyPEM: key, CAPEM: resp.CA, GossipKey: resp.GossipKey})
		must(t, err)
		if len(resp.GossipKey) != 16 || len(resp.Seeds) != 1 {
			t.Errorf("answer: %d bytes of key, seeds %v", len(resp.GossipKey), resp.Seeds)
		}
		if !echoes(t, r.mux.Addr().String(), i.ClientTLS(ALPNH2)) {
			t.Errorf("%s: the new member is not served", role)
		}
	}
}

func TestJoinRefusals(t *testing.T) {
	r := newJoinRig(t, RoleAgent, nil)
	other := newJoinRig(t, RoleAgent, nil)
	csr, _, err := NewCSR("h2")
	must(t, err)
	foreign, err := NewToken(r.auth.CertPEM, RoleAgent)
	must(t, err)
	wrongSecret, wrongID := r.token, r.token
	wrongSecret.Secret, wrongID.ID = foreign.Secret, foreign.ID
	for name, c := range map[string]struct {
		tok   Token
		host  string
		csr   []byte
		why   string // in a JoinRefused
		retry bool
	}{
		"wrong secret":    {wrongSecret, "h2", csr, "not valid", false},
		"wrong id":        {wrongID, "h2", csr, "not valid", false},
		"bad name":        {r.token, "../h2", csr, "host name", false},
		"no name":         {r.token, "", csr, "host name", false},
		"300 characters":  {r.token, strings.Repeat("a", 300), csr, "host name", false},
		"no CSR":          {r.token, "h2", nil, "no signing request", false},
		"garbage CSR":     {r.token, "h2", []byte("x"), "signing request", false},
		"damaged token":   {Token{ID: "x", Secret: "y"}, "h2", csr, "", false},
		"internal detail": {r.token, "broken", csr, "could not take", true},
	} {
		_, err := r.join(c.host, c.tok, c.csr)
		refused, ok := errors.AsType[*JoinRefused](err)
		if !ok || !strings.Contains(refused.Why, c.why) || refused.Retry != c.retry {
			t.Errorf("%s: %v, want a refusal with %q, retry %v", name, err, c.why, c.retry)
			continue
		}
		if strings.Contains(err.Error(), "internal detail") || len(err.Error()) > 400 {
			t.Errorf("%s: says too much: %.500s", name, err)
		}
	}
	// A seed of another mesh, by the same names, never sees the secret.
	before := other.calls.Load()
	if _, err := other.join("h2", r.token, csr); !errors.Is(err, ErrOtherMesh) {
		t.Errorf("seed of another mesh: %v, want ErrOtherMesh", err)
	}
	if other.calls.Load() != before {
		t.Error("another mesh's seed was sent the request")
	}
}

// TestJoinPinsTheAuthority: a seed that shows the pinned authority, which is
// public, beside a certificate that it did not sign is refused.
func TestJoinPinsTheAuthority(t *testing.T) {
	a, b := newMesh(t, "mesh-a"), newMesh(t, "mesh-b")
	tok, err := NewToken(a.auth.CertPEM, RoleAgent)
	must(t, err)
	ca, _, err := a.auth.parse()
	must(t, err)
	csr, _, err := NewCSR("h2")
	must(t, err)
	impostor := *b.identity(t, "h1", RoleAgent)
	impostor.chain.Certificate = [][]byte{impostor.chain.Leaf.Raw, ca.Raw}
	for name, server := range map[string]*Identity{
		"impostor with our authority's certificate": &impostor,
		"operator as a seed":                        a.identity(t, "ann", RoleOperator),
		"crossed mesh":                              crossMesh(t, a, "mesh-b"),
	} {
		m := startMux(t, server, MuxConfig{})
		var asked atomic.Bool
		serveEach(t, m.Listener(ALPNJoin), func(c net.Conn) {
			_ = ServeJoin(c.(*tls.Conn), func(JoinRequest) (JoinResponse, error) {
				asked.Store(true)
				return JoinResponse{}, errors.New("no")
			})
		})
		if _, err := Join(context.Background(), m.Addr().String(), tok, JoinRequest{Host: "h2", HostID: "x", CSR: csr}); err == nil {
			t.Errorf("%s: joined", name)
		}
		if asked.Load() {
			t.Errorf("%s: was sent the secret", name)
		}
	}
}

// TestJoinChecksTheAnswer: a member that is wrong or hostile cannot hand out
// another identity than the one asked for.
func TestJoinChecksTheAnswer(t *testing.T) {
	b := newMesh(t, "mesh-b")
	var rig *joinRig
	otherCSR, _, err := NewCSR("h2")
	must(t, err)
	sign := func(host, role string, csr []byte) []byte {
		cert, err := rig.auth.Sign(csr, host, role)
		must(t, err)
		return cert
	}
	for name, change := range map[string]func(*JoinResponse){
		"another key":       func(r *JoinResponse) { r.Cert = sign("h2", RoleAgent, otherCSR) },
		"another host":      func(r *JoinResponse) { r.Cert = sign("h3", RoleAgent, otherCSR) },
		"another role":      func(r *JoinResponse) { r.Cert = sign("h2", RoleOperator, otherCSR) },
		"another authority": func(r *JoinResponse) { r.CA = b.auth.CertPEM },
		"another mesh":      func(r *JoinResponse) { r.MeshID = "mesh-b" },
		"no certificate":    func(r *JoinResponse) { r.Cert = nil },
		"nothing":           func(r *JoinResponse) { *r = JoinResponse{} },
	} {
		rig = newJoinRig(t, RoleAgent, change)
		csr, _, err := NewCSR("h2")
		must(t, err)
		if _, err := rig.join("h2", rig.token, csr); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestServeJoinBounds: what is too long, torn or unreadable never reaches the
// handler, and a caller who says nothing is cut off.
func TestServeJoinBounds(t *testing.T) {
	r := newJoinRig(t, RoleAgent, nil)
	frame := func(b []byte) []byte {
		var w bytes.Buffer
		must(t, writeFrame(&w, b))
		return w.Bytes()
	}
	big, err := json.Marshal(JoinRequest{Host: "h2", CSR: make([]byte, maxJoinRequest)})
	must(t, err)
	for name, b := range map[string][]byte{
		"oversize":      frame(big),
		"huge announce": binary.BigEndian.AppendUint32(nil, 1<<32-1),
		"torn":          frame(big[:100])[:50],
		"empty":         frame(nil),
		"not JSON":      frame([]byte("GET / HTTP/1.1")),
		"deep JSON":     frame(bytes.Repeat([]byte("["), maxJoinRequest)),
		"an array":      frame([]byte("[1]")),
	} {
		conn, err := tls.Dial("tcp", r.mux.Addr().String(), anonymous(ALPNJoin))
		must(t, err)
		// What is refused by its announced length alone is cut off in mid-write.
		if _, err = conn.Write(b); err == nil {
			_ = conn.CloseWrite()
		}
		if !closedByPeer(t, conn, 10*time.Second) {
			t.Errorf("%s: the connection is still open", name)
		}
		_ = conn.Close()
	}
	if n := r.calls.Load(); n != 0 {
		t.Errorf("the handler was called %d times", n)
	}
}

// TestServeJoinCutsOffTheSilent runs in virtual time.
func TestServeJoinCutsOffTheSilent(t *testing.T) {
	i := newMesh(t, "mesh-a").identity(t, "h1", RoleAgent)
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		served := make(chan error, 1)
		go func() {
			conn := tls.Server(there, i.ServerTLS(ALPNJoin))
			served <- ServeJoin(conn, func(JoinRequest) (JoinResponse, error) {
				t.Error("the handler was called")
				return JoinResponse{}, nil
			})
		}()
		conn := tls.Client(here, anonymous(ALPNJoin))
		must(t, conn.Handshake())
		begin := time.Now()
		_, err := conn.Read(make([]byte, 1))
		if err == nil || time.Since(begin) > 2*joinRequestTime {
			t.Errorf("read %v after %v, want the end within %v", err, time.Since(begin), 2*joinRequestTime)
		}
		if err := <-served; err == nil {
			t.Error("ServeJoin: no error")
		}
	})
}

// TestJoinHonoursItsContext: a seed that accepts and never answers.
func TestJoinHonoursItsContext(t *testing.T) {
	a := newMesh(t, "mesh-a")
	m := startMux(t, a.identity(t, "h1", RoleAgent), MuxConfig{})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	serveEach(t, m.Listener(ALPNJoin), func(c net.Conn) {
		_, _ = readFrame(c, maxJoinRequest)
		cancel() // the request is there, and no answer comes
		_, _ = c.Read(make([]byte, 1))
	})
	tok, err := NewToken(a.auth.CertPEM, RoleAgent)
	must(t, err)
	csr, _, err := NewCSR("h2")
	must(t, err)
	_, err = Join(ctx, m.Addr().String(), tok, JoinRequest{Host: "h2", HostID: "x", CSR: csr})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("err = %v, want context.Canceled", err)
	}
}

func FuzzJoinRequest(f *testing.F) {
	good, err := json.Marshal(JoinRequest{TokenID: "x", Secret: strings.Repeat("a", secretChars), Host: "h", HostID: "i", CSR: []byte("c")})
	if err != nil {
		f.Fatal(err)
	}
	var w bytes.Buffer
	if err := writeFrame(&w, good); err != nil {
		f.Fatal(err)
	}
	f.Add(w.Bytes())
	f.Add([]byte{0, 0, 0, 1, '{'})
	f.Add([]byte{255, 255, 255, 255})
	a := newMesh(f, "mesh-a")
	f.Fuzz(func(t *testing.T, b []byte) {
		frame, err := readFrame(bytes.NewReader(b), maxJoinRequest)
		if err != nil {
			return
		}
		if len(frame) > maxJoinRequest {
			t.Fatalf("a frame of %d bytes", len(frame))
		}
		req, err := decodeJoinRequest(frame)
		if err != nil {
			return
		}
		if !nameForm.MatchString(req.Host) || !nameForm.MatchString(req.TokenID) || !nameForm.MatchString(req.HostID) {
			t.Fatalf("accepted %v", req)
		}
		_, _ = a.auth.Sign(req.CSR, req.Host, RoleAgent) // any CSR: an error or a certificate, no panic
	})
}
