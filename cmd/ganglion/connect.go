package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"strings"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/trust"
)

// defaultAddr is where the local agent listens.
const defaultAddr = "unix:///run/ganglion/agent.sock"

// dial returns a client of the agent that GANGLION_ADDR picks. Nothing is sent
// yet.
func (c *cli) dial() (*api.Client, error) {
	addr := c.getenv("GANGLION_ADDR")
	if addr == "" {
		addr = defaultAddr
	}
	var cfg *tls.Config
	if strings.HasPrefix(addr, "https:") {
		var err error
		if cfg, err = c.clientTLS(addr); err != nil {
			return nil, usage(err)
		}
	}
	client, err := api.Dial(addr, cfg)
	return client, usage(err)
}

func (c *cli) getenv(key string) string {
	v, _ := c.env(key)
	return v
}

// clientTLS reads the credentials for calling a mesh port from afar. Peers are
// judged by the mesh's own authority and their role, not by host names: see
// trust.Identity.ClientTLS.
func (c *cli) clientTLS(addr string) (*tls.Config, error) {
	var pems [3][]byte
	for i, key := range []string{"GANGLION_CERT", "GANGLION_KEY", "GANGLION_CA"} {
		path := c.getenv(key)
		if path == "" {
			return nil, fmt.Errorf("connect agent %s: %s is not set; https needs GANGLION_CERT, GANGLION_KEY and GANGLION_CA", addr, key)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("connect agent %s: %s: %w", addr, key, err)
		}
		pems[i] = b
	}
	peer, err := peerOfPEM(pems[0])
	if err != nil {
		return nil, fmt.Errorf("connect agent %s: GANGLION_CERT: %w", addr, err)
	}
	id, err := trust.NewIdentity(trust.Credentials{
		MeshID: peer.MeshID, Role: peer.Role, Host: peer.Host,
		CertPEM: pems[0], KeyPEM: pems[1], CAPEM: pems[2],
	})
	if err != nil {
		return nil, fmt.Errorf("connect agent %s: %w", addr, err)
	}
	return id.ClientTLS(trust.ALPNH2), nil
}

// peerOfPEM tells for whom a certificate is.
func peerOfPEM(b []byte) (trust.Peer, error) {
	block, _ := pem.Decode(b)
	if block == nil || block.Type != "CERTIFICATE" {
		return trust.Peer{}, fmt.Errorf("no certificate in PEM form in it")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return trust.Peer{}, err
	}
	return trust.PeerOf(tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}})
}
