package consensus

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// overTCP starts a server on a loopback port.
func overTCP(t *testing.T, name string) (*Node, Candidate, func() error) {
	t.Helper()
	streams, err := listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := streams.Addr().String()
	n, err := New(Config{Dir: t.TempDir(), Addr: addr, Streams: streams, LowSpace: -1, Reserve: -1, Logger: testLogger(t, name)})
	if err != nil {
		t.Fatal(err)
	}
	return n, Candidate{ID: n.ServerID(), Addr: addr, Host: name, Alive: true, Since: time.Now()}, run(t, n)
}

func TestThreeServersOverTCP(t *testing.T) {
	var nodes []*Node
	var cands []Candidate
	for i := range 3 {
		n, c, stop := overTCP(t, fmt.Sprint("h", i))
		defer func() {
			if err := stop(); err != nil {
				t.Error(err)
			}
		}()
		nodes, cands = append(nodes, n), append(cands, c)
	}
	first := nodes[0]
	eventually(t, 10*time.Second, "running", func() bool { return first.raft.Load() != nil })
	if err := first.Bootstrap(); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "three voters", func() bool {
		p, err := first.Tend(t.Context(), cands)
		return err == nil && p.Voters == 3
	})
	mustPut(t, first, "k", "v")
	if err := within(t, 5*time.Second, first.Transfer); err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, "another leads and has it", func() bool {
		return slices.ContainsFunc(nodes[1:], func(n *Node) bool {
			return within(t, time.Second, n.Barrier) == nil && get(n, "k") == "v"
		})
	})
	for _, n := range nodes {
		eventually(t, 5*time.Second, "everyone knows the leader", func() bool {
			st := n.Status()
			return st.LeaderAddr != "" && st.LeaderAddr != cands[0].Addr && st.LastContact < 2*time.Second
		})
	}
}

func TestResolvedAddressIsDialled(t *testing.T) {
	n, c, stop := overTCP(t, "h1")
	defer func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	}()
	eventually(t, 10*time.Second, "running", func() bool { return n.raft.Load() != nil })
	asked := ""
	other := &Node{cfg: Config{Resolve: func(id string) (string, bool) { asked = id; return c.Addr, true }}}
	if got := other.resolve(raft.ServerID(c.ID), "nowhere:1"); string(got) != c.Addr || asked != c.ID {
		t.Errorf("resolved to %s, asked for %s", got, asked)
	}
	other.cfg.Resolve = func(string) (string, bool) { return "", false }
	if got := other.resolve("x", "known:1"); got != "known:1" {
		t.Errorf("an unknown server went to %s", got)
	}
}

// pair is one connection between two stream layers.
func pair(t *testing.T, target, self string) (dialled, accepted net.Conn) {
	t.Helper()
	l, err := listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	server := &streams{StreamLayer: l, self: self}
	dialled, err = server.Dial(raft.ServerAddress(target+targetMark+l.Addr().String()), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	accepted, err = server.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dialled.Close(); accepted.Close() })
	return dialled, accepted
}

func TestCallForAnotherServerIsRefused(t *testing.T) {
	me, other := newServerID(), newServerID()
	dialled, accepted := pair(t, me, me)
	if _, err := io.WriteString(dialled, "hello"); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 5)
	if _, err := io.ReadFull(accepted, buf); err != nil || string(buf) != "hello" {
		t.Errorf("the right server read %q, %v", buf, err)
	}

	dialled, accepted = pair(t, other, me)
	if _, err := accepted.Read(buf); err == nil {
		t.Error("a call for another server was read")
	}
	if err := dialled.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := dialled.Read(buf); err == nil {
		t.Error("the caller was not hung up on")
	}
	if _, err := accepted.Read(buf); err == nil {
		t.Error("a second read got through")
	}
}

func TestDialNeedsATarget(t *testing.T) {
	if _, err := (&streams{self: "x"}).Dial("127.0.0.1:1", time.Second); err == nil {
		t.Error("dialled nobody in particular")
	}
}

// A connection that says nothing holds up no other, and Run's end.
func TestSilentConnectionIsHarmless(t *testing.T) {
	n, c, stop := overTCP(t, "h1")
	eventually(t, 10*time.Second, "running", func() bool { return n.raft.Load() != nil })
	for range 20 {
		conn, err := net.Dial("tcp", c.Addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	if err := n.Bootstrap(); err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, "it works", func() bool {
		return within(t, time.Second, func(ctx context.Context) error { return put(ctx, n, "k", "v") }) == nil
	})
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestSilentPeersDoNotHoldUpTheEnd(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	called := make(chan struct{}, 64)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
			go io.Copy(io.Discard, conn) //nolint:errcheck // it listens and never answers
			called <- struct{}{}
		}
	}()
	n, self, stop := overTCP(t, "h1")
	eventually(t, 10*time.Second, "running", func() bool { return n.raft.Load() != nil })
	if err := n.Bootstrap(); err != nil {
		t.Fatal(err)
	}
	silent := func(id string) Candidate {
		return Candidate{ID: id, Addr: l.Addr().String(), Host: id, Alive: true, Since: time.Now()}
	}
	eventually(t, 20*time.Second, "a silent peer", func() bool {
		_, err := n.Tend(t.Context(), []Candidate{self, silent("h2"), silent("h3")})
		return err == nil && len(called) > 0
	})
	begun := time.Now()
	if err := stop(); err != nil {
		t.Error(err)
	}
	if took := time.Since(begun); took > 4*time.Second {
		t.Errorf("the end took %s", took)
	}
}
