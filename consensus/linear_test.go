package consensus

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anishathalye/porcupine"
)

// register is the model: a value that is written and read.
var register = porcupine.Model{
	Init: func() any { return "" },
	Step: func(state, input, output any) (bool, any) {
		in := input.(regInput)
		if in.write {
			return true, in.value
		}
		return output.(string) == state.(string), state
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v -> %v", input, output) },
}

type regInput struct {
	write bool
	value string
}

// history gathers what clients did, in virtual time.
type history struct {
	mu      sync.Mutex
	began   time.Time
	ops     []porcupine.Operation
	reads   int
	writes  int
	unknown int
}

func (h *history) add(client int, in regInput, out string, call, ret int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops = append(h.ops, porcupine.Operation{ClientId: client, Input: in, Output: out, Call: call, Return: ret})
	switch {
	case ret == math.MaxInt64:
		h.unknown++
	case in.write:
		h.writes++
	default:
		h.reads++
	}
}

func (h *history) now() int64 { return int64(time.Since(h.began)) }

// client writes and reads through random servers. A write with an unknown
// outcome may take effect at any later time, and its client is then another.
func client(ctx context.Context, id int, nodes []*Node, rng *rand.Rand, h *history) {
	for i := 0; ctx.Err() == nil; i++ {
		n := nodes[rng.IntN(len(nodes))]
		opCtx, cancel := context.WithTimeout(ctx, time.Second)
		in, call := regInput{write: rng.IntN(2) == 0, value: fmt.Sprintf("%d.%d", id, i)}, h.now()
		if in.write {
			err := put(opCtx, n, "r", in.value)
			switch {
			case err == nil:
				h.add(id, in, "", call, h.now())
			case errors.Is(err, ErrUnknownOutcome):
				h.add(id, in, "", call, math.MaxInt64)
				id += 100
			}
		} else if n.Barrier(opCtx) == nil {
			h.add(id, in, get(n, "r"), call, h.now())
		}
		cancel()
		time.Sleep(time.Duration(rng.IntN(int(60 * time.Millisecond))))
	}
}

func TestReadsAndWritesAreLinearizable(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			h := &history{}
			synctest.Test(t, func(t *testing.T) { record(t, h, seed) })
			if got := porcupine.CheckOperationsTimeout(register, h.ops, 30*time.Second); got != porcupine.Ok {
				t.Errorf("the history is %s", got)
			}
		})
	}
}

// record lets clients work while faults happen.
func record(t *testing.T, h *history, seed uint64) {
	r := newRig(t)
	r.mesh(3)
	var nodes []*Node
	for _, h := range r.hosts {
		nodes = append(nodes, h.node)
	}
	first := r.leader().node.Term()
	h.began = time.Now()
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for id := range 4 {
		rng := rand.New(rand.NewPCG(seed, uint64(id)))
		wg.Go(func() { client(ctx, id, nodes, rng, h) })
	}
	nemesis(t, r, rand.New(rand.NewPCG(seed, 99)))
	time.Sleep(2 * time.Second)
	stop()
	wg.Wait()

	t.Logf("%d reads, %d writes, %d unknown, terms %d to %d", h.reads, h.writes, h.unknown, first, r.leader().node.Term())
	if h.reads < 50 || h.writes < 50 || r.leader().node.Term() < first+2 {
		t.Fatal("the faults or the clients did too little to prove anything")
	}
}

// nemesis cuts the leader off in every way there is, and heals.
func nemesis(t *testing.T, r *rig, rng *rand.Rand) {
	for range 8 {
		leader := r.leader()
		addr := addrOf(leader.name)
		switch rng.IntN(5) {
		case 0:
			r.net.Isolate(addr)
		case 1: // deaf: it sends, and hears no answer
			for _, h := range r.hosts {
				r.net.CutOneWay(addrOf(h.name), addr)
			}
		case 2: // mute
			for _, h := range r.hosts {
				r.net.CutOneWay(addr, addrOf(h.name))
			}
		case 3: // as good as paused: its loop hangs in a write, and cannot notice that it was deposed
			resume := leader.store.Hang()
			r.net.Isolate(addr)
			time.Sleep(6 * time.Second)
			resume()
		case 4:
			_ = within(t, 3*time.Second, leader.node.Transfer)
		}
		time.Sleep(time.Duration(1+rng.IntN(5)) * time.Second)
		r.net.Heal()
		time.Sleep(time.Second)
	}
}
