package brake

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ganglion-mesh/ganglion/trust"
)

// mesh is the authority of a mesh and its hosts' identities.
type mesh struct {
	trust.Authority
	t  testing.TB
	id string
}

func newMesh(t testing.TB, id string) mesh {
	t.Helper()
	a, err := trust.NewAuthority(id, "main")
	if err != nil {
		t.Fatal(err)
	}
	return mesh{a, t, id}
}

func (m mesh) host(name string) *trust.Identity {
	m.t.Helper()
	csr, key, err := trust.NewCSR(name)
	if err != nil {
		m.t.Fatal(err)
	}
	cert, err := m.Sign(csr, name, trust.RoleAgent)
	if err != nil {
		m.t.Fatal(err)
	}
	id, err := trust.NewIdentity(trust.Credentials{MeshID: m.id, MeshName: "main", Host: name, HostID: "id-" + name, Role: trust.RoleAgent, CertPEM: cert, KeyPEM: key, CAPEM: m.CertPEM})
	if err != nil {
		m.t.Fatal(err)
	}
	return id
}

// disk is what a Keeper has on disk, with what it told.
type disk struct {
	records [][]byte
	told    []string
	full    bool
	revoked bool
}

func (d *disk) keeper(t testing.TB, id *trust.Identity, file string) *Keeper {
	t.Helper()
	k, err := New(d.config(id, file))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (d *disk) config(id *trust.Identity, file string) Config {
	return Config{
		Identity: id, File: file,
		Load: func() ([][]byte, error) { return d.records, nil },
		Save: func(r [][]byte) error {
			if d.full {
				return errors.New("disk full")
			}
			d.records = r
			return nil
		},
		Revoked: func([]byte) bool { return d.revoked },
		Spread:  func([][]byte) {},
		Told:    func(_, after *View) { d.told = append(d.told, show(after)) },
	}
}

func show(v *View) string {
	if !v.Frozen() {
		return fmt.Sprintf("thawed %d by %s", v.Thawed, v.By)
	}
	return fmt.Sprintf("frozen %d hard %v apps %v by %s", v.Epoch, v.Hard(), v.Apps(), v.By)
}

func (m mesh) thaw(t testing.TB, epoch uint64) []byte {
	t.Helper()
	b, err := SealThaw(m.Authority, epoch, "h9")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestFreezeAndThaw(t *testing.T) {
	m := newMesh(t, "mesh-a")
	var d disk
	id := m.host("h1")
	k := d.keeper(t, id, "")
	expect := func(want string) {
		t.Helper()
		if got := show(k.View()); got != want {
			t.Fatalf("it is %s, want %s", got, want)
		}
	}
	freeze := func(hard bool, apps ...string) {
		t.Helper()
		if _, err := k.Freeze(apps, hard); err != nil {
			t.Fatal(err)
		}
	}
	expect("thawed 0 by ")
	freeze(false, "web")
	expect("frozen 1 hard false apps [web] by h1")
	if f, hard := k.View().Holds("web"); !f || hard {
		t.Error("web is not held")
	}
	if f, _ := k.View().Holds("db"); f {
		t.Error("db is held")
	}
	freeze(true, "db") // what was frozen stays frozen
	expect("frozen 2 hard true apps [db web] by h1")
	k = d.keeper(t, id, "")
	expect("frozen 2 hard true apps [db web] by h1")
	freeze(false)
	expect("frozen 3 hard true apps [] by h1")
	for _, epoch := range []uint64{1, 3} { // freeze beats thaw at equal epoch
		if err := k.Merge([][]byte{m.thaw(t, epoch)}); err != nil {
			t.Fatal(err)
		}
		if !k.View().Frozen() {
			t.Fatalf("a thaw of epoch %d ended a freeze of epoch 3", epoch)
		}
	}
	old := k.Records()
	if err := k.Merge([][]byte{m.thaw(t, 4)}); err != nil {
		t.Fatal(err)
	}
	expect("thawed 4 by h9")
	if err := k.Merge(old); err != nil { // heard again, or played back
		t.Fatal(err)
	}
	expect("thawed 4 by h9")
	freeze(false)
	expect("frozen 5 hard false apps [] by h1")

	before := show(k.View())
	d.full = true
	if _, err := k.Freeze(nil, true); err == nil || show(k.View()) != before {
		t.Errorf("a freeze that is not on disk is shown: %s, %v", show(k.View()), err)
	}
}

// Who has the gossip key alone, or is a host, or was one, or has another mesh, can
// end no freeze and start none in another's name.
func TestForgeries(t *testing.T) {
	m, other := newMesh(t, "mesh-a"), newMesh(t, "mesh-b")
	var d disk
	k := d.keeper(t, m.host("h1"), "")
	if _, err := k.Freeze(nil, false); err != nil {
		t.Fatal(err)
	}
	h2 := m.host("h2")
	record := func(id *trust.Identity, r Record) []byte {
		s, err := sign(id, r)
		if err != nil {
			t.Fatal(err)
		}
		return s.encode()
	}
	hostThaw := func() []byte { // signed by a host as if it were the authority
		b, _ := SealThaw(other.Authority, 99, "h2")
		s := &Signed{}
		*s = Signed{body: b}
		return s.encode()
	}()
	mine := k.Records()[0]
	flipped := bytes.Clone(mine)
	flipped[len(flipped)-1] ^= 1
	foreign := record(other.host("h1"), Record{Epoch: 7})
	strangerThaw, _ := SealThaw(other.Authority, 99, "h2")
	for name, b := range map[string][]byte{
		"nothing": nil, "noise": []byte("freeze!"), "one bit": flipped, "more after it": append(bytes.Clone(mine), 0),
		"a freeze of another mesh": foreign, "a thaw of another mesh": strangerThaw, "a thaw by nobody": hostThaw,
		"an epoch beyond all": record(h2, Record{Epoch: maxEpoch}), "no epoch": record(h2, Record{}),
		"a host's thaw": record(h2, Record{Epoch: 9, Thaw: true}), "apps out of order": record(h2, Record{Epoch: 9, Apps: []string{"b", "a"}}),
		"too long": bytes.Repeat([]byte{0}, MaxRecord+1),
	} {
		before := show(k.View())
		if err := k.Merge([][]byte{b}); err == nil || show(k.View()) != before {
			t.Errorf("%s: taken: %v, %s", name, err, show(k.View()))
		}
	}
	d.revoked = true
	if err := k.Merge([][]byte{record(h2, Record{Epoch: 9})}); err == nil {
		t.Error("a host that was removed froze the mesh")
	}
}

// However records travel, all who have heard the same ones agree, and nobody who
// has shown a freeze acts before a thaw above it.
func TestSetsAgree(t *testing.T) {
	m := newMesh(t, "mesh-a")
	ids := []*trust.Identity{m.host("h1"), m.host("h2"), m.host("h3")}
	apps := []string{"a", "b", "c"}
	for seed := range uint64(300) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		var all []*Signed
		var sets [3]set
		shown := make([]map[string]uint64, 3) // by app, the highest epoch at which it was shown frozen
		for i := range shown {
			shown[i] = map[string]uint64{}
		}
		take := func(i int, r *Signed) {
			sets[i], _ = sets[i].with(r)
			v := sets[i].view()
			for _, app := range apps {
				if f, _ := v.Holds(app); f {
					for _, fr := range sets[i].freezes {
						if len(fr.Record.Apps) == 0 || slices.Contains(fr.Record.Apps, app) {
							shown[i][app] = max(shown[i][app], fr.Record.Epoch)
						}
					}
				} else if e := shown[i][app]; e > 0 && v.Thawed <= e {
					t.Fatalf("seed %d: host %d acts on %s, which it showed frozen at %d; thawed %d", seed, i, app, e, v.Thawed)
				}
			}
		}
		for range 12 {
			i := rnd.IntN(3)
			switch rnd.IntN(4) {
			case 0: // a leader thaws what it knows
				s, err := open(ids[i], m.thaw(t, sets[i].epoch()+1))
				if err != nil {
					t.Fatal(err)
				}
				all = append(all, s)
				take(i, s)
			case 1, 2:
				var some []string
				if rnd.IntN(2) == 0 {
					some = []string{apps[rnd.IntN(3)]}
				}
				s, err := sign(ids[i], sets[i].next(some, rnd.IntN(4) == 0))
				if err != nil {
					t.Fatal(err)
				}
				all = append(all, s)
				take(i, s)
			default:
				if len(all) > 0 {
					take(i, all[rnd.IntN(len(all))])
				}
			}
		}
		want := ""
		for i := range sets {
			rnd.Shuffle(len(all), func(a, b int) { all[a], all[b] = all[b], all[a] })
			for _, r := range append(all, all...) {
				take(i, r)
			}
			got := sets[i].digest()
			if want == "" {
				want = got
			}
			if got != want {
				t.Fatalf("seed %d: host %d knows something else than host 0", seed, i)
			}
		}
	}
}

func TestFileFreezes(t *testing.T) {
	m := newMesh(t, "mesh-a")
	file := filepath.Join(t.TempDir(), "freeze")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var d disk
	id := m.host("h1")
	write("")
	k := d.keeper(t, id, file) // before anything acts
	if got := show(k.View()); got != "frozen 1 hard false apps [] by h1" {
		t.Fatal(got)
	}
	synctest.Test(t, func(t *testing.T) {
		d := disk{}
		k := d.keeper(t, id, file)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- k.Run(ctx) }()
		write("--hard\nweb\n")
		time.Sleep(2 * lookEvery)
		if got := show(k.View()); got != "frozen 1 hard true apps [web] by h1" {
			t.Error(got)
		}
		if _, err := os.Lstat(file); err == nil {
			t.Error("the file is still there")
		}
		k.Hear(m.thaw(t, 8))
		synctest.Wait()
		if got := show(k.View()); got != "thawed 8 by h9" {
			t.Error(got)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// Who watches the file tells of it at once; where nobody can, it is looked for.
func TestFileIsWatched(t *testing.T) {
	m := newMesh(t, "mesh-a")
	file, id := filepath.Join(t.TempDir(), "freeze"), m.host("h1")
	for name, fails := range map[string]bool{"watched": false, "cannot be watched": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := disk{}
				cfg := d.config(id, file)
				news := make(chan struct{})
				cfg.Watch = func(ctx context.Context, there func()) error {
					if fails {
						return errors.New("no inotify")
					}
					for {
						select {
						case <-news:
							there()
						case <-ctx.Done():
							return nil
						}
					}
				}
				k, err := New(cfg)
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error)
				go func() { done <- k.Run(ctx) }()
				synctest.Wait()
				if err := os.WriteFile(file, nil, 0o600); err != nil {
					t.Fatal(err)
				}
				if fails {
					time.Sleep(2 * lookEvery)
				} else {
					news <- struct{}{}
					synctest.Wait()
				}
				if got := show(k.View()); got != "frozen 1 hard false apps [] by h1" {
					t.Error(got)
				}
				cancel()
				if err := <-done; err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestTooManyApps(t *testing.T) {
	m := newMesh(t, "mesh-a")
	var d disk
	k := d.keeper(t, m.host("h1"), "")
	var apps []string
	for i := range 100 {
		apps = append(apps, fmt.Sprintf("app-%03d", i))
	}
	if _, err := k.Freeze(apps, false); err == nil || !strings.Contains(err.Error(), "freeze everything") {
		t.Errorf("a hundred apps: %v", err)
	}
	if _, err := k.Freeze(apps[:20], true); err != nil {
		t.Errorf("twenty apps: %v", err)
	}
}

func TestDamagedFileIsRefused(t *testing.T) {
	m := newMesh(t, "mesh-a")
	d := disk{records: [][]byte{[]byte("?")}}
	if _, err := New(d.config(m.host("h1"), "")); err == nil {
		t.Error("a damaged file was taken for none")
	}
}
