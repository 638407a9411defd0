package topology

import (
	"bytes"
	"errors"
	"testing"

	"github.com/ganglion-mesh/ganglion/intent"
)

// seeded returns a state with something in every field, and commands.
func seeded(t testing.TB) (*State, []Command) {
	w := newWorld(t)
	w.enrol("h1", "h2")
	w.put(app("web", 2, func(a *intent.App) { a.Ports = map[string]intent.Port{"http": {}} }))
	one := 1
	commands := []Command{
		{Place: &Place{Put: []Placement{{App: "web", N: 1, Host: "h1", Version: w.app("web").Version, Ports: map[string]int{"http": 20000}}}}, RequestID: "r"},
		{SetRunning: &SetRunning{App: "web", N: &one, Stopped: true}},
		{PutToken: &PutToken{ID: "t", Role: "host", Hash: []byte{1, 2}}},
		{SetDrain: &SetDrain{Host: "h2", Drain: DrainDraining}},
		{SetRollout: &SetRollout{App: "web", Rollout: Rollout{Version: w.app("web").Version, Started: w.app("web").Rollout.Started, Outcome: OutcomeDone}}},
		{RestartApp: &RestartApp{App: "web"}},
		{Restore: &Restore{MeshID: "mesh-id", Era: 3, Apps: []App{w.app("web")}}},
		{Heartbeat: &Heartbeat{}},
	}
	for _, c := range commands {
		w.must(c)
	}
	return w.state, commands
}

func TestSnapshotRefusesDamage(t *testing.T) {
	s, _ := seeded(t)
	data := snapshot(t, s)
	for i := range data {
		bad := bytes.Clone(data)
		bad[i] ^= 0x40
		if _, err := Read(bytes.NewReader(bad)); err == nil {
			t.Fatalf("a flipped bit in byte %d went unnoticed", i)
		}
	}
	for i := range data {
		if _, err := Read(bytes.NewReader(data[:i])); err == nil {
			t.Fatalf("a snapshot cut to %d bytes was read", i)
		}
	}
	if err := s.Write(failing{}); err == nil {
		t.Error("a failed write went unnoticed")
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errors.New("disk full") }

// Images that no history could have made are refused, checksum or not.
func TestSnapshotRefusesNonsense(t *testing.T) {
	s, _ := seeded(t)
	for name, spoil := range map[string]func(*image){
		"twice":           func(im *image) { im.Hosts = append(im.Hosts, im.Hosts[0]) },
		"host missing":    func(im *image) { im.Placements[0].Host = "h9" },
		"app missing":     func(im *image) { im.Apps = nil },
		"version missing": func(im *image) { im.Apps[0].Version = "x" },
		"placed version":  func(im *image) { im.Placements[0].Version = "x" },
		"number":          func(im *image) { im.Placements[0].N = -1 },
		"app name":        func(im *image) { im.Apps = append(im.Apps, App{}) },
		"host name":       func(im *image) { im.Hosts = append(im.Hosts, hostImage{}) },
		"stopped copies":  func(im *image) { im.Apps[0].StoppedCopies = []int{2, 1} },
	} {
		im := s.image()
		spoil(&im)
		if _, err := im.state(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func FuzzDecodeCommand(f *testing.F) {
	s, commands := seeded(f)
	for _, c := range commands {
		data, err := EncodeCommand(c)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := DecodeCommand(data)
		if err != nil {
			return
		}
		next, _ := s.Apply(s.Revision()+1, c)
		if _, err := Read(bytes.NewReader(snapshot(t, next))); err != nil {
			t.Errorf("%+v makes a state that cannot be restored: %v", c, err)
		}
	})
}

func FuzzRead(f *testing.F) {
	s, _ := seeded(f)
	data := snapshot(f, s)
	f.Add(data)
	body := data[snapshotHeader : len(data)-32]
	f.Add(body)
	f.Fuzz(func(t *testing.T, data []byte) {
		_, _ = Read(bytes.NewReader(data))
		var im image // past the checksum, where the fuzzer would never get
		if snapshotCodec.dec.Unmarshal(data, &im) != nil {
			return
		}
		s, err := im.state()
		if err != nil {
			return
		}
		obs := Observations{Settled: true, Hosts: map[string]HostObs{}}
		for _, h := range s.Hosts() {
			obs.Hosts[h.Name] = HostObs{Alive: true, Reported: true, Slice: upToDate, PortMin: 1, PortMax: 9, CPU: 1, Memory: 1}
		}
		Status(s, obs)
	})
}
