package reflexes

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ReplayOptions say how a story is played.
type ReplayOptions struct {
	Config
	// Takes is how long an act takes; 10 ms if zero.
	Takes time.Duration
	// Tail is how long it goes on after the last moment, unless the story has an
	// end of its own; a minute if zero.
	Tail time.Duration
}

// Replay runs rules over a story through the very engine that hosts run, and
// returns what it did, a line each: the same text for the same arguments.
func Replay(rules []*Rule, story []Moment, o ReplayOptions) (string, error) {
	p := &player{rules: rules, options: o, failing: map[string]bool{}, others: map[string]int{}}
	if p.options.Takes == 0 {
		p.options.Takes = 10 * time.Millisecond
	}
	if p.options.Boot == "" {
		p.options.Boot = "1"
	}
	end := time.Minute
	if o.Tail > 0 {
		end = o.Tail
	}
	if n := len(story); n > 0 {
		end += story[n-1].At
		if i := slices.IndexFunc(story, func(m Moment) bool { return m.Do == "end" }); i >= 0 {
			end, story = story[i].At, story[:i]
		}
	}
	p.born()
	for i := 0; i < len(story); {
		p.until(story[i].At)
		var facts []Fact
		at := story[i].At
		for ; i < len(story) && story[i].At == at && story[i].Do == ""; i++ {
			facts = append(facts, story[i].Facts...)
		}
		if facts == nil {
			if err := p.do(story[i]); err != nil {
				return p.out.String(), err
			}
			i++
		}
		p.step(facts)
	}
	p.until(end)
	p.line("end", p.engine.summary())
	return p.out.String(), nil
}

// player is a host in a story.
type player struct {
	rules    []*Rule
	options  ReplayOptions
	engine   *Engine
	now      Boot
	offset   Boot // of the boot clock, which begins anew with each boot
	out      strings.Builder
	auth     Authority
	permit   Boot
	failing  map[string]bool
	others   map[string]int
	ends     []ending
	snapshot []byte
	journal  []Record
}

type ending struct {
	at  Boot
	act Act
}

func (p *player) born() {
	p.engine = NewEngine(p.options.Config)
	if p.snapshot != nil || p.journal != nil {
		if err := p.engine.Restore(p.now-p.offset, p.snapshot, p.journal); err != nil {
			p.line("agent", err.Error())
		}
	}
	p.engine.SetRules(p.now-p.offset, p.rules)
	p.tell()
}

// until lets everything happen that is due before at.
func (p *player) until(at Boot) {
	for range 1 << 22 {
		next := at
		wake := p.engine.Wake()
		if wake != never {
			next = min(next, max(wake+p.offset, p.now))
		}
		if len(p.ends) > 0 {
			next = min(next, p.ends[0].at)
		}
		if next >= at && (wake == never || wake+p.offset >= at) && (len(p.ends) == 0 || p.ends[0].at >= at) {
			break
		}
		p.now = next
		if len(p.ends) > 0 && p.ends[0].at <= next {
			e := p.ends[0]
			p.ends = p.ends[1:]
			ok, why := !p.failing[e.act.Rule], ""
			if !ok {
				why = "it failed, as the story says"
			}
			p.engine.Done(next-p.offset, e.act.ID, ok, why)
			p.tell()
			continue
		}
		p.step(nil)
	}
	p.now = at
}

// step steps the engine and does what it asks for.
func (p *player) step(facts []Fact) {
	now := p.now - p.offset
	shifted := slices.Clone(facts)
	for i := range shifted {
		shifted[i].At -= p.offset
	}
	firings, _ := p.engine.Step(now, shifted)
	for _, f := range firings {
		a := p.auth
		a.PermitAge, a.SameRule = p.now-p.permit, p.others[f.Rule]
		a.Witnessed, a.Leased = true, true
		if act, ok := p.engine.Permit(now, f, a); ok {
			p.ends = append(p.ends, ending{p.now + p.options.Takes, act})
		}
	}
	p.tell()
}

func (p *player) tell() {
	p.journal = append(p.journal, p.engine.TakeRecords()...)
	for _, o := range p.engine.TakeOutcomes() {
		p.line(o.Rule+" "+o.Target.String(), o.text())
	}
}

func (p *player) line(who, what string) {
	fmt.Fprintf(&p.out, "%10s  %s: %s\n", clockText(p.now), who, what)
}

// clockText prints a time so that a column of them lines up.
func clockText(at Boot) string {
	return strconv.FormatFloat(at.Seconds(), 'f', 3, 64) + "s"
}

// do carries out what happens to the mesh or the agent.
func (p *player) do(m Moment) error {
	now := p.now - p.offset
	switch m.Do {
	case "freeze":
		p.auth.Hard = slices.Contains(m.Args, "hard")
		apps := slices.DeleteFunc(slices.Clone(m.Args), func(s string) bool { return s == "hard" })
		p.auth.Frozen, p.auth.FrozenApps = len(apps) == 0, apps
	case "thaw":
		p.auth.Frozen, p.auth.Hard, p.auth.FrozenApps = false, false, nil
	case "gate":
		p.auth.GateShut = m.Args[0] == "shut"
	case "permit":
		p.auth.Permitted, p.permit = true, p.now
	case "failing", "working":
		p.failing[m.Args[0]] = m.Do == "failing"
	case "restart-agent", "crash-agent", "reboot":
		return p.die(m.Do)
	default:
		return p.count(now, m)
	}
	p.line("story", strings.Join(append([]string{m.Do}, m.Args...), " "))
	return nil
}

// count carries out what has a number or a time.
func (p *player) count(now Boot, m Moment) error {
	n := len(m.Args)
	d, err := time.ParseDuration(m.Args[n-1])
	switch m.Do {
	case "others":
		p.others[m.Args[0]], err = strconv.Atoi(m.Args[1])
	case "lend":
		var tokens int
		if tokens, err = strconv.Atoi(m.Args[0]); err == nil && d == 0 {
			d, err = time.ParseDuration(m.Args[2])
		}
		p.engine.Lend(now, Loan{ID: uint64(p.now) + 1, Tokens: tokens, Until: now + d})
	default:
		var t Target
		if n == 3 {
			if t, err = ParseTarget(m.Args[0]); err == nil {
				d, err = time.ParseDuration(m.Args[2])
			}
		}
		p.engine.Mute(now, "", t, now+d, m.Do == "deploying")
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", m.Do, strings.Join(m.Args, " "), err)
	}
	p.line("story", strings.Join(append([]string{m.Do}, m.Args...), " "))
	p.tell()
	return nil
}

// die ends the agent, with a last snapshot or without one, or the host.
func (p *player) die(how string) error {
	p.line("story", how)
	if how == "restart-agent" {
		s, err := p.engine.Snapshot()
		if err != nil {
			return err
		}
		p.snapshot = s
	}
	p.ends = nil
	if how == "reboot" {
		p.offset = p.now
		p.options.Boot += "+"
	}
	p.born()
	return nil
}

// text prints an outcome.
func (o *Outcome) text() string {
	var b strings.Builder
	b.WriteString(o.Kind.String())
	if o.Action != "" {
		b.WriteString(" " + o.Action)
	}
	if o.Act != 0 {
		fmt.Fprintf(&b, " (act %d)", o.Act)
	}
	switch {
	case o.Kind == Finished && o.OK:
		b.WriteString(", ok")
	case o.Kind == Cleared:
		fmt.Fprintf(&b, " after %s", o.Held)
	case o.Kind == Undecided && o.Var != 0:
		fmt.Fprintf(&b, ": %s is not known", o.Var)
		return b.String()
	}
	if o.Reason != ReasonNone {
		b.WriteString(": " + o.Reason.String())
	}
	if o.Detail != "" {
		b.WriteString(" (" + o.Detail + ")")
	}
	if o.Retry > o.At {
		fmt.Fprintf(&b, "; again in %s", (o.Retry - o.At).Round(time.Millisecond))
	}
	if o.Kind == Fired || o.Kind == Observed {
		for i, f := range o.Facts {
			b.WriteString([]string{", ", "; "}[b2i(i == 0)] + f.Var.String() + " = " + f.Value.String())
		}
	}
	return b.String()
}

// summary tells how the rules stand at the end.
func (e *Engine) summary() string {
	counts := map[string]int{}
	for _, in := range e.instances {
		counts[in.state.String()]++
	}
	var words []string
	for _, n := range stateNames {
		if counts[n] > 0 {
			words = append(words, fmt.Sprintf("%d %s", counts[n], n))
		}
	}
	return fmt.Sprintf("%d acts; %s", e.acts, strings.Join(words, ", "))
}
