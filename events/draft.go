package events

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/oklog/ulid/v2"
)

// Payload is the data of one event: one of the structs of this package listed
// by [Catalogue]. EventType is its type without prefix, e.g. "app.started".
type Payload interface {
	EventType() string
}

// Draft is an event before the recorder has given it an id, a time and a seq.
type Draft struct {
	Type     string // e.g. "app.started"; may be left empty, Data knows it
	Subject  string // e.g. "app/web/2"; see HostSubject and its siblings
	CauseID  string // ID of the event that led to this one; empty for a root
	Revision uint64 // revision of the topology the caller acted on
	Chain    string // see Event
	Data     any    // the Payload of Type, by value or pointer
	ID       string // empty: the recorder makes one; else one of DecisionID
}

// New is the draft of a root event. Use With to add its cause and revision.
func New(subject string, data Payload) Draft {
	return Draft{Type: data.EventType(), Subject: subject, Data: data}
}

// With returns the draft with a cause (an event's ID, may be empty) and the
// revision of the topology it belongs to.
func (d Draft) With(causeID string, revision uint64) Draft {
	d.CauseID, d.Revision = causeID, revision
	return d
}

// Along returns the draft with the rules whose acts led to the event, see
// Event.Chain; empty for none.
func (d Draft) Along(chain string) Draft {
	d.Chain = chain
	return d
}

// maxChain bounds the rules of a chain. Reflexes act on what at most two acts
// stand before, so three is what there can be.
const maxChain = 8

// CheckChain tells what is wrong with a chain of rules: names, each perhaps after
// that of its app and a slash, with commas between.
func CheckChain(chain string) error {
	if chain == "" {
		return nil
	}
	rules := strings.Split(chain, ",")
	if len(rules) > maxChain {
		return fmt.Errorf("a chain of %d rules: want at most %d", len(rules), maxChain)
	}
	for _, rule := range rules {
		app, name, inApp := strings.Cut(rule, "/")
		if !isName(app) || inApp && !isName(name) {
			return fmt.Errorf("chain %.80q: %.80q is not the name of a rule", chain, rule)
		}
	}
	return nil
}

// HostSubject is the subject of host.* events.
func HostSubject(host string) string { return "host/" + host }

// AppSubject is the subject of app.* events: one copy, by app and number.
func AppSubject(app, n string) string { return "app/" + app + "/" + n }

// RolloutSubject is the subject of rollout.* events.
func RolloutSubject(app string) string { return "rollout/" + app }

// ReflexSubject is the subject of reflex.* events: a rule on a host.
func ReflexSubject(rule, host string) string { return "reflex/" + rule + "/" + host }

// LeaderSubject is the subject of leader.* events.
func LeaderSubject(host string) string { return "leader/" + host }

// IntentSubject is the subject of intent.* events.
func IntentSubject(name string) string { return "intent/" + name }

// MeshSubject is the subject of mesh.* events: one setting.
func MeshSubject(setting string) string { return "mesh/" + setting }

// FreezeSubject is the subject of freeze.* events.
func FreezeSubject(host string) string { return "freeze/" + host }

// checked validates a draft against the catalogue and encodes its data. kinds
// maps a type to its kind.
func (d Draft) checked(kinds map[string]Kind) (Draft, json.RawMessage, error) {
	p, ok := d.Data.(Payload)
	if !ok {
		return d, nil, fmt.Errorf("data is %T, not an event struct of this package", d.Data)
	}
	if d.Type == "" {
		d.Type = p.EventType()
	}
	k, known := kinds[d.Type]
	switch {
	case !known:
		return d, nil, fmt.Errorf("type %q is not in the catalogue", d.Type)
	case p.EventType() != d.Type:
		return d, nil, fmt.Errorf("data %T belongs to type %q", d.Data, p.EventType())
	case !k.takes(d.Subject):
		return d, nil, fmt.Errorf("subject %q is not of the form %q", d.Subject, k.Subject)
	}
	if d.CauseID != "" {
		if _, err := ulid.ParseStrict(d.CauseID); err != nil {
			return d, nil, fmt.Errorf("cause %q is not an event id: %w", d.CauseID, err)
		}
	}
	if err := CheckChain(d.Chain); err != nil {
		return d, nil, err
	}
	if d.ID != "" {
		if _, err := ulid.ParseStrict(d.ID); err != nil {
			return d, nil, fmt.Errorf("id %q is not an event id: %w", d.ID, err)
		}
	}
	data, err := json.Marshal(d.Data)
	if err != nil {
		return d, nil, fmt.Errorf("encode data: %w", err)
	}
	if len(data) > MaxData {
		if data, err = json.Marshal(Omitted{OmittedBytes: len(data)}); err != nil {
			return d, nil, fmt.Errorf("encode data: %w", err)
		}
	}
	return d, data, nil
}
