package addresses

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/reflexes"
	"github.com/ganglion-mesh/ganglion/workload/vip"
)

const s = time.Second

var (
	shared = netip.MustParsePrefix("10.0.0.10/24")
	rule   = Owner{Rule: "vip", Target: reflexes.Host()}
)

// kernel is one in virtual time, which ends addresses with their lifetimes, a second
// late.
type kernel struct {
	now       *time.Duration
	has       map[vip.Present]time.Duration // until when; 0: for ever
	announced int
	slow      time.Duration // that the next Put takes, before it is done
	fail      error         // of Remove
}

func (k *kernel) List() (list []vip.Present, err error) {
	for p, until := range k.has {
		if until != 0 && *k.now >= until {
			delete(k.has, p)
			continue
		}
		list = append(list, p)
	}
	return list, nil
}

func (k *kernel) Put(device string, a netip.Prefix, life time.Duration) error {
	*k.now += k.slow
	k.slow = 0
	if life < s || life%s != 0 {
		return errors.New("want whole seconds")
	}
	k.has[vip.Present{Device: device, Address: a}] = *k.now + life + vip.Late
	return nil
}

func (k *kernel) Remove(device string, a netip.Prefix) error {
	if k.fail == nil {
		delete(k.has, vip.Present{Device: device, Address: a})
	}
	return k.fail
}

func (k *kernel) Announce(string, netip.Addr) error { k.announced++; return nil }

// host is one host with a Keeper, whose agent can begin anew.
type host struct {
	*Keeper
	t            *testing.T
	disk         []byte
	now          time.Duration
	kernel       *kernel
	full         error // of Save
	leased, lost int
	slice        topology.Slice
}

func newHost(t *testing.T) *host {
	h := &host{t: t, now: 1000 * s}
	h.kernel = &kernel{now: &h.now, has: map[vip.Present]time.Duration{{Device: "eth0", Address: netip.MustParsePrefix("10.0.0.1/24")}: 0}}
	h.begin()
	return h
}

// begin starts the agent anew.
func (h *host) begin() {
	h.t.Helper()
	k, err := New(Config{
		Load: func() ([]byte, error) { return h.disk, nil }, Save: func(b []byte) error {
			if h.full == nil {
				h.disk = b
			}
			return h.full
		},
		Clock: func() (string, time.Duration) { return "boot", h.now }, Kernel: h.kernel,
		Device: func(a netip.Addr) (string, error) {
			if !netip.MustParsePrefix("10.0.0.0/16").Contains(a) {
				return "", errors.New("not allowed")
			}
			return "eth0", nil
		},
		Leased: func(Owner) { h.leased++ }, Lost: func(Owner) { h.lost++ },
	})
	if err != nil {
		h.t.Fatal(err)
	}
	h.Keeper = k
	h.Set(h.slice)
}

// grant gives the host the lease, or takes it away with token 0.
func (h *host) grant(token uint64) {
	h.slice.Leases = nil
	if token > 0 {
		h.slice.Leases = []topology.HeldLease{{App: "10.0.0.10", Token: token, Boot: "boot", Hold: 10 * s}}
	}
	h.Set(h.slice)
}

// renew has the lease renewed by a request that is sent now.
func (h *host) renew() {
	h.t.Helper()
	for _, l := range h.Leases() {
		if err := h.Extend(l.App, l.Token, h.now+l.Hold); err != nil {
			h.t.Error(err)
		}
	}
}

func (h *host) on() bool {
	list, _ := h.kernel.List()
	return slices.Contains(list, vip.Present{Device: "eth0", Address: shared})
}

// claim takes the address over under a token.
func (h *host) claim(token uint64) {
	h.t.Helper()
	h.Want(rule, shared)
	h.Step()
	h.grant(token)
	h.renew()
	if said, err := h.Claim(rule, shared); err != nil || !strings.Contains(said, "on eth0, token") {
		h.t.Fatalf("claim: %q, %v", said, err)
	}
}

func TestAddressIsHeldOnlyUnderItsLease(t *testing.T) {
	h := newHost(t)
	if _, err := h.Claim(rule, shared); err == nil || h.on() {
		t.Fatalf("claimed without a lease: %v", err)
	}
	if h.Want(rule, shared); len(h.Wants()) > 0 {
		t.Error("it is wanted before it was looked whether this host can have it")
	}
	if h.Step(); !slices.Equal(h.Wants(), []string{"10.0.0.10"}) {
		t.Errorf("wants %v", h.Wants())
	}
	if _, asking, _ := h.May(rule, shared.Addr()); !asking {
		t.Error("it is not told that it is only just asked for")
	}
	h.claim(7)
	if h.leased == 0 || !h.on() || h.kernel.announced == 0 || len(h.Ended()) > 0 || h.Of(rule)[0].Token != 7 {
		t.Errorf("leased %d, on %v, announced %d, ended %v, %v", h.leased, h.on(), h.kernel.announced, h.Ended(), h.Of(rule))
	}
	for range 10 { // neighbours are told a few times, and not again with each renewal
		h.now += s
		h.Step()
		h.renew()
	}
	if !h.on() || h.kernel.announced != len(announceAfter) {
		t.Errorf("on %v, announced %d times", h.on(), h.kernel.announced)
	}
	h.Retain(func(Owner) bool { return false }) // the rule clears
	if h.on() || len(h.Wants()) > 0 {
		t.Error("it is kept though nobody wants it")
	}
	if ended := h.Ended(); len(ended) != 1 || ended[0].Token != 7 {
		t.Errorf("given back: %v", ended)
	}
	h.begin() // what was given back is never used again, in this life or the next
	h.Want(rule, shared)
	h.Step()
	if h.renew(); len(h.Leases()) > 0 || len(h.Ended()) != 1 {
		t.Errorf("renews %v, ended %v", h.Leases(), h.Ended())
	}
}

// Whatever the agent does, or does not, the kernel has ended the address when its
// lease is over.
func TestKernelEndsWhatAnAgentForgets(t *testing.T) {
	for late := time.Duration(0); late < 9*s; late += 130 * time.Millisecond {
		h := newHost(t)
		h.Want(rule, shared)
		h.Step()
		h.grant(7)
		sent := h.now
		l := h.Leases()[0]
		h.now += late // the answer
		if err := h.Extend(l.App, l.Token, sent+l.Hold); err != nil {
			t.Fatal(err)
		}
		_, err := h.Claim(rule, shared)
		if on := h.on(); on != (err == nil) || on != (late < 7800*time.Millisecond) && (late < 7700*time.Millisecond || late > 7800*time.Millisecond) {
			t.Errorf("%s late: on %v, %v", late, on, err)
		}
		if h.now = sent + l.Hold; h.on() {
			t.Errorf("%s late: it is on when its lease is over", late)
		}
	}
	// An agent that stands still between the look at the clock and the act.
	h := newHost(t)
	h.claim(7)
	until := h.now + 10*s
	h.now += 100 * time.Millisecond
	h.kernel.slow = 4 * s
	if err := h.Extend("10.0.0.10", 7, until+1); err != nil || !h.on() {
		t.Fatal(err)
	}
	if h.now = until + 1; h.on() {
		t.Error("it is on when its lease is over")
	}
}

func TestPausedHostTakesItsAddressOffAndAsksLater(t *testing.T) {
	h := newHost(t)
	h.claim(7)
	if h.Fence(); h.on() || h.lost > 0 {
		t.Fatalf("on %v, lost %d", h.on(), h.lost)
	}
	if h.Step(); len(h.Ended()) > 0 {
		t.Fatal("it gives back what it may get back")
	}
	h.now += s
	if h.renew(); !h.on() {
		t.Error("renewed, and not back")
	}
	h.now += 11 * s
	if h.Step(); h.on() || h.lost > 0 {
		t.Errorf("not renewed: on %v, lost %d", h.on(), h.lost)
	}
	h.now += 11 * s
	if h.Step(); h.lost != 1 || len(h.Of(rule)) > 0 {
		t.Errorf("not renewed for long: lost %d times", h.lost)
	}
}

func TestLeaseThatIsGoneTakesTheAddressWithIt(t *testing.T) {
	for _, token := range []uint64{0, 9} {
		h := newHost(t)
		h.claim(7)
		h.grant(token)
		if h.Step(); h.on() || h.lost != 1 {
			t.Errorf("token %d: on %v, lost %d", token, h.on(), h.lost)
		}
		if token != 0 { // which the rule wants, and has not said again yet
			if h.renew(); len(h.Ended()) > 0 || h.leased < 2 {
				t.Errorf("the new lease is given back: %v", h.Ended())
			}
			h.claim(token)
		}
	}
	h := newHost(t)
	h.claim(7)
	h.slice.Drain = topology.DrainDraining
	h.Set(h.slice)
	if h.Step(); h.on() || len(h.Ended()) != 1 || len(h.Wants()) > 0 {
		t.Errorf("a host that is emptied: on %v, ended %v, wants %v", h.on(), h.Ended(), h.Wants())
	}
}

// Another life of the agent goes on with what the one before had, and ends what it
// may not have any more.
func TestAnotherLifeGoesOn(t *testing.T) {
	h := newHost(t)
	h.claim(7)
	told := h.kernel.announced
	h.now += s
	h.begin()
	if h.Step(); !h.on() || len(h.Ended()) > 0 {
		t.Fatalf("on %v, ended %v", h.on(), h.Ended())
	}
	if h.renew(); !h.on() || h.kernel.announced != told || h.lost > 0 {
		t.Errorf("on %v, announced again %d times", h.on(), h.kernel.announced-told)
	}
	h.now += s
	h.slice.Leases = nil
	h.begin()
	if h.Step(); h.on() || h.lost != 1 {
		t.Errorf("without its lease: on %v, lost %d", h.on(), h.lost)
	}
}

// What this host has by itself is left alone, and leases are for who can use them.
func TestOwnAddressesAreLeftAlone(t *testing.T) {
	for what, c := range map[string]struct {
		has, want, why string
	}{
		"its own":         {"10.0.0.10/24", "10.0.0.10/24", "by itself"},
		"its own, alone":  {"10.0.0.10/32", "10.0.0.10/24", "by itself"},
		"another network": {"10.0.1.1/24", "10.0.2.10/24", "claim 10.0.2.10/32"},
		"not allowed":     {"10.0.1.1/24", "10.9.0.1/24", "not allowed"},
	} {
		h := newHost(t)
		h.kernel.has[vip.Present{Device: "eth0", Address: netip.MustParsePrefix(c.has)}] = 0
		a := netip.MustParsePrefix(c.want)
		h.Want(rule, a)
		h.Step()
		if _, _, why := h.May(rule, a.Addr()); !strings.Contains(why, c.why) && c.why != "not allowed" || len(h.Wants()) > 0 {
			t.Errorf("%s: %q, wants %v", what, why, h.Wants())
		}
		h.slice.Leases = []topology.HeldLease{{App: a.Addr().String(), Token: 3, Boot: "boot", Hold: 10 * s}}
		h.Set(h.slice)
		if ended := h.Ended(); len(ended) != 1 {
			t.Errorf("%s: a lease of no use is kept: %v", what, ended)
		}
		if list, _ := h.kernel.List(); len(list) != 2 && what != "its own, alone" && what != "its own" {
			t.Errorf("%s: the host has %v", what, list)
		}
	}
	h := newHost(t)
	h.Want(rule, netip.MustParsePrefix("10.0.2.10/32"))
	if h.Step(); len(h.Wants()) != 1 {
		t.Error("an address for itself needs no network")
	}
}

// A lease is not given back while its address could not be taken off.
func TestAddressThatCannotBeRemovedIsNotGivenBack(t *testing.T) {
	h := newHost(t)
	h.claim(7)
	h.kernel.fail = errors.New("busy")
	h.Retain(func(Owner) bool { return false })
	if h.Step(); !h.on() || len(h.Ended()) > 0 || len(h.Leases()) > 0 {
		t.Errorf("on %v, ended %v, renews %v", h.on(), h.Ended(), h.Leases())
	}
	h.kernel.fail = nil
	if h.Step(); h.on() || len(h.Ended()) != 1 {
		t.Errorf("on %v, ended %v", h.on(), h.Ended())
	}
}

// What is not on disk yet is not said, however often it is asked for: another life of
// the agent would use the lease again.
func TestLeaseIsNotGivenBackBeforeThatIsNoted(t *testing.T) {
	h := newHost(t)
	h.claim(7)
	h.full = errors.New("no space left on device")
	h.Retain(func(Owner) bool { return false })
	for range 3 {
		if list := h.Ended(); len(list) > 0 {
			t.Fatalf("given back: %v", list)
		}
	}
	h.begin()
	if h.renew(); !h.on() {
		t.Error("another life does not go on with it")
	}
	h.full = nil
	h.Retain(func(Owner) bool { return false })
	if list := h.Ended(); len(list) != 1 || h.on() {
		t.Errorf("given back: %v, on %v", list, h.on())
	}
	h.begin()
	h.Want(rule, shared)
	if h.Step(); len(h.Leases()) > 0 {
		t.Error("it is used again")
	}
}

// A claim that failed leaves its lease to others; one that succeeds all the same has to
// have it renewed again.
func TestClaimAfterOneThatFailedIsRenewed(t *testing.T) {
	h := newHost(t)
	h.Want(rule, shared)
	h.Step()
	h.grant(7)
	h.renew()
	h.full = errors.New("no space left on device")
	if _, err := h.Claim(rule, shared); err == nil || h.on() || len(h.Leases()) > 0 {
		t.Fatalf("claimed: %v, on %v, renews %v", err, h.on(), h.Leases())
	}
	h.full = nil
	for range cap(h.Changed()) {
		<-h.Changed()
	}
	if _, err := h.Claim(rule, shared); err != nil || len(h.Leases()) != 1 {
		t.Fatalf("%v, renews %v", err, h.Leases())
	}
	select {
	case <-h.Changed():
	default:
		t.Error("nobody is told that there is a lease to renew")
	}
}
