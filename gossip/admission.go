package gossip

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/hashicorp/serf/serf"
)

// ConflictError says that another address of the mesh goes by this host's name.
type ConflictError struct {
	Name string
	Addr string // where the other host is
	// Refused says that this host is the newcomer: it is not in the mesh and
	// keeps asking. Otherwise it is the running one, and nothing happens to it.
	Refused bool
}

func (e *ConflictError) Error() string {
	if e.Refused {
		return fmt.Sprintf("join mesh: the name %q is taken by the host at %s; give this host another name, or wait until that one is gone",
			e.Name, e.Addr)
	}
	return fmt.Sprintf("keep name %q: the host at %s claims it too and is refused; give that host another name", e.Name, e.Addr)
}

// admission decides whom this host takes into its view. Serf asks it about every
// host before an exchange on joining is merged, where one refusal refuses all,
// and about every single host heard of by gossip.
//
// A name belongs to one address. Between two others memberlist itself keeps to
// the first. About its own name a host decides here: a newcomer meets the holder
// in the state of the first host it asks, merges nothing of it, and so never
// enters. The holder refuses the newcomer in turn and goes on.
//
// It is called under memberlist's node lock: it takes no lock of memberlist or
// serf and does not block.
type admission struct {
	name, mesh string
	self       netip.AddrPort
	conflict   func(addr string)
}

// NotifyMerge implements serf.MergeDelegate.
func (a *admission) NotifyMerge(hosts []*serf.Member) error {
	for _, h := range hosts {
		if err := a.check(h); err != nil {
			return err
		}
	}
	return nil
}

func (a *admission) check(h *serf.Member) error {
	if !nameRule.MatchString(h.Name) {
		return fmt.Errorf("refuse host: its name %.80q breaks the rules", h.Name)
	}
	if mesh := h.Tags[meshTag]; mesh != a.mesh {
		return fmt.Errorf("refuse host %s: it is of mesh %.80q, not %q", h.Name, mesh, a.mesh)
	}
	if h.Name != a.name || h.Status == serf.StatusLeft {
		return nil
	}
	if addr := addrPort(h.Addr, h.Port); addr != a.self {
		a.conflict(addr.String())
		return fmt.Errorf("refuse host %s at %s: the name is this host's", h.Name, addr)
	}
	return nil
}

func addrPort(ip net.IP, port uint16) netip.AddrPort {
	addr, _ := netip.AddrFromSlice(ip)
	return netip.AddrPortFrom(addr.Unmap(), port)
}

// conflictMemory is how long a conflict is remembered after it was last seen. A
// refused host asks again every few seconds.
const conflictMemory = 2 * time.Minute

// conflicts remembers the last conflict and hands each new one to whoever waits.
// Its owner locks it.
type conflicts struct {
	last *ConflictError
	seen time.Time
	ch   chan error // of one place: the newest that nobody has taken yet
}

func (c *conflicts) note(e *ConflictError, now time.Time) (news bool) {
	news = c.current(now) == nil || *c.last != *e
	c.last, c.seen = e, now
	if !news {
		return false
	}
	select {
	case <-c.ch:
	default:
	}
	c.ch <- e
	return true
}

func (c *conflicts) current(now time.Time) *ConflictError {
	if c.last == nil || now.Sub(c.seen) > conflictMemory {
		return nil
	}
	return c.last
}

// clearRefusal forgets that this host was refused, once it is in.
func (c *conflicts) clearRefusal() {
	if c.last != nil && c.last.Refused {
		c.last = nil
	}
}

// joinProblem makes one line of what memberlist says, over many, about a failed
// join.
func joinProblem(err error) error {
	if err == nil {
		return nil
	}
	var texts []string
	for line := range strings.Lines(err.Error()) {
		line = strings.TrimLeft(strings.TrimSpace(line), "* ")
		if line != "" && !strings.HasSuffix(line, "occurred:") {
			texts = append(texts, strings.TrimPrefix(line, "failed to join "))
		}
	}
	text, hint := strings.Join(texts, "; "), ""
	for _, hangup := range []string{"EOF", "reset by peer", "broken pipe", "closed pipe"} {
		if strings.Contains(text, hangup) {
			hint = " (a host that hangs up is of another mesh, or has another gossip key)"
		}
	}
	return fmt.Errorf("join mesh: %s%s; trying again", text, hint)
}
