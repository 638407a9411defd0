package agent

import (
	"sync"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/copies"
	"github.com/ganglion-mesh/ganglion/reflexes"
)

const (
	// actShadow is how long after an act what changes about a copy is taken for its
	// doing.
	actShadow = 5 * time.Second
	// oomDelay is how long the end of a copy by SIGKILL is held back where a rule
	// asks whether it was for want of memory: the kernel counts the kill as it is
	// done, and tells of it a moment later.
	oomDelay = 60 * time.Millisecond
)

// pulse is what is known of copies from one event to the next: how often they
// have ended, and what is being done to them.
type pulse struct {
	mu     sync.Mutex
	copies map[string]*copyPulse // by id
}

type copyPulse struct {
	exits      int64
	ooms       int64  // when last looked at
	generation uint64 // that was placed last; 0: none was seen
	deploying  bool   // it has not been ready since
	act        reflexes.ActID
	op         string        // of the act
	chain      string        // of rules behind the act, its own the last
	until      reflexes.Boot // of its shadow; 0 while it is under way
	last       string        // id of the last event of an end or of ill health
}

// of returns what is known of a copy. It is called with mu held.
func (p *pulse) of(copy string) *copyPulse {
	c := p.copies[copy]
	if c == nil {
		c = &copyPulse{}
		p.copies[copy] = c
	}
	return c
}

// deployed notes the generation that is placed, and reports whether it is
// another than before. What an agent finds at its start, first, is no deploy.
func (p *pulse) deployed(copy string, generation uint64, first bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.of(copy)
	was := c.generation
	c.generation = generation
	if was == 0 && first || was == generation {
		return false
	}
	c.deploying = true
	return true
}

// wellAgain ends the deploy of a generation of a copy, and reports whether there
// was one.
func (p *pulse) wellAgain(copy string, generation uint64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.of(copy)
	if !c.deploying || c.generation != generation {
		return false
	}
	c.deploying = false
	return true
}

// begin notes that an act is done to a copy.
func (p *pulse) begin(copy string, act reflexes.ActID, op, chain string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.of(copy)
	c.act, c.op, c.chain, c.until = act, op, chain, 0
}

// end notes that an act on a copy has ended.
func (p *pulse) end(copy string, act reflexes.ActID, now reflexes.Boot) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.of(copy); c.act == act {
		c.until = now + actShadow
	}
}

// shadow is what a change of a copy is caused by, as far as acts go.
func (p *pulse) shadow(copy string, now reflexes.Boot) reflexes.Cause {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.of(copy).shadow(now)
}

func (c *copyPulse) shadow(now reflexes.Boot) reflexes.Cause {
	if c.act != 0 && (c.until == 0 || now < c.until) {
		return reflexes.Cause{Kind: reflexes.CauseAct, Act: c.act}
	}
	return reflexes.Cause{}
}

// chain is what rules are behind a change of a copy, for the story.
func (p *pulse) chain(copy string, now reflexes.Boot) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.copies[copy]; c != nil && c.shadow(now).Kind == reflexes.CauseAct {
		return c.chain
	}
	return ""
}

// exits is how often a copy has ended so far.
func (p *pulse) exits(copy string) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.of(copy).exits
}

// forget forgets copies that are not kept any more, save what is placed.
func (p *pulse) forget(copy string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.copies, copy)
}

// note notes an event of a copy, which was told by the name id. Of an end it
// returns what to tell the engine.
func (p *pulse) note(e copies.Event, id string, now reflexes.Boot) (exit reflexes.Exit, ended bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.of(e.Copy.String())
	exit = reflexes.Exit{Copy: e.Copy.String(), Code: -1, At: now}
	switch d := e.Data.(type) {
	case copies.Exited:
		exit.Signal, exit.Ran = d.Signal, time.Duration(d.RanMS)*time.Millisecond
		if d.Code != nil {
			exit.Code = int64(*d.Code)
		}
		if c.op == "signal" { // it may be the act's doing
			exit.Cause = c.shadow(now)
		}
		c.last = id
	case copies.Stopped:
		switch cause := c.shadow(now); {
		case cause.Kind == reflexes.CauseAct && (c.until == 0 || c.op != "restart"): // a restart has ended with its stop behind it
			exit.Cause = cause
		case c.deploying:
			exit.Cause.Kind = reflexes.CauseDeploy
		default:
			exit.Cause.Kind = reflexes.CauseRequested
		}
	case copies.Fenced:
		exit.Cause.Kind = reflexes.CauseRequested
	case copies.Unhealthy:
		c.last = id
		return exit, false
	default:
		return exit, false
	}
	c.exits++
	exit.Count = c.exits
	return exit, true
}

// cause is the id of the event that a rule about a copy is likely to speak of.
func (p *pulse) cause(copy string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.of(copy).last
}

// felt tells the engine of an event of a copy: of an end at once, for a rule may
// answer it.
func (n *nerves) felt(e copies.Event, id string) {
	exit, ended := n.pulse.note(e, id, n.bootTime())
	if !ended {
		return
	}
	if exit.Signal == "SIGKILL" && n.reads(reflexes.ExitOOM) {
		time.AfterFunc(oomDelay, func() {
			exit.OOM = n.starved(exit.Copy)
			n.offer(exit)
		})
		return
	}
	n.offer(exit)
}

// offer hands an end to the engine. That it runs or not is told by copySense,
// which sees what has come of it.
func (n *nerves) offer(exit reflexes.Exit) {
	n.set.Offer(exit.Facts(nil)[1:])
}

// starved tells whether the kernel has killed something of a copy for want of
// memory since this was last asked.
func (n *nerves) starved(copy string) bool {
	var ooms int64
	for _, f := range n.set.Known() {
		if f.Var == reflexes.OOMCount && f.Target.Name == copy {
			ooms = f.Value.AsInt()
		}
	}
	n.pulse.mu.Lock()
	defer n.pulse.mu.Unlock()
	c := n.pulse.of(copy)
	more := ooms > c.ooms
	c.ooms = ooms
	return more
}
