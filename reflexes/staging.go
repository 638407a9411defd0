package reflexes

import "slices"

// Staging is how far a rule that is new, or was changed, is in force on this host
// (rail 18). The zero value is that of a rule that is not staged.
type Staging struct {
	// ID tells the version that is staged from others; 0: none is.
	ID uint64
	// Why the rule is not in force on this host yet, or not any more; empty: it is.
	// Of such a rule what reaches beyond the host's copies is told, and not done.
	Why string
	// Whole says that nothing of it is done, of whatever class: another version is in
	// force in its stead.
	Whole bool
}

// Version names a staged version of a rule.
type Version struct {
	Rule  string
	Stage uint64 // Staging.ID
}

// Staged returns the rule as it is in a stage.
func (r *Rule) Staged(s Staging) *Rule {
	next := *r
	next.stage = s
	return &next
}

// Named returns the rule under another name.
func (r *Rule) Named(name string) *Rule {
	next := *r
	next.Name = name
	return &next
}

// Staging returns the stage that the rule is in.
func (r *Rule) Staging() Staging { return r.stage }

// restage takes over the stage of a rule that is as it was. What it would have done
// is no act: where it comes into force it begins with all that it may spend.
func (e *Engine) restage(now Boot, s *ruleState, next Staging) {
	began := s.stage.Why != "" && next.Why == ""
	s.stage = next
	if !began {
		return
	}
	s.spent = spends{}
	for _, in := range e.instances {
		if in.state0 == s && in.state != StateActing {
			e.beginAnew(now, in)
		}
	}
}

// beginAnew lets an instance begin anew.
func (e *Engine) beginAnew(now Boot, in *instance) {
	in.release()
	in.enter(now, StateInactive)
	in.held, in.tries, in.level, in.edges, in.refused, in.acted = 0, 0, 0, 0, ReasonNone, unwell
	e.dirty(in)
}

// staged tells why what an instance would do now is only to be told; empty: it is
// to be done, as far as its stage is concerned.
func (in *instance) staged() string {
	s := in.state0.stage
	if s.Why != "" && (s.Whole || in.rung().op.class == ClassB) {
		return s.Why
	}
	return ""
}

// dry tells that nothing is done, only told.
func (in *instance) dry() bool { return in.rule.Observe || in.staged() != "" }

// stageOf is the stage of the rule of a name.
func (e *Engine) stageOf(rule string) uint64 {
	for _, s := range e.rules {
		if s.stage.ID != 0 && s.rule.Name == rule {
			return s.stage.ID
		}
	}
	return 0
}

// StageOf returns the stage of the rule that made a record, 0 if that is another
// version, or not staged.
func (e *Engine) StageOf(r Record) uint64 {
	i := slices.IndexFunc(e.rules, func(s *ruleState) bool { return s.rule.Name == r.Rule && s.rule.Hash == r.Hash })
	if i < 0 {
		return 0
	}
	return e.rules[i].stage.ID
}

// Lacking returns the rules for which, since it was asked last, an act was refused
// for want of a token or of a leader's permit alone.
func (e *Engine) Lacking() []Version {
	out := e.lacking
	e.lacking = nil
	return out
}

// lacks notes that nothing but what a leader gives is missing for an act.
func (e *Engine) lacks(in *instance) {
	e.short = true
	if v := (Version{in.rule.Name, in.state0.stage.ID}); !slices.Contains(e.lacking, v) {
		e.lacking = append(e.lacking, v)
	}
}
