package consensus

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/ganglion-mesh/ganglion/consensus/consensustest"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
)

func encoded(t *testing.T, key, value string) []byte {
	t.Helper()
	data, err := topology.EncodeCommand(topology.Command{PutToken: &topology.PutToken{ID: key, Role: value}})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func fileNode(t *testing.T, dir string) *Node {
	t.Helper()
	n, err := New(Config{Dir: dir, Addr: "h1:1", Transport: consensustest.NewNetwork().Transport("h1:1"), LowSpace: -1, Reserve: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// run runs a node until the function that it returns is called.
func run(t *testing.T, n *Node) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	return func() error { cancel(); return <-done }
}

func TestConfigIsChecked(t *testing.T) {
	tr := consensustest.NewNetwork().Transport("a:1")
	for want, cfg := range map[string]Config{
		"dir is missing":      {Addr: "a:1", Transport: tr},
		"is not host:port":    {Dir: "x", Addr: "a", Transport: tr},
		"streams and transp":  {Dir: "x", Addr: "a:1"},
		"not between 1 and":   {Dir: "x", Addr: "a:1", Transport: tr, Timing: 11},
		"duration is negativ": {Dir: "x", Addr: "a:1", Transport: tr, StuckAfter: -1},
	} {
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func TestStateSurvivesARestart(t *testing.T) {
	dir := t.TempDir()
	n := fileNode(t, dir)
	if err := n.Bootstrap(); err != nil {
		t.Fatal(err)
	}
	id := n.ServerID()
	stop := run(t, n)
	eventually(t, 10*time.Second, "it leads", func() bool { return n.Barrier(t.Context()) == nil })
	for i := range 20 {
		mustPut(t, n, fmt.Sprintf("k%d", i), "log")
	}
	// Half of it comes back from a snapshot, half from the log.
	if err := n.raft.Load().Snapshot().Error(); err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		mustPut(t, n, fmt.Sprintf("k%d", i), "after")
	}
	rev := n.State().Revision()
	if err := stop(); err != nil {
		t.Fatal(err)
	}

	n = fileNode(t, dir)
	if n.ServerID() != id {
		t.Errorf("the id went from %s to %s", id, n.ServerID())
	}
	if err := n.Bootstrap(); !errors.Is(err, ErrBootstrapped) {
		t.Errorf("bootstrapped twice: %v", err)
	}
	stop = run(t, n)
	eventually(t, 10*time.Second, "it leads again", func() bool { return n.Barrier(t.Context()) == nil })
	for i := range 20 {
		want := "log"
		if i < 10 {
			want = "after"
		}
		if got := get(n, fmt.Sprintf("k%d", i)); got != want {
			t.Errorf("k%d = %q, want %q", i, got, want)
		}
	}
	if got := n.State().Revision(); got != rev {
		t.Errorf("revision %d, was %d", got, rev)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

func TestSecondProcessIsKeptOut(t *testing.T) {
	dir := t.TempDir()
	n := fileNode(t, dir)
	defer n.Close()
	_, err := New(Config{Dir: dir, Addr: "h1:1", Transport: consensustest.NewNetwork().Transport("h1:1")})
	if err == nil || !strings.Contains(err.Error(), "second agent") {
		t.Errorf("a second one opened the log: %v", err)
	}
}

func TestBootstrapIsGuarded(t *testing.T) {
	dir := t.TempDir()
	n := fileNode(t, dir)
	if err := n.Bootstrap(); err != nil {
		t.Fatal(err)
	}
	if err := n.Bootstrap(); !errors.Is(err, ErrBootstrapped) {
		t.Errorf("twice: %v", err)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	// The Raft directory is lost, the marker beside it is not.
	if err := os.RemoveAll(filepath.Join(dir, raftDirName)); err != nil {
		t.Fatal(err)
	}
	n = fileNode(t, dir)
	defer n.Close()
	if err := n.Bootstrap(); !errors.Is(err, ErrBootstrapped) {
		t.Errorf("a host that lost its log founded a second mesh: %v", err)
	}
}

func TestBootstrapCutShortCanBeRepeated(t *testing.T) {
	dir := t.TempDir()
	n := fileNode(t, dir)
	if err := writeMarker(dir, n.ServerID()); err != nil { // the crash came right after the marker
		t.Fatal(err)
	}
	if err := n.Bootstrap(); err != nil {
		t.Error(err)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestDamagedIdentityIsRefused(t *testing.T) {
	for name, damage := range map[string]func(path string) error{
		"torn":    func(path string) error { return os.WriteFile(path, []byte("8f14e45f-ce"), fileMode) },
		"empty":   func(path string) error { return os.WriteFile(path, nil, fileMode) },
		"missing": os.Remove,
	} {
		dir := t.TempDir()
		n := fileNode(t, dir)
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
		if err := damage(filepath.Join(dir, raftDirName, idFileName)); err != nil {
			t.Fatal(err)
		}
		_, err := New(Config{Dir: dir, Addr: "h1:1", Transport: consensustest.NewNetwork().Transport("h1:1")})
		if err == nil || !strings.Contains(err.Error(), "wipe") {
			t.Errorf("%s id: %v", name, err)
		}
		if err := Wipe(dir); err != nil {
			t.Fatal(err)
		}
		if err := fileNode(t, dir).Close(); err != nil {
			t.Errorf("%s id, wiped: %v", name, err)
		}
	}
}

func TestStoppedNodeSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		h := r.found("h1")
		n := h.node
		mustPut(t, n, "k", "v")
		if err := h.end(); err != nil {
			t.Fatal(err)
		}
		for what, do := range map[string]func(context.Context) error{
			"apply":    func(ctx context.Context) error { return put(ctx, n, "k", "w") },
			"barrier":  n.Barrier,
			"transfer": n.Transfer,
			"tend":     func(ctx context.Context) error { _, err := n.Tend(ctx, nil); return err },
			"run":      n.Run,
		} {
			if err := within(t, time.Second, do); !errors.Is(err, ErrStopped) {
				t.Errorf("%s: %v", what, err)
			}
		}
		if get(n, "k") != "v" || n.Status().Leader || n.Term() != 0 {
			t.Error("a stopped node should show its last state, and no role")
		}
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestRejectionIsAResultNotAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		n := r.found("h1").node
		res, err := n.Apply(t.Context(), topology.Command{EnrolHost: &topology.EnrolHost{Name: "NOT A NAME", ID: "1"}})
		if err != nil || res.Err == nil {
			t.Errorf("result %+v, error %v", res, err)
		}
		if _, err := n.Apply(t.Context(), topology.Command{}); err == nil || errors.Is(err, ErrUnknownOutcome) {
			t.Errorf("an empty command: %v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := put(ctx, n, "k", "v"); !errors.Is(err, context.Canceled) || errors.Is(err, ErrUnknownOutcome) {
			t.Errorf("a call that was over before it began: %v", err)
		}
	})
}

func TestTransportWithoutPreVoteIsRefused(t *testing.T) {
	type plain struct{ raft.Transport }
	n, err := New(Config{Dir: t.TempDir(), Addr: "a:1", Transport: plain{consensustest.NewNetwork().Transport("a:1")}})
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "pre-vote") {
		t.Errorf("run said %v", err)
	}
}
