package gossip

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"regexp"
	"strings"
	"time"

	"github.com/hashicorp/memberlist"
)

// DefaultPort is where hosts gossip, and the port of a seed that names none.
const DefaultPort = 7946

// meshTag carries the mesh id in every host's tags. It repeats what the packet
// label says, so that a host is refused by what it claims about itself too.
const meshTag = "mesh"

// Config is what a Pool needs. Name, MeshID and Key have no default.
type Config struct {
	Name   string // of this host, unique in the mesh
	MeshID string // hosts of another mesh are not heard, even with the same key

	Bind      string // address to listen on, TCP and UDP; empty: 0.0.0.0
	Port      int    // 0: any free port
	Advertise string // IP or IP:PORT at which others reach this host; empty: found out

	Key  []byte            // 16, 24 or 32 bytes; a mesh never gossips in clear text
	Tags map[string]string // at most 512 bytes together; "mesh" is taken

	Dir   string   // where the known peers are kept; empty: nowhere
	Seeds []string // HOST or HOST:PORT of hosts to join by

	// Transport replaces the network; nil means UDP and TCP. It is a test seam.
	Transport memberlist.NodeAwareTransport
	Timing    Timing
	Logger    *slog.Logger
}

// Timing holds the intervals of the pool. A zero field takes its default, which
// makes a death known to all of five hosts in 4.5 s, and in 7 s at the worst percent.
type Timing struct {
	ProbeInterval     time.Duration // one other host is probed this often; default 750 ms
	ProbeTimeout      time.Duration // for a direct answer; default 500 ms
	GossipInterval    time.Duration // default half of ProbeInterval
	PushPullInterval  time.Duration // whole state with one random host; default 10 s
	ReconnectInterval time.Duration // one failed host is tried this often; default 10 s
	JoinRetryMax      time.Duration // upper end of the jittered wait; default 10 s
}

var (
	nameRule = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)
	meshRule = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$`)
)

// validate rejects what cannot work and returns the config with its defaults.
func (c Config) validate() (Config, error) {
	var errs []error
	if !nameRule.MatchString(c.Name) {
		errs = append(errs, fmt.Errorf("host name %q: must match %s", c.Name, nameRule))
	}
	if !meshRule.MatchString(c.MeshID) {
		errs = append(errs, fmt.Errorf("mesh id %q: must match %s", c.MeshID, meshRule))
	}
	if err := memberlist.ValidateKey(c.Key); err != nil {
		errs = append(errs, fmt.Errorf("gossip key of %d bytes: must be 16, 24 or 32 bytes", len(c.Key)))
	}
	if c.Port < 0 || c.Port > 65535 {
		errs = append(errs, fmt.Errorf("gossip port %d: must be 0 to 65535", c.Port))
	}
	if err := checkTags(c.Tags, c.MeshID); err != nil {
		errs = append(errs, err)
	}
	if c.Bind == "" {
		c.Bind = "0.0.0.0"
	}
	if _, err := netip.ParseAddr(c.Bind); err != nil {
		errs = append(errs, fmt.Errorf("gossip bind address %q: must be an IP address", c.Bind))
	}
	for _, s := range c.Seeds {
		if _, _, err := splitSeed(s, DefaultPort); err != nil {
			errs = append(errs, err)
		}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	c.Tags = maps.Clone(c.Tags)
	c.Timing = c.Timing.withDefaults()
	return c, errors.Join(errs...)
}

func (t Timing) withDefaults() Timing {
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	def(&t.ProbeInterval, 750*time.Millisecond)
	def(&t.ProbeTimeout, 500*time.Millisecond)
	def(&t.GossipInterval, t.ProbeInterval/2) // every other tick is a probe's too, and wakes nobody by itself
	def(&t.PushPullInterval, 10*time.Second)
	def(&t.ReconnectInterval, 10*time.Second)
	def(&t.JoinRetryMax, 10*time.Second)
	return t
}

// checkTags bounds the encoded size from above, because the libraries panic on
// tags that do not fit.
func checkTags(tags map[string]string, meshID string) error {
	const header, perString = 4, 3
	size := header + 2*perString + len(meshTag) + len(meshID)
	for k, v := range tags {
		if k == meshTag {
			return fmt.Errorf("host tag %q: is set by the mesh itself", k)
		}
		size += 2*perString + len(k) + len(v)
	}
	if size > memberlist.MetaMaxSize {
		return fmt.Errorf("host tags: take %d bytes, the limit is %d; shorten or remove some", size, memberlist.MetaMaxSize)
	}
	return nil
}

func isIP(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil
}

// splitSeed takes HOST or HOST:PORT apart; a bare IPv6 address needs no brackets.
func splitSeed(s string, port uint16) (host string, p uint16, err error) {
	if ip, err := netip.ParseAddr(s); err == nil {
		return ip.String(), port, nil
	}
	host, portText, err := net.SplitHostPort(s)
	if err != nil {
		host, portText = s, fmt.Sprint(port)
	}
	n, err := net.LookupPort("tcp", portText)
	if err != nil || host == "" || n == 0 || strings.Contains(host, ":") && !isIP(host) {
		return "", 0, fmt.Errorf("seed %q: want HOST or HOST:PORT", s)
	}
	return host, uint16(n), nil
}
