package workloadtest

import (
	"sync"
	"syscall"
	"testing"

	"github.com/ganglion-mesh/ganglion/workload"
)

func (b *bench) restart() []workload.Handle {
	b.t.Helper()
	b.d = b.Restart(b.t, b.d)
	hs, err := b.d.Adopt(b.ctx())
	if err != nil {
		b.t.Fatalf("adopt: %v", err)
	}
	return hs
}

func testAdopt(t *testing.T, b *bench) {
	want := map[workload.CopyID]workload.Instance{}
	for n := 1; n <= 3; n++ {
		s := b.spec("web", n, b.p.Sleep)
		s.Generation, s.Env = uint64(10+n), map[string]string{"A": "b"}
		want[s.ID] = b.start(s, n).Instance()
	}
	for life := 1; life <= 2; life++ {
		hs := b.restart()
		if len(hs) != len(want) {
			t.Fatalf("life %d: %d copies adopted, want %d", life, len(hs), len(want))
		}
		for _, h := range hs {
			in := h.Instance()
			w := want[in.Spec.ID]
			if in.Pid != w.Pid || in.StartTime != w.StartTime || in.Start != w.Start ||
				in.Spec.Generation != w.Spec.Generation || in.Spec.Version != w.Spec.Version || in.Spec.Env["A"] != "b" {
				t.Errorf("life %d: adopted %+v, want %+v", life, in, w)
			}
			if life < 2 {
				continue
			}
			b.stop(h, patience)
			if e := b.exit(h); e.Known && e.Signal != syscall.SIGTERM {
				t.Errorf("exit %+v", e)
			}
		}
	}
	if hs := b.restart(); len(hs) != 0 {
		t.Errorf("%d copies adopted after all were stopped", len(hs))
	}
}

func testAdoptNothing(t *testing.T, b *bench) {
	hs, err := b.d.Adopt(b.ctx())
	if err != nil || len(hs) != 0 {
		t.Errorf("adopted %v, %v on a fresh host", hs, err)
	}
}

func testAdoptThenStart(t *testing.T, b *bench) {
	s := b.spec("web", 1, b.p.Sleep)
	pid := b.start(s, 1).Instance().Pid
	hs := b.restart()
	if len(hs) != 1 || hs[0].Instance().Pid != pid {
		t.Fatalf("adopted %v, want process %d", hs, pid)
	}
	if _, err := b.d.Start(b.ctx(), s, 2); err == nil {
		t.Fatal("an adopted copy was doubled")
	}
	if err := hs[0].Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	b.exit(hs[0])
	h := b.start(s, 2)
	if in := h.Instance(); in.Pid == pid || in.Start != 2 {
		t.Errorf("restarted as %+v", in)
	}
	b.stop(h, 0)
}

func testMany(t *testing.T, b *bench) {
	ctx := b.ctx()
	var wg sync.WaitGroup
	for n := range 20 {
		s := b.spec("web", n, b.p.Sleep)
		wg.Go(func() {
			for i := 1; i <= 2; i++ {
				h, err := b.d.Start(ctx, s, i)
				if err != nil {
					t.Errorf("start %s: %v", s.ID, err)
					return
				}
				if err := h.Stop(ctx, syscall.SIGTERM, patience); err != nil {
					t.Errorf("stop %s: %v", s.ID, err)
				}
			}
			if err := b.d.Purge(ctx, s.ID); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}
