package consensus

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"
)

// childEnv makes the test binary a server that is driven through its standard
// input: real processes, so that they can be killed and paused.
const childEnv = "GANGLION_CONSENSUS_TEST_CHILD"

// order is what a child is told, report what it answers, both one line of JSON.
type order struct {
	Do    string // put, get (after a barrier), watch, status, bootstrap, tend
	Key   string
	Value string
	Cands []Candidate
}

type report struct {
	Value  string
	Err    string
	Status Status
	Plan   VoterPlan
	Reads  int
	Latest time.Time // when the latest read began that still gave the value
}

// tcpStreams is the plainest StreamLayer.
type tcpStreams struct{ net.Listener }

func (tcpStreams) Dial(addr string, timeout time.Duration) (net.Conn, error) {
	return net.DialTimeout("tcp", addr, timeout)
}

func listen(addr string) (tcpStreams, error) {
	l, err := net.Listen("tcp", addr)
	return tcpStreams{l}, err
}

func runChild() {
	if err := child(os.Getenv(childEnv)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// child serves "dir|addr" until its input ends.
func child(where string) error {
	dir, addr := filepath.Split(where)
	streams, err := listen(addr)
	if err != nil {
		return err
	}
	n, err := New(Config{Dir: dir, Addr: addr, Streams: streams, LowSpace: -1, Reserve: -1})
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	go func() {
		in, out := bufio.NewScanner(os.Stdin), json.NewEncoder(os.Stdout)
		for in.Scan() {
			var o order
			if json.Unmarshal(in.Bytes(), &o) != nil {
				break
			}
			said := func() { _ = out.Encode(report{}) } // the parent misses it, and says so
			if out.Encode(obey(ctx, n, o, said)) != nil {
				break
			}
		}
		stop()
	}()
	return <-done
}

func obey(ctx context.Context, n *Node, o order, begun func()) report {
	if o.Do != "watch" {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, 4*time.Second)
		defer cancel()
	}
	var r report
	var err error
	switch o.Do {
	case "put":
		err = put(ctx, n, o.Key, o.Value)
	case "get":
		if err = n.Barrier(ctx); err == nil {
			r.Value = get(n, o.Key)
		}
	case "watch":
		r = watch(ctx, n, o, begun)
	case "bootstrap":
		err = n.Bootstrap()
	case "tend":
		r.Plan, err = n.Tend(ctx, o.Cands)
	}
	if err != nil {
		r.Err = err.Error()
	}
	r.Status = n.Status()
	return r
}

// watch reads without a pause, from several goroutines, as long as it is given
// the value of the order. It reports once when it is under way, and at the end.
func watch(ctx context.Context, n *Node, o order, begun func()) (r report) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for {
				began := time.Now()
				if n.Barrier(ctx) != nil || get(n, o.Key) != o.Value {
					return
				}
				mu.Lock()
				if r.Reads++; r.Reads == 100 {
					begun()
				}
				if began.After(r.Latest) {
					r.Latest = began
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return r
}

// process is a server in a process of its own.
type process struct {
	t    *testing.T
	dir  string
	addr string
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Scanner
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func spawn(t *testing.T, dir, addr string) *process {
	t.Helper()
	p := &process{t: t, dir: dir, addr: addr}
	p.cmd = exec.Command(os.Args[0])
	p.cmd.Env = append(os.Environ(), childEnv+"="+filepath.Join(dir, addr))
	p.cmd.Stderr = t.Output()
	var err error
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.out = bufio.NewScanner(out)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	return p
}

// ask sends an order and waits for the report.
func (p *process) ask(o order) (report, error) {
	if err := json.NewEncoder(p.in).Encode(o); err != nil {
		return report{}, err
	}
	if !p.out.Scan() {
		return report{}, errors.Join(io.ErrUnexpectedEOF, p.out.Err())
	}
	var r report
	err := json.Unmarshal(p.out.Bytes(), &r)
	if err == nil && r.Err != "" {
		err = errors.New(r.Err)
	}
	return r, err
}

func (p *process) leads() bool {
	r, err := p.ask(order{Do: "get"})
	return err == nil && r.Status.Leader
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// kill kills it like a power cut and waits until it is gone.
func (p *process) kill() {
	if p.cmd.ProcessState == nil {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait() // says that it was killed
	}
}

// three makes a mesh of three voters in three processes.
func three(t *testing.T) (all []*process, leader *process) {
	t.Helper()
	var cands []Candidate
	for i := range 3 {
		p := spawn(t, t.TempDir(), freeAddr(t))
		all = append(all, p)
		r, err := p.ask(order{Do: "status"})
		if err != nil {
			t.Fatal(err)
		}
		cands = append(cands, Candidate{ID: r.Status.ID, Addr: p.addr, Host: fmt.Sprint("h", i), Alive: true, Since: time.Now()})
	}
	leader = all[0]
	eventually(t, 10*time.Second, "bootstrapped", func() bool {
		_, err := leader.ask(order{Do: "bootstrap"})
		return err == nil
	})
	eventually(t, 20*time.Second, "three voters", func() bool {
		r, err := leader.ask(order{Do: "tend", Cands: cands})
		return err == nil && r.Plan.Voters == 3
	})
	return all, leader
}

func without(all []*process, one *process) []*process {
	return slices.DeleteFunc(slices.Clone(all), func(p *process) bool { return p == one })
}

func leaderOf(t *testing.T, all []*process) *process {
	t.Helper()
	var leader *process
	eventually(t, 30*time.Second, "a leader", func() bool {
		for _, p := range all {
			if p.leads() {
				leader = p
				return true
			}
		}
		return false
	})
	return leader
}

// Whatever was acknowledged is there after all servers were killed at once.
func TestAcknowledgedWritesSurviveKillOfAll(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	all, leader := three(t)
	const writes = 100
	for i := range writes {
		if _, err := leader.ask(order{Do: "put", Key: fmt.Sprint("k", i), Value: fmt.Sprint("v", i)}); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range all {
		p.kill()
	}
	for i, p := range all {
		all[i] = spawn(t, p.dir, p.addr)
	}
	leader = leaderOf(t, all)
	for i := range writes {
		r, err := leader.ask(order{Do: "get", Key: fmt.Sprint("k", i)})
		if err != nil || r.Value != fmt.Sprint("v", i) {
			t.Fatalf("k%d = %q, %v", i, r.Value, err)
		}
	}
}

// A leader that was paused while another took over must not answer a read that
// is asked after it wakes from what it knew before. Raft's VerifyLeader does.
func TestPausedLeaderServesNoStaleRead(t *testing.T) {
	if testing.Short() {
		t.Skip("pauses a process for seconds")
	}
	all, old := three(t)
	if _, err := old.ask(order{Do: "put", Key: "k", Value: "old"}); err != nil {
		t.Fatal(err)
	}
	if _, err := old.ask(order{Do: "watch", Key: "k", Value: "old"}); err != nil {
		t.Fatal(err) // this was the report that it is under way
	}
	others := without(all, old)
	old.signal(syscall.SIGSTOP)
	next := leaderOf(t, others)
	if _, err := next.ask(order{Do: "put", Key: "k", Value: "new"}); err != nil {
		t.Fatal(err)
	}
	woken := time.Now() // from here on, no read may begin and still give "old"
	old.signal(syscall.SIGCONT)
	if !old.out.Scan() {
		t.Fatal("no answer")
	}
	var r report
	if err := json.Unmarshal(old.out.Bytes(), &r); err != nil {
		t.Fatal(err)
	}
	t.Logf("it read %d times", r.Reads)
	if r.Latest.After(woken) {
		t.Errorf("a read that began %v after the leader woke gave what it knew before", r.Latest.Sub(woken))
	}
	eventually(t, 10*time.Second, "it follows", func() bool {
		r, err := old.ask(order{Do: "status"})
		return err == nil && !r.Status.Leader && r.Status.LeaderAddr == next.addr
	})
}

func TestKilledLeaderIsReplacedWithinFiveSeconds(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	all, old := three(t)
	began := time.Now()
	old.kill()
	next := leaderOf(t, without(all, old))
	if _, err := next.ask(order{Do: "put", Key: "k", Value: "v"}); err != nil {
		t.Fatal(err)
	}
	took := time.Since(began)
	t.Logf("the next leader committed after %v", took.Round(time.Millisecond))
	if took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
}
