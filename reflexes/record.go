package reflexes

import "strings"

// RecordKind is what a record of the journal says.
type RecordKind string

// The kinds of record.
const (
	RecordIntent RecordKind = "intent" // an act is about to begin; all it costs is spent
	RecordResult RecordKind = "result" // it has ended
)

// Record is one line of the journal: every automatic act has exactly one intent
// and, unless the agent died in it, one result. The owner writes an intent
// before the act, and on to the disk before it where Durable is set; what is in
// the journal is never done again.
type Record struct {
	Kind    RecordKind `json:"kind"`
	Act     ActID      `json:"act"`
	At      Boot       `json:"at"` // on the boot clock of Boot
	Boot    string     `json:"boot,omitempty"`
	Rule    string     `json:"rule,omitempty"`
	Hash    string     `json:"hash,omitempty"`
	Target  Target     `json:"target,omitzero"` // what the rule is about
	On      Target     `json:"on,omitzero"`     // what is acted on
	Class   Class      `json:"class,omitempty"`
	Action  string     `json:"action,omitempty"`
	Rung    int        `json:"rung,omitempty"`
	Chain   string     `json:"chain,omitempty"` // rules whose acts led to it, see Cause
	Loan    uint64     `json:"loan,omitempty"`  // of class B: the loan that its token is of
	Durable bool       `json:"durable,omitempty"`
	Revives bool       `json:"revives,omitempty"` // it does not count against the host's limit
	Leased  bool       `json:"leased,omitempty"`  // nor against the target's back-off
	OK      bool       `json:"ok,omitempty"`      // of a result
	Detail  string     `json:"detail,omitempty"`
}

// chainSep stands between the rules of a chain.
const chainSep = ","

// depth is how many rules a chain has.
func depth(chain string) int {
	if chain == "" {
		return 0
	}
	return 1 + strings.Count(chain, chainSep)
}

// Through is the chain that goes on from the act: see Cause.
func (r *Record) Through() string { return through(r.Chain, r.Rule) }

// through is the chain that goes on from an act of a rule to which another led.
func through(chain, rule string) string {
	if chain == "" {
		return rule
	}
	return chain + chainSep + rule
}

// note keeps a record for Explain and for the owner's journal.
func (e *Engine) note(r Record) {
	e.records = append(e.records, r)
	e.keep(r)
}

func (e *Engine) keep(r Record) {
	if len(e.history) < maxHistory {
		e.history = append(e.history, r)
		e.newest = len(e.history) - 1
		return
	}
	e.newest = (e.newest + 1) % maxHistory
	e.history[e.newest] = r
}

// TakeRecords returns the records that were made since it was called last, in
// their order. Permit's own is among them.
func (e *Engine) TakeRecords() []Record {
	e.taken, e.records = e.records, e.taken[:0]
	return e.taken
}

// intent finds the intent of an act, if it is remembered.
func (e *Engine) intent(act ActID) *Record {
	for i := range e.history {
		r := &e.history[(e.newest-i+2*len(e.history))%len(e.history)]
		if r.Act == act && r.Kind == RecordIntent {
			return r
		}
	}
	return nil
}
