package addresses

import (
	"flag"
	"testing"

	"github.com/ganglion-mesh/ganglion/mutanttest"
)

var mutants = flag.Bool("mutants", false, "build each seeded bug of addresses, and see it caught")

// seededBugs are defects of what keeps addresses, and of what that rests on: old, which
// stands once in the file, is replaced.
var seededBugs = []mutanttest.Bug{
	{Name: "the kernel keeps it for longer than the lease", File: "agent/addresses/act.go", Old: "vip.Lifetime(until - now - prompt)", New: "vip.Lifetime(until - now + 3*time.Second)"},
	{Name: "a lifetime that came late is not put right", File: "agent/addresses/act.go", Old: "if _, after := k.cfg.Clock(); after-now <= prompt {", New: "if true {"},
	{Name: "it is not taken off before its lease is given back", File: "agent/addresses/act.go", Old: "func (k *Keeper) end(h *holding) error {\n	if err := k.cfg.Kernel.Remove(h.Device, h.Address); err != nil {", New: "func (k *Keeper) end(h *holding) error {\n	if err := error(nil); err != nil {"},
	{Name: "one that could not be taken off is forgotten", File: "agent/addresses/act.go", Old: "		h.ending = true\n		k.mu.Unlock()\n		return err\n", New: "		h.ending = true\n		k.mu.Unlock()\n"},
	{Name: "a lease is used that was given back", File: "agent/addresses/keeper.go", Old: "l.Boot == boot && l.Token > k.ended[addr]", New: "l.Boot == boot"},
	{Name: "that a lease was given back is forgotten with the agent", File: "agent/addresses/record.go", Old: "	if r.Ended != nil {\n		k.ended = r.Ended\n	}\n", New: ""},
	{Name: "a lease is given back though that could not be noted", File: "agent/addresses/keeper.go", Old: "delete(k.ended, a) // and it may be used again", New: "_ = a"},
	{Name: "a lease is given back while the host has its address", File: "agent/addresses/keeper.go", Old: "if k.held[a] != nil || good && k.wanted(a, now) {", New: "if good && k.wanted(a, now) {"},
	{Name: "what another life left is not gone on with", File: "agent/addresses/record.go", Old: "if h.Boot == boot && h.Address.IsValid() {", New: "if h.Boot != boot && h.Address.IsValid() {"},
	{Name: "a host that is emptied keeps it", File: "agent/addresses/keeper.go", Old: "k.leases, k.away = next, sl.Drain == topology.DrainDraining || sl.Drain == topology.DrainDrained || sl.Gone != nil", New: "k.leases, k.away = next, sl.Gone != nil"},
	{Name: "it is kept when nobody wants it", File: "agent/addresses/act.go", Old: "		case len(left) == 0:\n			k.drop(h)\n			continue\n", New: "		case len(left) == 0:\n			continue\n"},
	{Name: "no allowance for the lateness of the kernel", File: "workload/vip/vip.go", Old: "max((left - Late).Truncate(time.Second), 0)", New: "max((left + Late).Truncate(time.Second), 0)"},
	{Name: "a lease is renewed for longer than it is good", File: "agent/leases/leases.go", Old: "return s.at + hold, s.life == h.life", New: "return s.at + hold + hold/2, s.life == h.life"},
	{Name: "it is granted while another has it", File: "consensus/topology/address.go", Old: "		case l.live:\n			p.wake(l.left)\n			continue\n", New: ""},
	{Name: "it lapses before its grace is over", File: "consensus/topology/lease_plan.go", Old: "o.Age >= l.Timers.Grace:", New: "o.Age >= l.Timers.Grace/2:"},
	{Name: "it is granted in a freeze", File: "consensus/topology/address.go", Old: "case p.obs.Freeze.All, p.out.GateShut,", New: "case p.out.GateShut,"},
	{Name: "the book counts from before the office", File: "agent/leases/leases.go", Old: "func (b *Book) TakeOffice() { b.seen = nil }", New: "func (b *Book) TakeOffice() {}"},
}

func TestSeededBugsFit(t *testing.T) { mutanttest.Fit(t, "../..", seededBugs) }

// Each is caught by what random histories are held to, or by a history that is too rare
// at random (make mutants).
func TestSeededBugsAreCaught(t *testing.T) {
	if !*mutants {
		t.Skip("builds the package once for each: asked for by -mutants")
	}
	mutanttest.Caught(t, "../..", seededBugs,
		"TestLeaseIsNotGivenBackBeforeThatIsNoted",
		"TestAddressIsHeldOnlyUnderItsLease",
		"TestKernelEndsWhatAnAgentForgets",
		"TestOneHostHasTheAddressAtAnyInstant",
	)
}
