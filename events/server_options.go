package events

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"strings"
	"sync"

	"github.com/nats-io/nats-server/v2/server"
)

// options translates the configuration for nats-server. The lock is held.
func (s *Server) options() (*server.Options, error) {
	urls, err := routeURLs(s.routes)
	if err != nil {
		return nil, err
	}
	c := &s.cfg
	o := &server.Options{
		ServerName: c.Name,
		Host:       c.Host,
		Port:       anyPort(c.Port),
		DontListen: c.InProcessOnly,
		NoSigs:     true,
		// Core NATS only: no JetStream, and no system account, whose
		// statistics would cost traffic and CPU while nothing happens.
		NoSystemAccount: true,
		MaxConn:         maxConns,
		MaxPending:      maxPending,
		PingInterval:    serverPing,
		WriteDeadline:   writeDeadline,

		CustomClientAuthentication: &clientAuth{cfg: c},
	}
	if c.TLS != nil {
		o.TLSConfig = c.TLS.Clone()
		o.AllowNonTLS = true // for loopback; clientAuth refuses everyone else
	}
	if c.ClusterPort != 0 {
		o.Cluster = server.ClusterOpts{
			Name: c.ClusterName, Host: c.Host, Port: c.ClusterPort, Advertise: c.Advertise,
			TLSConfig: bothSides(c.TLS, c.RouteTLS),
			PoolSize:  -1, // one connection a pair of servers is plenty for a story
		}
		o.CustomRouterAuthentication = &routeAuth{cfg: c}
		o.Routes = urls
	}
	return o, nil
}

// anyPort is NATS's word for "any free port".
func anyPort(port int) int {
	if port == 0 {
		return server.RANDOM_PORT
	}
	return port
}

// bothSides makes one TLS config that dials as client and accepts as srv, for
// nats-server takes a single one for routes.
func bothSides(srv, client *tls.Config) *tls.Config {
	c := client.Clone()
	c.ClientAuth = srv.ClientAuth
	accept := srv.Clone()
	c.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if accept.GetConfigForClient == nil {
			return accept, nil
		}
		own, err := accept.GetConfigForClient(hello)
		if own == nil && err == nil {
			own = accept
		}
		return own, err
	}
	return c
}

// natsLog turns nats-server's log into ours. Its Fatalf, by which nats-server
// would end the process, is kept for Run to return.
type natsLog struct {
	log   *slog.Logger
	once  sync.Once
	fatal chan struct{}
	err   error // set before fatal is closed
}

func newNATSLog(l *slog.Logger) *natsLog {
	return &natsLog{log: l.With("component", "nats"), fatal: make(chan struct{})}
}

func (l *natsLog) fatalErr() error { return l.err }

// Noticef implements server.Logger. Notices are chatter about connections.
func (l *natsLog) Noticef(format string, v ...any) { l.log.Debug(fmt.Sprintf(format, v...)) }

// Warnf implements server.Logger. One warning is not passed on: nats-server
// sees InsecureSkipVerify, but not that VerifyConnection verifies the peer,
// which ServerConfig demands.
func (l *natsLog) Warnf(format string, v ...any) {
	msg := fmt.Sprintf(format, v...)
	if strings.Contains(msg, "DO NOT USE IN PRODUCTION") {
		return
	}
	l.log.Warn(msg)
}

// Errorf implements server.Logger. To nats-server a refused client is an
// error; to the agent it is worth a warning.
func (l *natsLog) Errorf(format string, v ...any) { l.log.Warn(fmt.Sprintf(format, v...)) }

// Fatalf implements server.Logger and, unlike most, returns.
func (l *natsLog) Fatalf(format string, v ...any) {
	msg := fmt.Sprintf(format, v...)
	l.log.Error(msg)
	l.once.Do(func() {
		l.err = fmt.Errorf("%s", msg)
		close(l.fatal)
	})
}

// Debugf implements server.Logger.
func (l *natsLog) Debugf(format string, v ...any) { l.log.Debug(fmt.Sprintf(format, v...)) }

// Tracef implements server.Logger.
func (l *natsLog) Tracef(format string, v ...any) { l.log.Debug(fmt.Sprintf(format, v...)) }
