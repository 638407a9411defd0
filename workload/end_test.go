package workload

import (
	"testing"
	"time"
)

func TestMemoryKnowsAnEnd(t *testing.T) {
	end := func(generation uint64, start int) Instance {
		return Instance{Spec: Spec{Generation: generation}, Start: start}
	}
	for name, c := range map[string]struct {
		m    Memory
		i    Instance
		want bool
	}{
		"nothing is remembered":        {Memory{}, end(7, 1), false},
		"of the generation before":     {Memory{Generation: 6, Starts: 3, Completed: 6}, end(7, 1), false},
		"it was up":                    {Memory{Generation: 7, Starts: 2, Up: true}, end(7, 2), false},
		"the start was not remembered": {Memory{Generation: 7, Starts: 1}, end(7, 2), false},
		"the end was":                  {Memory{Generation: 7, Starts: 2}, end(7, 2), true},
		"another was up since":         {Memory{Generation: 7, Starts: 3, Up: true}, end(7, 2), true},
		"it had completed":             {Memory{Generation: 7, Starts: 2, Completed: 7}, end(7, 2), true},
		"after a reboot":               {Memory{Completed: 7}, end(7, 2), true},
		"of a later generation":        {Memory{Generation: 8}, end(7, 2), true},
	} {
		if got := c.m.Knows(c.i); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// Ends that are told before anybody has said what is wanted wait for that.
func TestEndsBeforeTheFirstWant(t *testing.T) {
	exit := func(code int, next *Instance) Exit {
		return Exit{Known: true, Code: code, At: epoch.Add(-time.Minute), Ran: time.Second, Successor: next}
	}
	inst := func(start int) *Instance {
		return &Instance{Spec: Spec{Version: "v1", Generation: 7}, Start: start, Pid: 100 + start}
	}
	reborn := func(mem Memory, exits ...Exit) *world {
		w := newWorld(t, half)
		w.step(Recalled{Memory: mem})
		w.step(Adopted{Instance: *inst(1)})
		for _, e := range exits {
			w.step(Exited{Exit: e})
		}
		if len(w.notes) > 0 || len(w.starts) > 0 {
			t.Fatalf("before the first Want: told %q, %d starts", w.kinds(), len(w.starts))
		}
		return w
	}
	up := Memory{Generation: 7, Up: true, Starts: 1, Tries: 2}

	w := reborn(up, exit(0, nil))
	if st := w.s.Status(); st.Instance != nil {
		t.Errorf("shown as running: %+v", st)
	}
	w.wantOnce(7)
	if got := w.kinds(); got != "exited" || w.s.Status().Completed != 7 || len(w.starts) != 0 || !w.notes[0].Exit.Known {
		t.Errorf("a success: told %q, %+v, %d starts", got, w.s.Status(), len(w.starts))
	}

	w = reborn(up, exit(3, nil))
	w.wantOnce(7)
	if m := w.s.Memory(); w.count(NoteExited) != 1 || m.Tries != 3 || len(w.starts) != 1 || w.inst.Start != 2 {
		t.Errorf("a failure: told %q, %+v, %d starts", w.kinds(), m, len(w.starts))
	}

	w = reborn(up, exit(0, nil))
	w.wantOnce(8)
	if got := w.kinds(); w.s.Status().Completed != 0 || len(w.starts) != 1 || w.count(NoteExited) != 1 {
		t.Errorf("of another generation: told %q, %+v, %d starts", got, w.s.Status(), len(w.starts))
	}

	w = reborn(up, exit(0, nil))
	w.step(Want{})
	if got := w.kinds(); got != "exited" || !w.s.Done() {
		t.Errorf("not wanted any more: told %q, done %v", got, w.s.Done())
	}

	w = reborn(up, exit(1, inst(2)), exit(1, inst(3)))
	w.inst = inst(3)
	w.want("v1", 7)
	if got := w.kinds(); w.count(NoteExited) != 2 || w.count(NoteRestarted) != 2 || w.s.Status().Starts != 3 || len(w.starts) != 0 {
		t.Errorf("restarted twice by PID 1: told %q, %+v, %d starts", got, w.s.Status(), len(w.starts))
	}
}
