package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/addresses"
	"github.com/ganglion-mesh/ganglion/agent/reflexer"
	"github.com/ganglion-mesh/ganglion/durable"
	"github.com/ganglion-mesh/ganglion/intent"
	"github.com/ganglion-mesh/ganglion/reflexes"
	"github.com/ganglion-mesh/ganglion/workload/vip"
)

const (
	fileAddresses = "addresses.json" // beside the state of reflexes
	// addressLook is how often it is looked whether what is held still has to be,
	// besides each sign that it may not.
	addressLook = 5 * time.Second
)

// deviceRE is the name of a network interface.
var deviceRE = regexp.MustCompile(`^[^\s/:]{1,15}$`)

// checkReflexAddresses judges the networks of which reflexes may take addresses over.
func checkReflexAddresses(list map[string]string) error {
	for network, device := range list {
		p, err := netip.ParsePrefix(network)
		switch {
		case err != nil:
			return fmt.Errorf("reflex_addresses: %q: want a network, such as 10.0.0.0/24", shorten(network))
		case p != p.Masked():
			return fmt.Errorf("reflex_addresses: %s is an address; its network is %s", p, p.Masked())
		case !deviceRE.MatchString(device):
			return fmt.Errorf("reflex_addresses: %s = %q: want the name of an interface, such as eth0", p, shorten(device))
		}
	}
	return nil
}

// addressDevice names the interface on which reflexes may have an address of this
// host: that of the narrowest network that has it.
func (c *Config) addressDevice(addr netip.Addr) (string, error) {
	bits, device := -1, ""
	for network, dev := range c.ReflexAddresses {
		if p, err := netip.ParsePrefix(network); err == nil && p.Contains(addr) && p.Bits() > bits {
			bits, device = p.Bits(), dev
		}
	}
	if device == "" {
		return "", fmt.Errorf("this host does not let reflexes take over %s: no network of reflex_addresses of its agent's configuration has it", addr)
	}
	return device, nil
}

// mayClaim tells why reflexes may not do a claim on this host, or nil.
func (n *nerves) mayClaim(do intent.Action) error {
	a, err := do.Address()
	if err == nil {
		_, err = n.cfg.addressDevice(a.Addr())
	}
	return err
}

// openAddresses goes on with the addresses of an earlier life of the agent.
func (n *nerves) openAddresses() (err error) {
	n.overAddress = make(chan struct{}, 1)
	file := n.store.path(filepath.Join(dirReflexes, fileAddresses))
	n.addresses, err = addresses.New(addresses.Config{
		Load: func() ([]byte, error) { return readIfThere(file) }, Save: func(data []byte) error { return durable.Swap(file, data, 0o600) },
		Clock: n.cfg.bootClock(), Kernel: vip.Kernel{}, Device: n.cfg.addressDevice,
		Leased: func(o addresses.Owner) { n.reflexer.Leased(o.Rule, o.Target) },
		Lost:   func(o addresses.Owner) { n.reflexer.Lapsed(o.Rule, o.Target) },
		Logger: n.log,
	})
	if err != nil {
		return err
	}
	n.addresses.Set(n.slices.slice())
	return nil
}

// readIfThere reads a file; nothing if there is none.
func readIfThere(path string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, err
}

// lookAddresses has it looked soon whether an address is to be given up. It never
// blocks.
func (n *nerves) lookAddresses() {
	ring(n.overAddress)
}

// leased tells of a firing whether this host has the lease of what it would claim.
func (n *nerves) leased(f reflexes.Firing) (leased, asking bool, why string) {
	a, err := f.Rung.Do.Address()
	if err != nil {
		return false, false, err.Error()
	}
	return n.addresses.May(addresses.Owner{Rule: f.Rule, Target: f.Target}, a.Addr())
}

// wantAddress notes that an act lacks nothing but the lease of its address.
func (n *nerves) wantAddress(f reflexes.Firing) {
	if a, err := f.Rung.Do.Address(); err == nil {
		n.addresses.Want(addresses.Owner{Rule: f.Rule, Target: f.Target}, a)
	}
}

// claimAddress takes an address over for as long as the matter goes on.
func (n *nerves) claimAddress(o reflexer.Order) (said string, err error) {
	if err := n.mayClaim(o.Do); err != nil {
		return "", err
	}
	if err := n.unfrozen(appOf(o.Target), false); err != nil {
		return "", err
	}
	if why := n.notInForce(reflexes.Version{Rule: o.Rule, Stage: o.Stage}); why != "" {
		return "", notDoneError{errors.New("not done: " + why)}
	}
	a, err := o.Do.Address()
	if err != nil {
		return "", err
	}
	defer n.lookAddresses() // it may have ended meanwhile
	return n.addresses.Claim(addresses.Owner{Rule: o.Rule, Target: o.Target}, a)
}

// keepAddresses keeps what reflexes have claimed, and ends what is over, until ctx
// ends. What is held stays so when the agent ends: the next life goes on with it, or
// the kernel ends it.
func (n *nerves) keepAddresses(ctx context.Context) {
	var looked time.Time
	for {
		if (n.addresses.Any() || n.claims()) && time.Since(looked) >= addressLook {
			n.retainAddresses(ctx)
			looked = time.Now()
		}
		timer := time.NewTimer(n.addresses.Step())
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-n.addresses.Bell():
		case <-n.overAddress:
			looked = time.Time{}
		case <-n.addresses.Changed():
			n.leaseHolder.look()
			ring(n.wanting)
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

// claims tells whether a rule of this host may claim an address.
func (n *nerves) claims() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.ContainsFunc(n.ruling, func(r *reflexes.Rule) bool {
		return slices.ContainsFunc(r.Rungs, func(rung reflexes.Rung) bool { return rung.Leased() })
	})
}

// retainAddresses ends what no rule wants any more, and tells rules of what they have
// lost unawares.
func (n *nerves) retainAddresses(ctx context.Context) {
	list, known := n.standing(ctx)
	if !known {
		return
	}
	for _, x := range list {
		o := addresses.Owner{Rule: x.Rule, Target: x.Target}
		if x.State == "cooling" && len(n.addresses.Of(o)) == 0 {
			n.reflexer.Lapsed(o.Rule, o.Target)
		}
	}
	active, rules := n.wanted(list)
	young := n.bootTime()-n.held.since < unseenFor
	n.addresses.Retain(func(o addresses.Owner) bool {
		wanted, there := active[ruleTarget{o.Rule, o.Target}]
		// What a rule is about may not have been seen yet. What a freeze holds is not
		// taken from who uses it.
		return rules[o.Rule] && (wanted || !there && young || n.unfrozen(appOf(o.Target), false) != nil)
	})
}

// addressesOf lists what a rule has for a target, for people.
func (n *nerves) addressesOf(rule string, target reflexes.Target) (out []string) {
	for _, h := range n.addresses.Of(addresses.Owner{Rule: rule, Target: target}) {
		out = append(out, h.String())
	}
	return out
}
