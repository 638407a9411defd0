package events

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
)

const (
	// SpecVersion is the version of CloudEvents that events follow.
	SpecVersion = "1.0"
	// TypePrefix stands before the area in an event's type attribute.
	TypePrefix = "dev.ganglion."
	// ContentType is the media type of a structured-mode message on NATS.
	ContentType = "application/cloudevents+json"
	// MaxData is the largest data of one event in bytes of JSON. Larger data
	// is replaced by an [Omitted], so that the record itself is never lost.
	MaxData = 24 << 10

	sourcePrefix = "/hosts/"
	timeLayout   = "2006-01-02T15:04:05.000000000Z07:00"
)

// Event is one CloudEvents 1.0 event in structured JSON form. Identity is ID: what
// was told twice, by two leaders, has it twice. Source and Seq together are unique
// and show gaps.
type Event struct {
	SpecVersion     string    `json:"specversion"`
	ID              string    `json:"id"`      // ULID; those of one host sort as their Seq, those of DecisionID as the decisions
	Source          string    `json:"source"`  // /hosts/<host>: who recorded it
	Type            string    `json:"type"`    // dev.ganglion.<area>.<what>
	Subject         string    `json:"subject"` // <area>/<name>…, e.g. app/web/2
	Time            time.Time `json:"time"`    // the recording host's wall clock, for people
	DataContentType string    `json:"datacontenttype"`

	CauseID  string `json:"causeid"`           // ID of the event that led to this one; empty for a root
	Revision uint64 `json:"revision"`          // revision of the topology the host knew
	Seq      uint64 `json:"seq"`               // counts this host's events from 1, without gaps
	Dropped  uint64 `json:"dropped,omitempty"` // events just before this one that could not be recorded
	Chain    string `json:"chain,omitempty"`   // rules of the reflexes whose acts led to this event, in their order, as in evict-hot,web/shed; absent if none is known

	Data json.RawMessage `json:"data"`
}

// Omitted stands in for data above MaxData.
type Omitted struct {
	OmittedBytes int `json:"omitted_bytes"` // size of the data that was left out
}

// Parse reads one event from its structured JSON form.
func Parse(b []byte) (Event, error) {
	var e Event
	if err := json.Unmarshal(b, &e); err != nil {
		return Event{}, fmt.Errorf("parse event: %w", err)
	}
	if e.SpecVersion != SpecVersion {
		return Event{}, fmt.Errorf("parse event: specversion %q is not %s", e.SpecVersion, SpecVersion)
	}
	return e, nil
}

// Host is the name of the host that recorded the event, from its source.
func (e Event) Host() string { return strings.TrimPrefix(e.Source, sourcePrefix) }

// Kind is the event's type without prefix, e.g. "app.started".
func (e Event) Kind() string { return strings.TrimPrefix(e.Type, TypePrefix) }

// Payload decodes the data into the struct registered for the event's type.
func (e Event) Payload() (Payload, error) {
	for _, k := range Catalogue() {
		if k.Type != e.Kind() {
			continue
		}
		p := k.New()
		if err := json.Unmarshal(e.Data, p); err != nil {
			return nil, fmt.Errorf("decode data of event %s: %w", e.ID, err)
		}
		return p, nil
	}
	return nil, fmt.Errorf("decode data of event %s: type %q is not known to this version", e.ID, e.Type)
}

// appendJSON encodes the event. It is written out by hand because it stands
// between an exit and its restart; every string in it has been checked to need
// no escaping, and Data is already JSON.
func (e *Event) appendJSON(b []byte) []byte {
	b = append(b, `{"specversion":"`+SpecVersion+`","id":"`...)
	b = append(b, e.ID...)
	b = append(b, `","source":"`...)
	b = append(b, e.Source...)
	b = append(b, `","type":"`...)
	b = append(b, e.Type...)
	b = append(b, `","subject":"`...)
	b = append(b, e.Subject...)
	b = append(b, `","time":"`...)
	b = e.Time.AppendFormat(b, timeLayout)
	b = append(b, `","datacontenttype":"application/json","causeid":"`...)
	b = append(b, e.CauseID...)
	b = append(b, `","revision":`...)
	b = strconv.AppendUint(b, e.Revision, 10)
	b = append(b, `,"seq":`...)
	b = strconv.AppendUint(b, e.Seq, 10)
	if e.Dropped > 0 {
		b = append(b, `,"dropped":`...)
		b = strconv.AppendUint(b, e.Dropped, 10)
	}
	if e.Chain != "" {
		b = append(b, `,"chain":"`...)
		b = append(b, e.Chain...)
		b = append(b, '"')
	}
	b = append(b, `,"data":`...)
	b = append(b, e.Data...)
	return append(b, '}')
}
