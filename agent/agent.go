// Package agent is the whole of a ganglion host: it wires gossip, consensus,
// events, trust and the drivers together, runs the leader's loop where this
// host leads, keeps the copies that the topology gives it, and serves the API.
//
// An agent is embeddable: New takes what it needs and starts no goroutine, Run
// blocks until its context ends and has joined everything when it returns. Copies
// outlive it.
package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/trust"
)

// ErrLeft is returned by Run when the host has left its mesh and forgotten its
// identity. A new agent on the same data directory waits for another mesh.
var ErrLeft = errors.New("this host has left its mesh")

// errLeft ends the services of a member that left.
var errLeft = errors.New("left")

// Agent is one host's agent.
type Agent struct {
	cfg    Config
	store  *store
	driver hostDriver
	local  net.Listener
	known  *admission             // the identity this host had at New; nil: none
	claim  claim                  // who may make this host a member
	admit  chan admission         // the identity won by init or join: there is but one
	server atomic.Pointer[server] // of the mesh this host is in; nil: none
	ready  chan struct{}          // closed when Run serves the socket
	lives  chan struct{}          // closed when server is set, or will not be
}

// admission is an identity that a host has won, to become a member with.
type admission struct {
	id       *trust.Identity
	founding []topology.Command // not empty: of a new mesh
	done     chan error         // told whether the member could be put together; may be nil
}

// New validates the configuration, takes the data directory and opens the local
// socket. It starts nothing.
func New(cfg Config) (_ *Agent, err error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("configure agent: %w", err)
	}
	a := &Agent{cfg: cfg, admit: make(chan admission, 1), ready: make(chan struct{}), lives: make(chan struct{})}
	if a.store, err = openStore(cfg.DataDir); err != nil {
		return nil, err
	}
	var opened closers
	opened.add(a.store.close)
	// Before the socket is there: init and join change what is on disk.
	if a.known, err = a.enrolled(); err == nil {
		a.driver, err = openDriver(&a.cfg)
	}
	if err == nil {
		opened.add(a.driver.close)
		a.local, err = openLocal(&a.cfg)
	}
	if err != nil {
		opened.close()
		return nil, err
	}
	return a, nil
}

// Ready returns a channel that is closed when the socket is served.
func (a *Agent) Ready() <-chan struct{} { return a.ready }

// Run runs the agent until ctx ends, the host has left its mesh (ErrLeft) or
// the agent cannot go on.
func (a *Agent) Run(ctx context.Context) error {
	srv := &http.Server{Handler: a.localAPI(), ReadHeaderTimeout: 10 * time.Second}
	err := runServices(ctx, a.cfg.Logger, []service{
		{"driver", a.driver.run},
		{"socket", func(ctx context.Context) error {
			close(a.ready)
			return serveHTTP(ctx, a.local, srv)
		}},
		{"mesh", a.live},
	})
	a.removeSocket()
	if errors.Is(err, errLeft) {
		err = errors.Join(ErrLeft, a.store.leaveMesh())
	}
	return errors.Join(err, a.driver.close(), a.store.close())
}

// live makes this host a member of its mesh, waiting for one if it has none.
func (a *Agent) live(ctx context.Context) error {
	decided := sync.OnceFunc(func() { close(a.lives) })
	defer decided()
	adm, err := a.identity(ctx)
	if err != nil || adm.id == nil {
		return err
	}
	m, err := newMember(&a.cfg, adm, a.store, a.driver)
	if adm.done != nil {
		adm.done <- err
	}
	if err != nil {
		return err
	}
	a.server.Store(newServer(m, true))
	defer a.server.Store(nil)
	decided()
	return m.run(ctx)
}

// enrolled returns the identity that is on this host's disk, nil if there is
// none. Without one the host is in no mesh, so whatever a leave, a found or a
// join that was cut short has left of one is removed: a Raft log must never come
// to life under the identity of another mesh.
func (a *Agent) enrolled() (*admission, error) {
	id, err := trust.LoadIdentity(a.store.path(dirIdentity))
	if errors.Is(err, os.ErrNotExist) {
		return nil, a.store.forgetMesh()
	}
	if err == nil {
		err = a.mine(id)
	}
	if err != nil {
		return nil, err
	}
	a.claim.taken = true
	adm := &admission{id: id}
	return adm, a.store.load(fileFounding, &adm.founding)
}

// identity returns the identity that this host has or wins. A host that has a
// mesh ignores every other way to one.
func (a *Agent) identity(ctx context.Context) (admission, error) {
	if a.known != nil {
		return *a.known, nil
	}
	if a.cfg.Init {
		// Refused means that a request through the socket was first.
		if _, err := a.found(a.cfg.MeshName, nil); err != nil && !errors.Is(err, errClaimed) {
			return admission{}, err
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	var joining sync.WaitGroup
	defer joining.Wait()
	defer cancel()
	if len(a.cfg.Seeds) > 0 && !a.cfg.Init {
		joining.Go(func() { a.joinForEver(ctx) })
	}
	select {
	case <-ctx.Done():
		return admission{}, nil
	case adm := <-a.admit:
		return adm, nil
	}
}

// mine refuses an identity that is not of the configured name: under another
// name this host would be a stranger with its own keys.
func (a *Agent) mine(id *trust.Identity) error {
	if host := id.Peer().Host; host != a.cfg.Name {
		return fmt.Errorf("load identity: this host is enrolled as %s, but name is %s; set name back, or run ganglion leave before renaming", host, a.cfg.Name)
	}
	return nil
}

// openLocal opens what serves local root.
func openLocal(cfg *Config) (net.Listener, error) {
	if l := cfg.Seams.Local; l != nil {
		return l, nil
	}
	return listenLocal(cfg.Socket)
}

func (a *Agent) removeSocket() {
	if a.cfg.Seams.Local != nil {
		return
	}
	if err := os.Remove(a.cfg.Socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		a.cfg.Logger.Debug("remove socket", "error", err)
	}
}

// listenLocal opens the local socket: root and the group ganglion may use it. A
// socket that a dead agent left is taken over, a live one is not.
func listenLocal(path string) (net.Listener, error) {
	if conn, err := net.Dial("unix", path); err == nil {
		conn.Close()
		return nil, fmt.Errorf("open socket %s: another agent serves it; stop that one or set another socket", path)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("open socket: %w", err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("open socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("open socket: %w; set socket", err)
	}
	err = os.Chmod(path, 0o660)
	if g, lookup := user.LookupGroup("ganglion"); lookup == nil && os.Getuid() == 0 {
		if gid, bad := strconv.Atoi(g.Gid); bad == nil {
			err = errors.Join(err, os.Chown(path, 0, gid))
		}
	}
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("open socket: %w", err)
	}
	return l, nil
}
