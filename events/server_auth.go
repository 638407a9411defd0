package events

import (
	"crypto/tls"
	"net"

	"github.com/nats-io/nats-server/v2/server"
)

// clientAuth decides who a client is, by how it came, and what it may do:
//
//   - in-process: this host's own publisher, with a voter's rights, because it
//     could say anything through its own server anyway;
//   - TLS: the host of its certificate, which the handshake has verified;
//   - plain text from loopback: anonymous, may subscribe, never publish;
//   - anything else is refused.
//
// All rights are allow-lists. User names and passwords are not looked at.
// Every change of routes checks all clients and routes again, so that a host
// gains and loses what Voter says without a reconnection.
type clientAuth struct{ cfg *ServerConfig }

// Check implements server.Authentication.
func (a *clientAuth) Check(c server.ClientAuthentication) bool {
	if state := c.GetTLSConnectionState(); state != nil {
		host, ok := a.cfg.hostOf(state)
		if !ok {
			return false
		}
		c.RegisterUser(a.hostUser(host, a.cfg.Voter(host)))
		return true
	}
	switch addr := c.RemoteAddress(); {
	case addr == nil:
		return false
	case addr.Network() == "pipe": // net.Pipe: no one outside the process can
		c.RegisterUser(a.hostUser(a.cfg.Name, true))
		return true
	default:
		tcp, ok := addr.(*net.TCPAddr)
		if !ok || !tcp.IP.IsLoopback() {
			return false
		}
		c.RegisterUser(&server.User{Permissions: rights([]string{})})
		return true
	}
}

func (a *clientAuth) hostUser(host string, voter bool) *server.User {
	// No Username: at a reload of routes nats-server would look for it among
	// the configured users, of which there are none, and drop the client.
	return &server.User{Permissions: rights(publishRights(a.cfg.Mesh, host, voter))}
}

// rights allows publishing on the given subjects, no more (an empty list means
// none), and subscribing to the whole story.
func rights(publish []string) *server.Permissions {
	return &server.Permissions{
		Publish:   &server.SubjectPermission{Allow: publish},
		Subscribe: &server.SubjectPermission{Allow: []string{subjectRoot + ".>"}},
	}
}

// publishRights lists the subjects a host may publish on. Where the subject
// names the host, only its own. Subjects of copies name no host, so every host
// may publish on them: there a consumer has the event's source alone. What
// leaders tell of others is for voters.
func publishRights(mesh, host string, voter bool) []string {
	p := subjectRoot + "." + mesh + "."
	allow := []string{
		p + "host." + host + ".*",
		p + "app.*.*.*",
		p + "reflex.*." + host + ".*",
		p + "freeze." + host + ".*",
	}
	if voter {
		allow = append(allow, p+"leader."+host+".*", p+"rollout.*.*", p+"intent.*.*", p+"mesh.*.*")
		for _, what := range []string{"joined", "suspect", "failed", "recovered", "left", "draining", "drained", "removed"} {
			allow = append(allow, p+"host.*."+what)
		}
	}
	return allow
}

// routeAuth lets only voters of the mesh connect as servers, for a server can
// say anything in anyone's name.
type routeAuth struct{ cfg *ServerConfig }

// Check implements server.Authentication.
func (a *routeAuth) Check(c server.ClientAuthentication) bool {
	host, ok := a.cfg.hostOf(c.GetTLSConnectionState())
	return ok && a.cfg.Voter(host)
}

// hostOf is the host that a connection has proved to be, if any.
func (c *ServerConfig) hostOf(state *tls.ConnectionState) (string, bool) {
	if state == nil || len(state.PeerCertificates) == 0 {
		return "", false
	}
	host, ok := c.Authorize(*state)
	return host, ok && isName(host)
}
