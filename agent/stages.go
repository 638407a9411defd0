package agent

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/agent/reflexer"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/intent"
	"github.com/ganglion-mesh/ganglion/reflexes"
)

const (
	// nextMark follows the name of a rule under which its new version is only watched,
	// beside the one that is in force here. No name has it.
	nextMark = "+next"
	// stageLook is how often it is looked what staged rules are about here, and
	// stageLooks how many times after each change of what is staged: while a first host
	// is chosen.
	stageLook  = time.Second
	stageLooks = 10
)

// staging is what a host knows of staged rules (rail 18), besides its slice. It is
// safe for concurrent use.
type staging struct {
	mu    sync.Mutex
	wrong map[reflexes.Version]string // what has gone wrong here with a version
	has   map[reflexes.Version]bool   // of those that were looked for: whether something here is what they are about
	bell  chan struct{}               // cap 1: the slice has other stages
}

func newStaging() *staging {
	return &staging{wrong: map[reflexes.Version]string{}, has: map[reflexes.Version]bool{}, bell: make(chan struct{}, 1)}
}

// notDoneError is why an act was not begun: it was held back, and proves nothing
// against its rule.
type notDoneError struct{ error }

// Unwrap returns what held it back.
func (e notDoneError) Unwrap() error { return e.error }

// variant is one rule that this host makes of a declared reflex.
type variant struct {
	name   string
	reflex intent.Reflex
	stage  reflexes.Staging
}

// variants are the rules that a declared reflex is on this host: itself, and where
// it is not in force the version that is, beside it.
func variants(d declaredReflex, stages []topology.RuleStage) []variant {
	name := api.RuleName(d.reflex.Name, d.app)
	i := slices.IndexFunc(stages, func(st topology.RuleStage) bool { return st.Rule == name })
	if i < 0 {
		return []variant{{name: name, reflex: d.reflex}}
	}
	st := stages[i]
	mine := reflexes.Staging{ID: st.Begun}
	if st.InForce {
		return []variant{{name, d.reflex, mine}}
	}
	if mine.Why = st.Why; st.Former == nil {
		return []variant{{name, d.reflex, mine}}
	}
	mine.Whole = true
	return []variant{{name: name, reflex: *st.Former}, {name + nextMark, d.reflex, mine}}
}

// plainRule is the name of a rule without the mark of one that is only watched.
func plainRule(name string) string { return strings.TrimSuffix(name, nextMark) }

// plainChain is a chain of rules by their plain names.
func plainChain(chain string) string { return strings.ReplaceAll(chain, nextMark, "") }

// stageOf is how far a rule is, as this host was told last.
func (m *member) stageOf(rule string) (topology.RuleStage, bool) {
	for _, st := range m.slices.slice().Stages {
		if st.Rule == plainRule(rule) {
			return st, true
		}
	}
	return topology.RuleStage{}, false
}

// notInForce says why a version of a rule is not to do here what reaches beyond this
// host's copies, or "". It goes by what is known now, not when the rule fired.
func (n *nerves) notInForce(v reflexes.Version) string {
	st, staged := n.stageOf(v.Rule)
	switch {
	case !staged:
		return ""
	case v.Stage == 0 && st.Former != nil && !st.InForce:
		return "" // it is the version before
	case v.Stage != st.Begun:
		return "another version of it is in force here"
	case !st.InForce:
		return st.Why
	}
	n.staging.mu.Lock()
	defer n.staging.mu.Unlock()
	if wrong := n.staging.wrong[v]; wrong != "" {
		return "trouble here: " + wrong
	}
	return ""
}

// judgeAct notes an act of a staged rule that has failed.
func (n *nerves) judgeAct(ctx context.Context, o reflexer.Order, err error) {
	if err != nil && ctx.Err() == nil && !errors.As(err, new(notDoneError)) {
		n.blame(reflexes.Version{Rule: o.Rule, Stage: o.Stage}, "its act failed: "+err.Error())
	}
}

// judgeOutcome notes what speaks against a staged rule.
func (n *nerves) judgeOutcome(t reflexer.Told) {
	v := reflexes.Version{Rule: t.Rule, Stage: t.Stage}
	switch {
	case t.Kind == reflexes.Off:
		n.blame(v, t.Reason.String())
	case t.Kind == reflexes.Finished && t.Lost && !t.OK:
		n.blame(v, t.Action+": "+t.Detail)
	case (t.Kind == reflexes.Exhausted || t.Kind == reflexes.Suppressed) && (t.Reason == reflexes.ReasonLimit || t.Reason == reflexes.ReasonCorrelated):
		n.blame(v, t.Reason.String())
	}
}

// blame notes trouble with a version of a rule that is on trial here: this host holds
// it back at once, and the next report tells the leader.
func (n *nerves) blame(v reflexes.Version, why string) {
	if st, staged := n.stageOf(v.Rule); v.Stage == 0 || !staged || !st.InForce || st.Begun != v.Stage {
		return
	}
	n.staging.mu.Lock()
	defer n.staging.mu.Unlock()
	if n.staging.wrong[v] == "" {
		n.staging.wrong[v] = shorten(why)
	}
}

// watchStages keeps what is known of staged rules until ctx ends.
func (n *nerves) watchStages(ctx context.Context) {
	for looks := stageLooks; ; looks-- {
		wake := time.Hour
		if list := n.slices.slice().Stages; len(list) > 0 || looks == stageLooks {
			n.findTargets(ctx, list)
			wake = stageLook
		}
		if looks <= 0 {
			wake = time.Hour
		}
		timer := time.NewTimer(wake)
		select {
		case <-ctx.Done():
		case <-n.staging.bell:
			looks = stageLooks + 1
		case <-timer.C:
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

// findTargets finds out of which staged rules something is here, and forgets those
// that are staged no more.
func (n *nerves) findTargets(ctx context.Context, stages []topology.RuleStage) {
	asked, cancel := context.WithTimeout(ctx, enginePatience)
	defer cancel()
	has := map[reflexes.Version]bool{}
	for _, st := range stages {
		v := reflexes.Version{Rule: st.Rule, Stage: st.Begun}
		for _, name := range []string{st.Rule, st.Rule + nextMark} {
			list, known := n.reflexer.Explain(asked, name)
			if !known {
				return
			}
			if !n.ruledBy(v) {
				break // the engine has not got it yet, and knows nothing of it
			}
			has[v] = has[v] || slices.ContainsFunc(list, func(x reflexes.Explanation) bool { return x.State != "disabled" })
		}
	}
	n.staging.mu.Lock()
	defer n.staging.mu.Unlock()
	n.staging.has = has
	for v := range n.staging.wrong {
		if !slices.ContainsFunc(stages, func(st topology.RuleStage) bool { return st.Rule == v.Rule && st.Begun == v.Stage }) {
			delete(n.staging.wrong, v)
		}
	}
}

// ruledBy reports whether the engine has a version of a rule, watched or in force.
func (n *nerves) ruledBy(v reflexes.Version) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.ContainsFunc(n.ruling, func(r *reflexes.Rule) bool { return plainRule(r.Name) == v.Rule && r.Staging().ID == v.Stage })
}

// stageReport is what the leader is told of staged rules.
func (n *nerves) stageReport() (out []topology.StageObs) {
	n.staging.mu.Lock()
	defer n.staging.mu.Unlock()
	for _, st := range n.slices.slice().Stages {
		v := reflexes.Version{Rule: st.Rule, Stage: st.Begun}
		has, looked := n.staging.has[v]
		if wrong := n.staging.wrong[v]; looked || wrong != "" {
			out = append(out, topology.StageObs{Rule: st.Rule, Begun: st.Begun, Has: has, Trouble: wrong})
		}
	}
	return out
}

// wish tells other hosts which rules want to act here. Two versions of a rule are one
// cause.
func (n *nerves) wish(rules []string) {
	for i := range rules {
		rules[i] = plainRule(rules[i])
	}
	n.pool.Wish(slices.Compact(slices.Sorted(slices.Values(rules))))
}
