package agent

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/workload"
	"github.com/ganglion-mesh/ganglion/workload/bootclock"
)

// Config is the agent's configuration: the keys of agent.hcl, and the seams
// that tests replace.
type Config struct {
	Name      string   // unique in the mesh; default: first label of the hostname
	DataDir   string   // default /var/lib/ganglion
	Socket    string   // local API; default /run/ganglion/agent.sock
	Bind      string   // default 0.0.0.0
	Advertise string   // IP by which others reach this host; default: first private address
	Init      bool     // create a mesh if DataDir has none
	MeshName  string   // of a mesh made by Init; default main
	Seeds     []string // mesh addresses to join through, with TokenFile
	TokenFile string
	Labels    map[string]string
	Voter     string // auto or never
	Ports     Ports
	PortRange [2]int   // first and last dynamic port of copies; default 20000-29999
	NATS      []string // empty: embedded; else URLs of an existing NATS
	Driver    string   // auto, process or systemd
	AllowRun  bool     // whether reflexes may run hooks, and senses of users commands, on this host
	// ReflexUnits are the units of systemd of this host on which reflexes may act.
	ReflexUnits []string
	// ReflexAddresses are the networks of which reflexes may take addresses over on
	// this host, each with the interface: 10.0.0.0/24 = eth0.
	ReflexAddresses map[string]string
	Lease           topology.Timers // of singletons; default topology.DefaultTimers

	ArtifactCache int64 // bytes that packages may have on this disk, those that are needed aside; default 10 GiB
	ArtifactRate  int64 // bytes a second at which packages are fetched; 0: unbounded

	Version string
	Logger  *slog.Logger
	Seams   Seams
}

// Ports of the agent. Zero means any free one, chosen once and kept.
type Ports struct {
	Gossip      int `json:"gossip"`       // tcp and udp; default 7946
	Mesh        int `json:"mesh"`         // default 7947
	NATS        int `json:"nats"`         // default 4222
	NATSCluster int `json:"nats_cluster"` // default 6222
}

// Seams are what tests of whole meshes replace. All are nil in production.
type Seams struct {
	Network Network         // the mesh port
	Gossip  GossipTransport // the gossip port
	Driver  workload.Driver
	Local   net.Listener         // in place of the socket; the agent closes it
	Accept  func(topology.Slice) // told of each slice that was accepted, in order, before it is acted on
	// Serve gives a slice of a host that this voter answers with at once, whatever
	// holds: a voter that lies. It may decline.
	Serve func(host string) (topology.Slice, bool)
	Lead  func(leads bool) // told when this host begins to lead, and when it no longer does
	// BootClock names this boot of the host's kernel and tells for how long it has
	// been up, suspension included.
	BootClock func() (boot string, up time.Duration)
	NoNATS    bool // no embedded server and no publisher
	// NoWatch has files looked for that are watched otherwise: where time is virtual
	// nothing may wait for the kernel, for then it stands still.
	NoWatch bool
}

// DefaultPorts are the ports of a host that runs one agent.
func DefaultPorts() Ports {
	return Ports{Gossip: 7946, Mesh: 7947, NATS: 4222, NATSCluster: 6222}
}

// network returns the way to the mesh port.
func (c *Config) network() Network {
	if c.Seams.Network != nil {
		return c.Seams.Network
	}
	return tcp{}
}

// bootClock is the clock that leases are counted on.
func (c *Config) bootClock() func() (string, time.Duration) {
	if c.Seams.BootClock != nil {
		return c.Seams.BootClock
	}
	return bootclock.Read
}

var nameRE = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

// validate fills defaults and rejects what cannot work.
func (c *Config) validate() error {
	if err := c.defaults(); err != nil {
		return err
	}
	if !nameRE.MatchString(c.Name) {
		return fmt.Errorf("name %q: want 1 to 63 of a-z, 0-9 and -, not starting with -; set name", shorten(c.Name))
	}
	if !nameRE.MatchString(c.MeshName) {
		return fmt.Errorf("mesh name %q: want 1 to 63 of a-z, 0-9 and -, not starting with -", shorten(c.MeshName))
	}
	if net.ParseIP(c.Bind) == nil {
		return fmt.Errorf("bind %q: want an IP address", c.Bind)
	}
	if net.ParseIP(c.Advertise) == nil {
		return fmt.Errorf("advertise %q: want an IP address", c.Advertise)
	}
	if c.Voter != "auto" && c.Voter != "never" {
		return fmt.Errorf("voter %q: want auto or never", c.Voter)
	}
	if lo, hi := c.PortRange[0], c.PortRange[1]; lo < 1 || hi > 65535 || lo > hi {
		return fmt.Errorf("port_range %d-%d: want two ports, the lower first", lo, hi)
	}
	switch c.Driver {
	case "auto", "process", "systemd":
	default:
		return fmt.Errorf("driver %q: want auto, process or systemd", c.Driver)
	}
	if err := checkReflexUnits(c.ReflexUnits); err != nil {
		return err
	}
	if err := checkReflexAddresses(c.ReflexAddresses); err != nil {
		return err
	}
	if err := c.Lease.Check(); err != nil {
		return err
	}
	if len(c.Seeds) > 0 && c.TokenFile == "" {
		return errors.New("seeds without token_file: a host needs a token to enrol; make one with ganglion token create")
	}
	return nil
}

func (c *Config) defaults() error {
	if c.Name == "" {
		host, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("read hostname: %w; set name", err)
		}
		first, _, _ := strings.Cut(host, ".")
		c.Name = strings.ToLower(first)
	}
	setDefault(&c.DataDir, "/var/lib/ganglion")
	setDefault(&c.Socket, "/run/ganglion/agent.sock")
	setDefault(&c.Bind, "0.0.0.0")
	setDefault(&c.MeshName, "main")
	setDefault(&c.Voter, "auto")
	setDefault(&c.Driver, "auto")
	if c.PortRange == [2]int{} {
		c.PortRange = [2]int{20000, 29999}
	}
	if c.Lease == (topology.Timers{}) {
		c.Lease = topology.DefaultTimers()
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	var err error
	if c.DataDir, err = filepath.Abs(c.DataDir); err != nil {
		return fmt.Errorf("data_dir: %w", err)
	}
	if c.Advertise == "" {
		c.Advertise, err = advertised(c.Bind)
	}
	return err
}

func setDefault(s *string, v string) {
	if *s == "" {
		*s = v
	}
}

// advertised picks the address that others reach this host by: the bound one
// if it is specific, else the first private one, else the first of any kind.
func advertised(bind string) (string, error) {
	if ip := net.ParseIP(bind); ip != nil && !ip.IsUnspecified() {
		return bind, nil
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return "", fmt.Errorf("list addresses: %w; set advertise", err)
	}
	var public string
	for _, a := range addrs {
		ipnet, ok := a.(*net.IPNet)
		if !ok || ipnet.IP.IsLoopback() || ipnet.IP.IsLinkLocalUnicast() {
			continue
		}
		if ipnet.IP.IsPrivate() && ipnet.IP.To4() != nil {
			return ipnet.IP.String(), nil
		}
		if public == "" {
			public = ipnet.IP.String()
		}
	}
	if public == "" {
		return "", errors.New("find an address to advertise: this host has none but loopback; set advertise")
	}
	return public, nil
}

func shorten(s string) string {
	if len(s) > 80 {
		return s[:77] + "..."
	}
	return s
}
