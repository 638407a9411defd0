package addresses

import (
	"context"
	"encoding/json"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var mutants = flag.Bool("mutants", false, "build each seeded bug of addresses, and see it caught")

// seededBugs are defects of what keeps addresses, and of what that rests on: old, which
// stands once in the file, is replaced.
var seededBugs = []struct{ name, file, old, new string }{
	{"the kernel keeps it for longer than the lease", "agent/addresses/act.go", "vip.Lifetime(until - now - prompt)", "vip.Lifetime(until - now + 3*time.Second)"},
	{"a lifetime that came late is not put right", "agent/addresses/act.go", "if _, after := k.cfg.Clock(); after-now <= prompt {", "if true {"},
	{"it is not taken off before its lease is given back", "agent/addresses/act.go", "func (k *Keeper) end(h *holding) error {\n	if err := k.cfg.Kernel.Remove(h.Device, h.Address); err != nil {", "func (k *Keeper) end(h *holding) error {\n	if err := error(nil); err != nil {"},
	{"one that could not be taken off is forgotten", "agent/addresses/act.go", "		h.ending = true\n		k.mu.Unlock()\n		return err\n", "		h.ending = true\n		k.mu.Unlock()\n"},
	{"a lease is used that was given back", "agent/addresses/keeper.go", "l.Boot == boot && l.Token > k.ended[addr]", "l.Boot == boot"},
	{"that a lease was given back is forgotten with the agent", "agent/addresses/record.go", "	if r.Ended != nil {\n		k.ended = r.Ended\n	}\n", ""},
	{"a lease is given back though that could not be noted", "agent/addresses/keeper.go", "delete(k.ended, a) // and it may be used again", "_ = a"},
	{"a lease is given back while the host has its address", "agent/addresses/keeper.go", "if k.held[a] != nil || good && k.wanted(a, now) {", "if good && k.wanted(a, now) {"},
	{"what another life left is not gone on with", "agent/addresses/record.go", "if h.Boot == boot && h.Address.IsValid() {", "if h.Boot != boot && h.Address.IsValid() {"},
	{"a host that is emptied keeps it", "agent/addresses/keeper.go", "k.leases, k.away = next, sl.Drain == topology.DrainDraining || sl.Drain == topology.DrainDrained || sl.Gone != nil", "k.leases, k.away = next, sl.Gone != nil"},
	{"it is kept when nobody wants it", "agent/addresses/act.go", "		case len(left) == 0:\n			k.drop(h)\n			continue\n", "		case len(left) == 0:\n			continue\n"},
	{"no allowance for the lateness of the kernel", "workload/vip/vip.go", "max((left - Late).Truncate(time.Second), 0)", "max((left + Late).Truncate(time.Second), 0)"},
	{"a lease is renewed for longer than it is good", "agent/leases/leases.go", "return s.at + hold, s.life == h.life", "return s.at + hold + hold/2, s.life == h.life"},
	{"it is granted while another has it", "consensus/topology/address.go", "		case l.live:\n			p.wake(l.left)\n			continue\n", ""},
	{"it lapses before its grace is over", "consensus/topology/lease_plan.go", "o.Age >= l.Timers.Grace:", "o.Age >= l.Timers.Grace/2:"},
	{"it is granted in a freeze", "consensus/topology/address.go", "case p.obs.Freeze.All, p.out.GateShut,", "case p.out.GateShut,"},
	{"the book counts from before the office", "agent/leases/leases.go", "func (b *Book) TakeOffice() { b.seen = nil }", "func (b *Book) TakeOffice() {}"},
}

// Each stands where it is to be put, whatever becomes of the code.
func TestSeededBugsFit(t *testing.T) {
	for _, b := range seededBugs {
		src, err := os.ReadFile(filepath.Join("../..", b.file))
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(src), b.old); n != 1 {
			t.Errorf("%s: %q stands %d times in %s", b.name, b.old, n, b.file)
		}
	}
}

// Each is caught by what random histories are held to, or by a history that is too rare
// at random (make mutants).
func TestSeededBugsAreCaught(t *testing.T) {
	if !*mutants {
		t.Skip("builds the package once for each: asked for by -mutants")
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range seededBugs {
		t.Run(b.name, func(t *testing.T) {
			src, err := os.ReadFile(filepath.Join(root, b.file))
			if err != nil {
				t.Fatal(err)
			}
			patched := filepath.Join(t.TempDir(), filepath.Base(b.file))
			if err := os.WriteFile(patched, []byte(strings.Replace(string(src), b.old, b.new, 1)), 0o600); err != nil {
				t.Fatal(err)
			}
			overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{filepath.Join(root, b.file): patched}})
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(t.TempDir(), "overlay.json")
			if err := os.WriteFile(file, overlay, 0o600); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
			defer cancel()
			out, err := exec.CommandContext(ctx, "go", "test", "-count=1", "-vet=off", "-failfast", "-overlay", file, "-run", "^(TestLeaseIsNotGivenBackBeforeThatIsNoted|TestAddressIsHeldOnlyUnderItsLease|TestKernelEndsWhatAnAgentForgets|TestOneHostHasTheAddressAtAnyInstant)$", ".").CombinedOutput()
			_, caught, ok := strings.Cut(string(out), "--- FAIL: ")
			switch line, _, _ := strings.Cut(caught, "\n"); {
			case err == nil:
				t.Error("not caught")
			case !ok:
				t.Errorf("not by a check: %.300s", out)
			default:
				t.Logf("caught by %s", line)
			}
		})
	}
}
