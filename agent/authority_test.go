package agent

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/trust"
)

// credential is one way to call the API of a host.
type credential struct {
	name   string
	client *http.Client
	base   string
	via    string // HeaderCaller that it claims
}

// authority returns the authority of h's mesh, which its first host knows.
func (h *host) authority() trust.Authority {
	tr := h.agent.server.Load().raft.node().State().Trust()
	return trust.Authority{CertPEM: tr.CACert, KeyPEM: tr.CAKey}
}

func (h *host) addr() string { return h.agent.server.Load().addr }

// signed makes a new identity under an authority.
func signed(t *testing.T, a trust.Authority, meshID, role, name string) *trust.Identity {
	t.Helper()
	csr, key, err := trust.NewCSR(name)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := a.Sign(csr, name, role)
	if err != nil {
		t.Fatal(err)
	}
	id, err := trust.NewIdentity(trust.Credentials{
		MeshID: meshID, MeshName: "test", Host: name, HostID: "x", Role: role, CertPEM: cert, KeyPEM: key, CAPEM: a.CertPEM,
	})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func callAs(t *testing.T, id *trust.Identity) *http.Client {
	tr := id.HTTPTransport()
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 10 * time.Second}
}

// call returns the status and the code of what is answered to one request; the
// code is "refused" if the connection is.
func (c credential) call(t *testing.T, method, path string, body any) (int, api.Code) {
	t.Helper()
	b, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, c.base+path, bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	if c.via != "" {
		req.Header.Set(api.HeaderCaller, c.via)
	}
	resp, err := c.client.Do(req)
	if err != nil {
		return 0, "refused"
	}
	defer resp.Body.Close()
	if resp.StatusCode < 300 {
		return resp.StatusCode, ""
	}
	var e api.Error
	if err := json.NewDecoder(resp.Body).Decode(&e); err != nil {
		t.Errorf("%s %s as %s: status %d with a body that is no error: %v", method, path, c.name, resp.StatusCode, err)
	}
	return resp.StatusCode, e.Code
}

// anyMember may call what the user of any host may: local root, operators, and
// hosts, which hand on what their local root asks for.
const anyMember = "host handed-on operator local"

// noPackage is the digest of a package that nobody has.
const noPackage = "sha256:0000000000000000000000000000000000000000000000000000000000000000"

// endpoints are all of them, as they are routed, with a request that changes
// nothing and who may send it: the matrix that SECURITY.md publishes.
var endpoints = []struct {
	route, path string
	body        any
	who         string
}{
	{"GET /v1/mesh", "", nil, anyMember},
	{"POST /v1/mesh", "", api.MeshSettings{}, anyMember},
	{"GET /v1/hosts", "", nil, anyMember},
	{"GET /v1/peers", "", nil, anyMember},
	{"GET /v1/status", "", nil, anyMember},
	{"GET /v1/endpoints/{app}", "/v1/endpoints/none", nil, anyMember},
	{"POST /v1/apply", "", api.ApplyRequest{}, anyMember},
	{"POST /v1/plan", "", api.ApplyRequest{}, anyMember},
	{"DELETE /v1/apps/{app}", "/v1/apps/none", nil, anyMember},
	{"GET /v1/reflexes", "", nil, anyMember},
	{"DELETE /v1/reflexes/{name}", "/v1/reflexes/none", nil, anyMember},
	{"DELETE /v1/senses/{name}", "/v1/senses/none", nil, anyMember},
	{"GET /v1/local/reflexes", "", nil, anyMember},
	{"GET /v1/local/reflexes/vars", "", nil, anyMember},
	{"GET /v1/apps/{app}/history", "/v1/apps/none/history", nil, anyMember},
	{"POST /v1/apps/{app}/rollback", "/v1/apps/none/rollback", api.RollbackRequest{}, anyMember},
	{"POST /v1/apps/{app}/{verb}", "/v1/apps/none/stop", nil, anyMember},
	{"POST /v1/hosts/{host}/drain", "/v1/hosts/none/drain", nil, anyMember},
	{"POST /v1/hosts/{host}/undrain", "/v1/hosts/none/undrain", nil, anyMember},
	{"POST /v1/hosts/{host}/remove", "/v1/hosts/none/remove", nil, anyMember},
	{"POST /v1/freeze", "", api.FreezeRequest{Apps: []string{"No App"}}, anyMember},
	{"POST /v1/thaw", "", api.ThawRequest{}, anyMember},
	{"GET /v1/local/freeze", "", nil, anyMember},
	{"GET /v1/artifacts", "", nil, anyMember},
	{"PUT /v1/artifacts/{digest}", "/v1/artifacts/" + noPackage, nil, anyMember},
	{"GET /v1/artifacts/{digest}", "/v1/artifacts/" + noPackage, nil, anyMember},
	{"DELETE /v1/artifacts/{digest}", "/v1/artifacts/" + noPackage, nil, anyMember},
	{"POST /v1/artifacts/{digest}/spread", "/v1/artifacts/" + noPackage + "/spread", nil, anyMember},
	{"POST /v1/artifacts/{digest}/signatures", "/v1/artifacts/" + noPackage + "/signatures", api.SignatureRequest{}, anyMember},
	{"GET /v1/signing", "", nil, anyMember},
	{"POST /v1/signing", "", api.SigningRequest{}, "handed-on operator local"},
	{"POST /v1/signing/keys", "", api.TrustRequest{}, "handed-on operator local"},
	{"DELETE /v1/signing/keys/{name}", "/v1/signing/keys/none", nil, "handed-on operator local"},
	{"GET /v1/local/artifacts", "", nil, anyMember},
	{"GET /v1/local/artifacts/{digest}", "/v1/local/artifacts/" + noPackage, nil, anyMember},
	{"DELETE /v1/local/artifacts/{digest}", "/v1/local/artifacts/" + noPackage, nil, "host handed-on-agent local"},
	{"POST /v1/local/artifacts/{digest}/fetch", "/v1/local/artifacts/" + noPackage + "/fetch", nil, "host handed-on-agent"},
	{"POST /v1/hosts/{host}/retire", "/v1/hosts/h2/retire", nil, "host"},
	{"GET /v1/snapshot", "", nil, anyMember},
	{"GET /v1/snapshot/keys", "", nil, "operator local"},
	{"POST /v1/restore", "", api.RestoreRequest{}, anyMember},
	{"POST /v1/tokens", "", api.TokenRequest{Role: trust.RoleAgent}, anyMember},
	{"POST /v1/enrol", "", trust.JoinRequest{}, "host handed-on-agent"},
	{"POST /v1/init", "", api.InitRequest{}, anyMember},
	{"POST /v1/join", "", api.JoinRequest{}, anyMember},
	{"GET /v1/version", "", nil, anyMember},
	{"GET /v1/nats", "", nil, anyMember},
	{"POST /v1/leave", "", nil, "local"},
	{"GET /v1/local/status", "", nil, anyMember},
	{"POST /v1/local/apps/{app}/{verb}", "/v1/local/apps/none/stop", nil, "local"},
	{"GET /v1/events", "", nil, anyMember},
	{"GET /v1/local/events", "", nil, anyMember},
	{"GET /v1/logs/{app}", "/v1/logs/none", nil, anyMember},
	{"GET /v1/local/logs/{app}/{n}", "/v1/local/logs/none/0", nil, anyMember},
	{"POST /v1/report", "", api.Report{Host: "h2"}, "host"},
	{"POST /v1/lease", "", api.LeaseRequest{Host: "h2"}, "host"},
	{"POST /v1/loan", "", api.LoanRequest{Host: "h2"}, "host"},
	{"POST /v1/act", "", api.ActRequest{Host: "h2"}, "host"},
	{"GET /v1/slice", "/v1/slice?host=h2&era=0&index=0", nil, "host"},
	{"POST /v1/voter", "", api.VoterRequest{}, "host handed-on-agent"},
}

func TestEveryEndpointWithEveryCredential(t *testing.T) {
	hosts := startMesh(t, 2)
	h1, h2 := hosts[0], hosts[1]
	authority, meshID := h1.authority(), h1.agent.server.Load().id.Peer().MeshID
	otherID := newID()
	other, err := trust.NewAuthority(otherID, "test")
	if err != nil {
		t.Fatal(err)
	}
	base := "https://" + h1.addr()
	own := callAs(t, h2.agent.server.Load().id)
	creds := []credential{
		{name: "none", base: base, client: &http.Client{Transport: &http.Transport{
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true, NextProtos: []string{trust.ALPNH2}}, ForceAttemptHTTP2: true,
		}}},
		{name: "other mesh", base: base, client: callAs(t, signed(t, other, otherID, trust.RoleAgent, "h2"))},
		{name: "removed", base: base, client: callAs(t, signed(t, authority, meshID, trust.RoleAgent, "gone"))},
		{name: "namesake", base: base, client: callAs(t, signed(t, authority, meshID, trust.RoleAgent, "h2"))},
		{name: "host for removed", base: base, client: own, via: "agent/gone"},
		{name: "host", base: base, client: own},
		{name: "handed-on", base: base, client: own, via: callerLocal},
		{name: "handed-on-agent", base: base, client: own, via: "agent/h1"},
		{name: "operator", base: base, client: callAs(t, signed(t, authority, meshID, trust.RoleOperator, "ann"))},
		{name: "operator as host", base: base, client: callAs(t, signed(t, authority, meshID, trust.RoleOperator, "h2")), via: "agent/h2"},
		{name: "local", base: "http://agent", client: socketClient(t, h1)},
	}
	// What the leader knows of its hosts must not depend on who calls first.
	awaitVoters(t, h1, 1)
	for _, e := range endpoints {
		if e.route == "POST /v1/enrol" {
			e.body = aJoin(t, h1) // without a good token every answer would be denied
		}
		method, path, _ := strings.Cut(e.route, " ")
		if e.path != "" {
			path = e.path
		}
		for _, c := range creds {
			if e.route == "POST /v1/leave" && c.name == "local" {
				continue // it would; TestLeave covers it
			}
			status, code := c.call(t, method, path, e.body)
			want := api.CodeDenied
			switch c.name {
			case "none", "other mesh":
				want = "refused"
			case "removed", "namesake", "host for removed":
				want = api.CodeRemoved
			default:
				may := " " + e.who + " "
				if strings.Contains(may, " "+c.name+" ") || e.who == anyMember {
					want = ""
				}
			}
			refused := code == "refused" || code == api.CodeRemoved || code == api.CodeDenied
			if want == "" && refused || want != "" && code != want {
				t.Errorf("%s as %s: status %d, code %q, want %q", e.route, c.name, status, code, want)
			}
		}
	}
}

// aJoin is a join with a good token and no key.
func aJoin(t *testing.T, h *host) trust.JoinRequest {
	t.Helper()
	var made api.Token
	if err := h.Post(t.Context(), "/v1/tokens", nil, api.TokenRequest{}, &made); err != nil {
		t.Fatal(err)
	}
	token, err := trust.ParseToken(made.Token)
	if err != nil {
		t.Fatal(err)
	}
	return trust.JoinRequest{TokenID: token.ID, Secret: token.Secret, Host: "x", HostID: "x"}
}

func TestTheMatrixIsWhole(t *testing.T) {
	src, err := os.ReadFile("server.go")
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, e := range endpoints {
		known[e.route] = true
	}
	routed := regexp.MustCompile(`HandleFunc\("([^"]+)"`).FindAllStringSubmatch(string(src), -1)
	for _, m := range routed {
		if !known[m[1]] {
			t.Errorf("%s is in no test of who may call it", m[1])
		}
	}
	if len(routed) != len(endpoints) {
		t.Errorf("%d routes, %d in the matrix", len(routed), len(endpoints))
	}
}

// TestTokenBearerIsNoOtherHost: host ids travel in gossip, so they prove nothing.
func TestTokenBearerIsNoOtherHost(t *testing.T) {
	h1 := startHost(t, "h1", nil)
	token, err := trust.ParseToken(h1.init(t))
	if err != nil {
		t.Fatal(err)
	}
	csr, _, err := trust.NewCSR("h1")
	if err != nil {
		t.Fatal(err)
	}
	req := trust.JoinRequest{Host: "h1", HostID: h1.agent.server.Load().hostID(), CSR: csr}
	if _, err := trust.Join(t.Context(), h1.addr(), token, req); err == nil || !strings.Contains(err.Error(), "not that of its key") {
		t.Errorf("a token and a host's id are enough to become that host: %v", err)
	}
}

// TestOlderLeaderEndsNoRaftServer: a server that has lost contact may count in a
// quorum that an older leader does not know of.
func TestOlderLeaderEndsNoRaftServer(t *testing.T) {
	h := startHost(t, "h1", nil)
	h.init(t)
	slot := h.agent.server.Load().raft
	term := slot.node().Term()
	if err := slot.end(t.Context(), term-1); err == nil || slot.node() == nil {
		t.Errorf("ended: %v", err)
	}
}

func TestRemovedHostIsTurnedAwayAndCanLeave(t *testing.T) {
	hosts := startMesh(t, 2)
	h1, h2 := hosts[0], hosts[1]
	s := h1.agent.server.Load()
	res, err := s.raft.node().Apply(t.Context(), topology.Command{RemoveHost: &topology.RemoveHost{Name: "h2", ID: h2.agent.server.Load().hostID()}})
	if err != nil || res.Err != nil {
		t.Fatal(err, res.Err)
	}
	err = h2.Get(t.Context(), "/v1/hosts", nil, nil)
	if api.CodeOf(err) != api.CodeRemoved {
		t.Errorf("a removed host reads: %v", err)
	}
	if conn, err := h2.agent.server.Load().links.dial(t.Context(), h1.addr(), trust.ALPNRaft); err == nil {
		conn.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := conn.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
			t.Errorf("a removed host's raft connection stays open: %v", err)
		}
		conn.Close()
	}
	if err := h2.Post(t.Context(), "/v1/leave", nil, nil, nil); err != nil {
		t.Errorf("a removed host cannot leave: %v", err)
	}
}
