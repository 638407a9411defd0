package trust

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

const (
	// maxJoinRequest is all that a stranger may send.
	maxJoinRequest  = 16 << 10
	maxJoinResponse = 256 << 10
	// joinRequestTime is how long a stranger has to send its request.
	joinRequestTime = 5 * time.Second
	// joinTime bounds a whole join: the leader may have to be found, and the
	// enrolment committed.
	joinTime = 30 * time.Second
)

// ErrOtherMesh is returned by Join when the seed does not belong to the mesh
// that the token pins.
var ErrOtherMesh = errors.New("it is not of the mesh that the token was made for")

// JoinRequest is what a host says to become a member.
type JoinRequest struct {
	TokenID string `json:"token_id"`
	Secret  string `json:"secret"`
	Host    string `json:"host"`
	HostID  string `json:"host_id"`
	CSR     []byte `json:"csr"` // PEM or DER
}

// Token returns the part of the token that the request carries, for Verify.
func (r JoinRequest) Token() Token { return Token{ID: r.TokenID, Secret: r.Secret} }

// GoString keeps the secret out of %#v.
func (r JoinRequest) GoString() string { return r.String() }

// String keeps the secret out of formatted output.
func (r JoinRequest) String() string {
	return fmt.Sprintf("join of host %q with token %q", r.Host, r.TokenID)
}

// validate checks the form of everything before anyone acts on it.
func (r JoinRequest) validate() error {
	for _, part := range []struct{ what, value string }{{"token id", r.TokenID}, {"host name", r.Host}, {"host id", r.HostID}} {
		if !nameForm.MatchString(part.value) {
			return fmt.Errorf("%s %.80q: want lower-case letters, digits and dashes, at most 63", part.what, part.value)
		}
	}
	if len(r.Secret) != secretChars {
		return errors.New("the token's secret is damaged")
	}
	if len(r.CSR) == 0 {
		return errors.New("no signing request")
	}
	return nil
}

// JoinResponse is what a new member needs, or why it is refused.
type JoinResponse struct {
	MeshID    string   `json:"mesh_id,omitempty"`
	MeshName  string   `json:"mesh_name,omitempty"`
	Role      string   `json:"role,omitempty"`
	Cert      []byte   `json:"cert,omitempty"` // PEM
	CA        []byte   `json:"ca,omitempty"`   // PEM
	GossipKey []byte   `json:"gossip_key,omitempty"`
	Seeds     []string `json:"seeds,omitempty"` // gossip addresses of members
	Error     string   `json:"error,omitempty"`
	Retry     bool     `json:"retry,omitempty"` // with Error: the same join may succeed later
}

// JoinRefused is an answer that is no: from Join, what the mesh said; from a
// handler of ServeJoin, what the joiner may be told.
type JoinRefused struct {
	Why   string
	Retry bool // whether the same join may succeed later
}

func (e *JoinRefused) Error() string { return "join refused: " + e.Why }

// Join asks the agent at addr (host:port) to take this host in. It speaks only
// to a member of the mesh that the token pins, and accepts only a certificate of
// that mesh for the key and name it asked for. TokenID and Secret of req are
// filled from t. Errors: *JoinRefused is the mesh's answer; ErrOtherMesh a seed of
// another mesh; anything else may pass (nobody there, no leader).
func Join(ctx context.Context, addr string, t Token, req JoinRequest) (JoinResponse, error) {
	dial := func(ctx context.Context, addr string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	}
	return JoinVia(ctx, dial, addr, t, req)
}

// JoinVia is Join over another way to reach addr than the host's own TCP.
func JoinVia(ctx context.Context, dial func(context.Context, string) (net.Conn, error), addr string, t Token, req JoinRequest) (JoinResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, joinTime)
	defer cancel()
	req.TokenID, req.Secret = t.ID, t.Secret
	if err := errors.Join(t.validate(), req.validate()); err != nil {
		return JoinResponse{}, &JoinRefused{Why: err.Error()}
	}
	raw, err := dial(ctx, addr)
	if err != nil {
		return JoinResponse{}, fmt.Errorf("join through %s: %w", addr, err)
	}
	conn := tls.Client(raw, joinTLS(t))
	defer conn.Close()
	if err := conn.HandshakeContext(ctx); err != nil {
		return JoinResponse{}, fmt.Errorf("join through %s: %w", addr, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	resp, err := exchange(conn, req)
	if err != nil {
		return JoinResponse{}, fmt.Errorf("join through %s: %w", addr, errors.Join(err, ctx.Err()))
	}
	if resp.Error != "" {
		return JoinResponse{}, &JoinRefused{Why: resp.Error, Retry: resp.Retry}
	}
	if err := checkJoined(t, req, resp); err != nil {
		return JoinResponse{}, fmt.Errorf("join through %s: the answer is not usable: %w", addr, err)
	}
	return resp, nil
}

// joinTLS pins the server to the token: among what it presents is the
// authority with the token's hash, and that authority signed its certificate, as
// an agent of its mesh.
func joinTLS(t Token) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		NextProtos:         []string{ALPNJoin},
		InsecureSkipVerify: true, // no authority is known but the pinned one
		VerifyConnection: func(cs tls.ConnectionState) error {
			if cs.NegotiatedProtocol != ALPNJoin {
				return errors.New("verify seed: it takes no joins")
			}
			for _, cert := range cs.PeerCertificates {
				if hashCert(cert) != t.CAHash {
					continue
				}
				pinned, err := newAnchor(cert)
				if err != nil {
					return fmt.Errorf("verify seed: %w", err)
				}
				return pinned.verifyPeer(cs, x509.ExtKeyUsageServerAuth, []string{RoleAgent})
			}
			return fmt.Errorf("verify seed: %w", ErrOtherMesh)
		},
	}
}

func exchange(conn *tls.Conn, req JoinRequest) (JoinResponse, error) {
	b, err := json.Marshal(req)
	if err != nil {
		return JoinResponse{}, err
	}
	if len(b) > maxJoinRequest {
		return JoinResponse{}, errors.New("the request is too large")
	}
	if err := writeFrame(conn, b); err != nil {
		return JoinResponse{}, err
	}
	b, err = readFrame(conn, maxJoinResponse)
	if err != nil {
		return JoinResponse{}, fmt.Errorf("read the answer: %w", err)
	}
	var resp JoinResponse
	if err := json.Unmarshal(b, &resp); err != nil {
		return JoinResponse{}, fmt.Errorf("read the answer: %w", err)
	}
	return resp, nil
}

// checkJoined verifies that the answer is what was asked for, from the mesh that
// the token pins.
func checkJoined(t Token, req JoinRequest, resp JoinResponse) error {
	ca, err := parseCert(resp.CA)
	if err != nil {
		return err
	}
	if hashCert(ca) != t.CAHash {
		return ErrOtherMesh
	}
	trust, err := newAnchor(ca)
	if err != nil {
		return err
	}
	leaf, err := parseCert(resp.Cert)
	if err != nil {
		return err
	}
	if err := checkLeaf(trust, leaf, Peer{MeshID: resp.MeshID, Role: t.Role, Host: req.Host}); err != nil {
		return err
	}
	key, err := parseCSR(req.CSR)
	if err != nil {
		return err
	}
	if !sameKey(leaf.PublicKey, key) {
		return errors.New("the certificate is for another key")
	}
	return nil
}

// ServeJoin answers the one request of a connection of ALPNJoin and closes it.
// handle is called at most once, with a request whose form is checked and whose
// token is not; its *JoinRefused is told to the joiner, any other error only that
// it failed. The error returned is for the log.
func ServeJoin(conn *tls.Conn, handle func(JoinRequest) (JoinResponse, error)) error {
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(joinRequestTime)); err != nil {
		return fmt.Errorf("serve join: %w", err)
	}
	b, err := readFrame(conn, maxJoinRequest)
	if err != nil {
		return fmt.Errorf("serve join: read request: %w", err)
	}
	if err := conn.SetDeadline(time.Now().Add(joinTime)); err != nil {
		return fmt.Errorf("serve join: %w", err)
	}
	req, err := decodeJoinRequest(b)
	var resp JoinResponse
	if err == nil {
		resp, err = handle(req)
	}
	if err != nil {
		resp = refusal(err)
	}
	b, encodeErr := json.Marshal(resp)
	if encodeErr == nil {
		encodeErr = writeFrame(conn, b)
	}
	if err = errors.Join(err, encodeErr); err != nil {
		return fmt.Errorf("serve join: %w", err)
	}
	return nil
}

// decodeJoinRequest reads a stranger's request. Unknown fields are ignored, so
// that a newer host can join an older mesh.
func decodeJoinRequest(b []byte) (JoinRequest, error) {
	var req JoinRequest
	if err := json.Unmarshal(b, &req); err != nil {
		return JoinRequest{}, &JoinRefused{Why: "the request is not readable"}
	}
	if err := req.validate(); err != nil {
		return JoinRequest{}, &JoinRefused{Why: err.Error()}
	}
	return req, nil
}

// refusal tells a stranger no more than the handler meant it to know.
func refusal(err error) JoinResponse {
	if refused, ok := errors.AsType[*JoinRefused](err); ok {
		return JoinResponse{Error: refused.Why, Retry: refused.Retry}
	}
	return JoinResponse{Error: "the mesh could not take the host in now; see the log of the seed", Retry: true}
}

// A frame is its length, four bytes big-endian, and as many bytes.
func writeFrame(w io.Writer, b []byte) error {
	_, err := w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...))
	return err
}

func readFrame(r io.Reader, limit uint32) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > limit {
		return nil, fmt.Errorf("%d bytes announced, at most %d are taken", n, limit)
	}
	// Grows with what arrives, so that an announcement alone costs nothing.
	b, err := io.ReadAll(io.LimitReader(r, int64(n)))
	if err != nil {
		return nil, err
	}
	if len(b) < int(n) {
		return nil, io.ErrUnexpectedEOF
	}
	return b, nil
}
