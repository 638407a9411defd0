// Package trust makes one mesh's hosts recognise each other and nobody else.
//
// A mesh has one certificate authority ([Authority]), made by its first host.
// Each host and operator holds a key of its own and a certificate that the
// authority signed ([Identity]); who the holder is stands in a URI of the form
// spiffe://<mesh id>/<role>/<host>, read by [PeerOf]. A new host gets its
// certificate by a token ([Token]) that pins the authority and carries a secret
// ([Join], [ServeJoin]).
//
// All of a mesh's TCP traffic but that of NATS and gossip arrives on one port,
// where [Mux] splits TLS 1.3 connections by ALPN: [ALPNRaft], [ALPNH2] and
// [ALPNJoin]. Mesh and role of the peer are checked inside the handshake, before
// a byte of payload is read. Only [ALPNJoin] goes without a client certificate.
//
// # Serving and calling HTTP
//
// The connections that a Mux yields are plain *tls.Conn, so net/http speaks
// HTTP/2 over them by itself. The server's TLSConfig is not used for a
// handshake; naming h2 in it is what switches HTTP/2 on:
//
//	mux, err := trust.NewMux(trust.MuxConfig{
//		Listener: tcp,
//		TLS:      identity.ServerTLS(trust.ALPNRaft, trust.ALPNH2, trust.ALPNJoin),
//	})
//	srv := &http.Server{
//		Handler:   handler,
//		TLSConfig: &tls.Config{NextProtos: []string{trust.ALPNH2}, MinVersion: tls.VersionTLS13},
//	}
//	go srv.Serve(mux.Listener(trust.ALPNH2)) // and: go mux.Run(ctx)
//
// A handler reads its caller with PeerOf(*r.TLS). Clients use
// [Identity.HTTPTransport], which is an http.Transport whose DialTLSContext is
// [Identity.Dial] with ForceAttemptHTTP2 set; host names in the URL are
// addresses only, the certificate's URI is what is verified.
//
// # Validity and clocks
//
// Until rotation of certificates exists, they are valid for ten years from one
// hour before they were signed. The start of validity is not enforced between
// hosts, because hosts without a battery-backed clock boot in the past; the end
// is.
package trust
