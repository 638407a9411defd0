package consensustest_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/ganglion-mesh/ganglion/consensus/consensustest"
)

// answer lets t answer n calls.
func answer(t *consensustest.Transport, n int) {
	go func() {
		for range n {
			rpc := <-t.Consumer()
			rpc.Respond(&raft.RequestVoteResponse{Term: 7}, nil)
		}
	}()
}

func ask(from *consensustest.Transport, id raft.ServerID, to raft.ServerAddress) (uint64, error) {
	var resp raft.RequestVoteResponse
	err := from.RequestVote(id, to, &raft.RequestVoteRequest{Term: 1}, &resp)
	return resp.Term, err
}

func TestNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := consensustest.NewNetwork()
		a, b := n.Transport("a"), n.Transport("b")
		b.Identify("idb")
		answer(b, 3)

		if term, err := ask(a, "idb", "b"); err != nil || term != 7 {
			t.Errorf("whole: %d, %v", term, err)
		}
		n.CutOneWay("b", "a") // the call arrives, the answer is lost
		began := time.Now()
		if _, err := ask(a, "idb", "b"); err == nil || time.Since(began) == 0 {
			t.Errorf("answer cut: %v after %v", err, time.Since(began))
		}
		n.Heal()
		n.Isolate("b")
		if _, err := ask(a, "idb", "b"); err == nil {
			t.Error("isolated, and reached")
		}
		n.Heal()
		if _, err := ask(a, "other", "b"); err == nil {
			t.Error("a call for another server was taken")
		}
		if _, err := ask(a, "idb", "nowhere"); err == nil {
			t.Error("nobody answered")
		}
		if term, err := ask(a, "idb", "b"); err != nil || term != 7 {
			t.Errorf("healed: %d, %v", term, err)
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := ask(a, "idb", "b"); err == nil {
			t.Error("closed, and reached")
		}
		if _, err := ask(b, "", "a"); !errors.Is(err, raft.ErrTransportShutdown) {
			t.Errorf("a closed end called: %v", err)
		}
	})
}

func TestStoreFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := consensustest.NewStore()
		entry := &raft.Log{Index: 1, Term: 1, Data: []byte("x")}
		if err := s.StoreLog(entry); err != nil {
			t.Fatal(err)
		}
		entry.Data = []byte("changed")
		var got raft.Log
		if err := s.GetLog(1, &got); err != nil || string(got.Data) != "x" {
			t.Errorf("read %q, %v", got.Data, err)
		}
		broken := errors.New("broken")
		s.Fail(broken)
		if err := s.SetUint64([]byte("k"), 1); !errors.Is(err, broken) {
			t.Errorf("a failing disk: %v", err)
		}
		s.Fail(nil)
		resume := s.Hang()
		done := make(chan error, 1)
		go func() { done <- s.StoreLog(&raft.Log{Index: 2}) }()
		time.Sleep(time.Hour)
		select {
		case <-done:
			t.Error("it did not hang")
		default:
		}
		resume()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
