package events

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

const (
	serverStart   = 10 * time.Second
	maxConns      = 16 << 10
	maxPending    = 8 << 20 // bytes a slow client may keep waiting before it is cut off
	serverPing    = 30 * time.Second
	writeDeadline = 5 * time.Second
)

// ServerConfig describes the embedded NATS server of one host.
type ServerConfig struct {
	Name string // name of this host; unique in the cluster
	Mesh string // name of the mesh; hosts may publish under ganglion.<mesh>. only

	Host string // address to bind, for clients and routes; "" means 0.0.0.0
	Port int    // client port; 0 means any free

	// InProcessOnly opens no port at all: the server is reached by
	// InProcessConn alone. Host, ports, routes and TLS must then be unset.
	InProcessOnly bool

	ClusterName string   // equal on all servers of a mesh (its id); needed for a cluster
	ClusterPort int      // port for routes; 0 means no cluster, -1 any free
	Advertise   string   // host:port that other servers reach ClusterPort by; "" lets NATS guess
	Routes      []string // host:port of other servers' cluster ports

	// TLS is the server side of connections from hosts and of routes; it must
	// verify that client certificates are of this mesh. Nil means that hosts
	// cannot connect, only anonymous subscribers from loopback.
	TLS *tls.Config
	// RouteTLS is the client side of routes to other servers.
	RouteTLS *tls.Config
	// Authorize names the host a verified connection belongs to.
	Authorize func(tls.ConnectionState) (host string, ok bool)
	// Voter reports whether a host is, or lately was, a voter: only then may it
	// open routes, and publish what leaders tell (rollouts, intents, other
	// hosts). Nil lets every authorized host.
	Voter func(host string) bool

	Logger *slog.Logger // nil discards
}

func (c *ServerConfig) validate() error {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Host == "" && !c.InProcessOnly {
		c.Host = "0.0.0.0"
	}
	if c.Voter == nil {
		c.Voter = func(string) bool { return true }
	}
	clustered := c.ClusterPort != 0
	switch {
	case !isName(c.Name):
		return fmt.Errorf("make NATS server: name %q is not valid", c.Name)
	case !isName(c.Mesh):
		return fmt.Errorf("make NATS server: mesh name %q is not valid", c.Mesh)
	case c.InProcessOnly && (clustered || c.Port != 0 || c.Host != "" || c.TLS != nil):
		return errors.New("make NATS server: InProcessOnly excludes addresses, routes and TLS")
	case !clustered && len(c.Routes) > 0:
		return errors.New("make NATS server: Routes are set but ClusterPort is not")
	case clustered && (c.TLS == nil || c.RouteTLS == nil || c.ClusterName == ""):
		return errors.New("make NATS server: a cluster needs TLS, RouteTLS and ClusterName")
	case c.RouteTLS != nil && c.RouteTLS.InsecureSkipVerify && c.RouteTLS.VerifyConnection == nil:
		return errors.New("make NATS server: RouteTLS does not verify servers")
	case c.TLS != nil && c.Authorize == nil:
		return errors.New("make NATS server: TLS is set but Authorize is not")
	case c.TLS != nil && c.TLS.ClientAuth != tls.RequireAndVerifyClientCert &&
		(c.TLS.ClientAuth == tls.NoClientCert || c.TLS.VerifyConnection == nil):
		return errors.New("make NATS server: TLS does not verify client certificates")
	}
	return nil
}

// Server is an embedded core nats-server: no JetStream, WebSocket, MQTT, leaf
// nodes, gateways, monitoring port or signal handlers, and no way for it to
// end the process.
type Server struct {
	cfg   ServerConfig
	log   *natsLog
	ready chan struct{}

	mu     sync.Mutex
	routes []string
	opts   *server.Options // as the server has them; nil before start
	nats   *server.Server  // nil unless running
}

// NewServer checks the configuration. Run starts the server.
func NewServer(cfg ServerConfig) (*Server, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if _, err := routeURLs(cfg.Routes); err != nil {
		return nil, fmt.Errorf("make NATS server: %w", err)
	}
	return &Server{
		cfg: cfg, log: newNATSLog(cfg.Logger), ready: make(chan struct{}),
		routes: slices.Clone(cfg.Routes),
	}, nil
}

// Run starts the server and serves until ctx ends (nil) or the server cannot
// go on (an error: for example, a port is taken). It can be called once.
func (s *Server) Run(ctx context.Context) error {
	ns, err := s.start()
	if err != nil {
		return fmt.Errorf("start NATS server: %w", err)
	}
	defer func() {
		s.mu.Lock()
		s.nats = nil
		s.mu.Unlock()
		ns.Shutdown()
		ns.WaitForShutdown()
	}()
	if err := s.waitReady(ctx, ns); err != nil {
		return err
	}
	close(s.ready)
	select {
	case <-ctx.Done():
		return nil
	case <-s.log.fatal:
		return fmt.Errorf("run NATS server: %w", s.log.fatalErr())
	}
}

// start makes the server from the configuration and the routes of now.
func (s *Server) start() (*server.Server, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.opts != nil {
		return nil, errors.New("it was started before; make a new one")
	}
	opts, err := s.options()
	if err != nil {
		return nil, err
	}
	s.opts = opts
	ns, err := server.NewServer(opts)
	if err != nil {
		return nil, err
	}
	ns.SetLoggerV2(s.log, s.cfg.Logger.Enabled(context.Background(), slog.LevelDebug-4), false, false)
	ns.Start() // returns once its own goroutines run; failures go to the log
	s.nats = ns
	return ns, nil
}

func (s *Server) waitReady(ctx context.Context, ns *server.Server) error {
	deadline := time.Now().Add(serverStart)
	for !ns.ReadyForConnections(50 * time.Millisecond) {
		select {
		case <-s.log.fatal:
			return fmt.Errorf("start NATS server: %w", s.log.fatalErr())
		case <-ctx.Done():
			return nil
		default:
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("start NATS server: it was not ready within %s", serverStart)
		}
	}
	select {
	case <-s.log.fatal: // a listener may fail after others are ready
		return fmt.Errorf("start NATS server: %w", s.log.fatalErr())
	default:
		return nil
	}
}

// Ready is closed once the server accepts connections.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// InProcessConn connects to the server within the process, with the rights of
// this host. It implements InProcess.
func (s *Server) InProcessConn() (net.Conn, error) {
	s.mu.Lock()
	ns := s.nats
	s.mu.Unlock()
	if ns == nil {
		return nil, errors.New("connect to the embedded NATS server: it is not running")
	}
	return ns.InProcessConn()
}

// ClientURL is the URL for a client on this host, such as
// nats://127.0.0.1:4222; empty unless the server is ready.
func (s *Server) ClientURL() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.nats == nil || s.cfg.InProcessOnly {
		return ""
	}
	addr, ok := s.nats.Addr().(*net.TCPAddr)
	if !ok {
		return ""
	}
	host := addr.IP.String()
	if addr.IP.IsUnspecified() {
		host = "127.0.0.1"
	}
	return "nats://" + net.JoinHostPort(host, strconv.Itoa(addr.Port))
}

// ClusterPort is the port that routes come in by; 0 unless the server is ready
// and clustered.
func (s *Server) ClusterPort() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.nats == nil {
		return 0
	}
	if addr := s.nats.ClusterAddr(); addr != nil {
		return addr.Port
	}
	return 0
}

// Peers is the number of servers this one has a route to.
func (s *Server) Peers() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.nats == nil {
		return 0
	}
	return s.nats.NumRoutes() // one connection a route: PoolSize is off
}

// SetRoutes replaces the configured routes (host:port of cluster ports) while
// the server runs; before it runs, it takes them along when it starts. Servers
// tell each other of further ones, so one reachable route is enough.
func (s *Server) SetRoutes(routes []string) error {
	urls, err := routeURLs(routes)
	if err != nil {
		return fmt.Errorf("set NATS routes: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.cfg.ClusterPort == 0 && len(routes) > 0:
		return errors.New("set NATS routes: the server has no cluster port")
	case slices.Equal(routes, s.routes):
		return nil
	}
	s.routes = slices.Clone(routes)
	if s.nats == nil {
		return nil
	}
	// Clone what the server made of its options, not what it was given: every
	// difference is a change to it, and some are refused.
	opts := s.opts.Clone()
	opts.Routes = urls
	if err := s.nats.ReloadOptions(opts); err != nil {
		return fmt.Errorf("set NATS routes: %w", err)
	}
	s.opts = opts
	return nil
}

func routeURLs(routes []string) ([]*url.URL, error) {
	var urls []*url.URL
	for _, r := range routes {
		host, port, err := net.SplitHostPort(r)
		if n, perr := strconv.Atoi(port); err != nil || perr != nil || host == "" || n < 1 || n > 65535 {
			return nil, fmt.Errorf("route %q is not host:port", r)
		}
		urls = append(urls, &url.URL{Scheme: "nats-route", Host: r})
	}
	return urls, nil
}
