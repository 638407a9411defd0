package topology

import (
	"bytes"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/ganglion-mesh/ganglion/intent"
)

var update = flag.Bool("update", false, "rewrite the expected text of transcripts")

// TestTranscripts runs the stories in testdata. A story is a list of blocks:
// commands, a line of dashes, what they say. See (*story).do for the commands.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := tell(t, string(want))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if !bytes.Equal([]byte(got), want) {
				t.Errorf("%s says otherwise now; look at the difference with -update:\n%s", file, got)
			}
		})
	}
}

func tell(t *testing.T, text string) string {
	st := &story{sim: &sim{world: newWorld(t), rnd: rand.New(rand.NewPCG(1, 1)), hosts: map[string]*simHost{}, excused: map[string]bool{}}}
	st.quiet = true
	var out strings.Builder
	for i, block := range strings.Split(strings.TrimRight(text, "\n"), "\n\n") {
		if i > 0 {
			out.WriteString("\n\n")
		}
		input, _, _ := strings.Cut(block, "\n----")
		out.WriteString(input + "\n----")
		st.log = nil
		for line := range strings.Lines(input) {
			if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
				st.do(line)
			}
		}
		for _, l := range st.log {
			out.WriteString("\n" + strings.TrimRight(l, " "))
		}
	}
	if len(st.mistakes) > 0 {
		t.Errorf("promises broken: %v", st.mistakes)
	}
	return out.String() + "\n"
}

type story struct{ *sim }

func (st *story) do(line string) {
	words := strings.Fields(line)
	opts := map[string]string{}
	var args []string
	for _, w := range words[1:] {
		if k, v, ok := strings.Cut(w, "="); ok && !strings.HasPrefix(v, "=") {
			opts[k] = strings.ReplaceAll(v, "~", " ") // require=zone~!=~'c'
		} else {
			args = append(args, w)
		}
	}
	switch words[0] {
	case "host":
		st.addHost(args[0], opts["zone"])
		h := st.hosts[args[0]]
		h.cpu, _ = strconv.ParseFloat(opts["cpu"], 64)
		h.user = opts["root"] != "no"
	case "apply":
		st.put(st.declared(args[0], opts))
	case "settle":
		st.settle()
	case "tick":
		n, _ := strconv.Atoi(args[0])
		for range n {
			st.tick()
		}
	case "kill", "revive", "taken":
		st.machine(words[0], args)
	case "drain", "undrain":
		st.user(Command{SetDrain: &SetDrain{Host: args[0], Drain: map[string]Drain{"drain": DrainDraining, "undrain": DrainNone}[words[0]]}})
	case "remove":
		st.user(Command{RemoveHost: &RemoveHost{Name: args[0], ID: "id-" + args[0]}})
		delete(st.hosts, args[0])
		st.names = without(st.names, args[0])
	case "delete":
		st.user(Command{DeleteApp: &DeleteApp{Name: args[0]}})
	case "stop", "start", "restart":
		st.user(acted(words[0], args[0]))
	case "rollback":
		st.user(Command{Rollback: &Rollback{App: args[0], To: opts["to"]}})
	case "history":
		for _, h := range st.app(args[0]).History {
			st.print("%.4s %s back=%v %s", h.Version, orText(string(h.Outcome), "under way"), h.Back, h.Reason)
		}
	case "freeze":
		st.freeze = Freeze{All: len(args) == 0, Apps: args}
	case "thaw":
		st.freeze = Freeze{}
	case "leader":
		st.office, st.gate, st.calm = st.now, false, st.now
	case "status":
		st.status()
	case "plan":
		st.plan(line, opts)
	case "explain":
		var key CopyKey
		_ = key.UnmarshalText([]byte(args[0]))
		for _, v := range Explain(st.state, st.observe(), key) {
			st.print("%s: fits=%v chose=%v %s", v.Host, v.Fits, v.Chose, v.Why)
		}
	default:
		st.t.Fatalf("unknown command in a transcript: %s", line)
	}
}

func (st *story) print(format string, args ...any) {
	st.log = append(st.log, "     "+fmt.Sprintf(format, args...))
}

func (st *story) user(c Command) {
	if r := st.apply(c); r.Err != nil {
		st.print("refused: %s", r.Err)
	}
}

func acted(verb, name string) Command {
	var n *int
	app, num, one := strings.Cut(name, "/")
	if one {
		v, _ := strconv.Atoi(num)
		n = &v
	}
	if verb == "restart" {
		return Command{RestartApp: &RestartApp{App: app, N: n}}
	}
	return Command{SetRunning: &SetRunning{App: app, N: n, Stopped: verb == "stop"}}
}

func (st *story) machine(verb string, args []string) {
	h := st.hosts[args[0]]
	switch verb {
	case "kill":
		h.dead, h.since, h.procs = true, st.now, map[CopyKey]*proc{}
	case "revive":
		st.revive(h)
	case "taken":
		port, _ := strconv.Atoi(args[1])
		h.taken = append(h.taken, port)
		for _, x := range h.procs {
			for _, p := range x.p.Ports {
				if p == port {
					x.readyAt = -1
				}
			}
		}
	}
}

func (st *story) declared(name string, opts map[string]string) intent.App {
	count := 1
	if v, ok := opts["count"]; ok {
		count, _ = strconv.Atoi(v)
	}
	return app(name, count, func(a *intent.App) {
		a.Run.Env = map[string]string{"GOES": opts["goes"], "V": opts["v"]}
		a.Update.Deadline = 15 * intent.Second
		a.Update.Parallel, _ = strconv.Atoi(opts["parallel"])
		a.Update.Canary, _ = strconv.Atoi(opts["canary"])
		if opts["strategy"] != "" {
			a.Update.Strategy = opts["strategy"]
		}
		if opts["on_failure"] != "" {
			a.Update.OnFailure = opts["on_failure"]
		}
		if opts["smoke"] != "" {
			a.Checks = []intent.Check{{Type: intent.CheckSmoke, Command: []string{"/bin/try"}}}
			a.Run.Env["SMOKE"] = opts["smoke"]
		}
		if opts["not_on"] != "" {
			a.Run.Env["NOT_ON"] = opts["not_on"]
		}
		a.Run.User = opts["user"]
		a.Resources.CPU, _ = strconv.ParseFloat(opts["cpu"], 64)
		_ = a.Resources.Memory.UnmarshalText([]byte(opts["mem"]))
		a.Place.Spread = opts["spread"]
		a.Disconnect.Policy = opts["policy"]
		if opts["require"] != "" {
			a.Place.Require = []string{opts["require"]}
		}
		if opts["prefer"] != "" {
			a.Place.Prefer = []string{opts["prefer"]}
		}
		if opts["port"] != "" {
			a.Ports = map[string]intent.Port{opts["port"]: {}}
		}
		if opts["static"] != "" {
			static, _ := strconv.Atoi(opts["static"])
			a.Ports = map[string]intent.Port{"main": {Static: static}}
		}
		if opts["per_host"] != "" {
			a.Count, a.PerHost = nil, true
		}
	})
}

// settle lets time pass until nothing has happened for a while.
func (st *story) settle() {
	for last, i := st.now, 0; i < 300 && st.now-last < 20; i++ {
		before := st.state
		st.tick()
		if st.state != before {
			last = st.now
		}
	}
	d := Decide(st.state, st.observe())
	for _, u := range d.Unplaced {
		st.print("unplaced %s: %s", u.Copy, u.Reason)
	}
	if d.Held != "" {
		st.print("held: %s", d.Held)
	}
}

func (st *story) status() {
	for _, a := range Status(st.state, st.observe()) {
		st.print("%s %s %.4s: %s, %d of %d ready. %s", a.Kind, a.App, a.Version, a.State, a.Ready, a.Want, a.Why)
		for _, c := range a.Copies {
			st.print("  %s %s %.4s %s ready=%v %v %s", c.ID, orText(c.Host, "-"), c.Version, c.State, c.Ready, c.Ports, c.Why)
		}
	}
}

func (st *story) plan(line string, opts map[string]string) {
	list := func(s string) []string { return strings.FieldsFunc(s, func(r rune) bool { return r == ',' }) }
	var put *PutIntents
	if _, what, ok := strings.Cut(line, " apply "); ok {
		words := strings.Fields(what)
		put = &PutIntents{Intents: intent.Intents{Apps: []intent.App{st.declared(words[0], opts)}}}
	}
	p := Plan(st.state, st.observe(), WhatIf{Put: put, Lose: list(opts["lose"]), Drain: list(opts["drain"])})
	if p.Err != nil {
		st.print("refused: %s", p.Err)
	}
	for _, c := range p.Changes {
		st.print("%s %s %s %v", c.Op, c.Kind, c.Name, c.Fields)
	}
	for _, m := range p.Moves {
		st.print("move %s %s → %s: %s", m.Copy, m.From, m.To, m.Reason)
	}
	for _, u := range p.Unplaced {
		st.print("unplaced %s: %s", u.Copy, u.Reason)
	}
	if p.Held != "" {
		st.print("held: %s", p.Held)
	}
}

func without(list []string, name string) (kept []string) {
	for _, x := range list {
		if x != name {
			kept = append(kept, x)
		}
	}
	return kept
}
