package topology

import (
	"errors"
	"fmt"
	"reflect"

	"github.com/fxamacker/cbor/v2"
)

// MaxCommand is the largest encoded command, in bytes; MaxRestore that of a
// Restore.
const MaxCommand = 4 << 20

// The ways in which bytes fail to be a command.
var (
	errNoChange   = errors.New("command sets no field; set exactly one")
	errTwoChanges = errors.New("command sets more than one field; set exactly one")
)

// UnknownCommandError means that the log holds a command that this release does
// not understand and must not skip: to go on would be to diverge.
type UnknownCommandError struct {
	Kind    string
	Version uint
}

func (e *UnknownCommandError) Error() string {
	return fmt.Sprintf("decode command %q (version %d): this release does not know it; upgrade the agent", e.Kind, e.Version)
}

// kindRestore is the wire name of Command.Restore.
const kindRestore = "restore"

// envelopeVersion is raised when the meaning of an existing kind changes.
const envelopeVersion = 1

// envelope is a log entry. Ignorable lets an older release skip a kind it does
// not know because the kind does not touch the state.
type envelope struct {
	Version   uint            `json:"v"`
	Ignorable bool            `json:"i,omitempty"`
	Kind      string          `json:"k"`
	RequestID string          `json:"r,omitempty"`
	By        string          `json:"w,omitempty"`
	At        int64           `json:"t,omitempty"`
	Body      cbor.RawMessage `json:"b"`
}

// codec is the one encoding of commands and snapshots: deterministic out, strict
// in. A field that this release does not know is an error, because a voter that
// dropped it would diverge from one that did not.
type codec struct {
	enc cbor.EncMode
	dec cbor.DecMode
}

// commandCodec is constant.
var commandCodec = newCodec(1 << 16)

func newCodec(maxElements int) codec {
	enc, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		panic(err) // constant options
	}
	dec, err := cbor.DecOptions{
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		IndefLength:       cbor.IndefLengthForbidden,
		TagsMd:            cbor.TagsForbidden,
		MaxNestedLevels:   32,
		MaxArrayElements:  maxElements,
		MaxMapPairs:       maxElements,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
	}.DecMode()
	if err != nil {
		panic(err) // constant options
	}
	return codec{enc, dec}
}

// EncodeCommand returns the bytes of a log entry. Bytes that DecodeCommand would
// refuse are never returned: such an entry would halt every voter for good.
func EncodeCommand(c Command) ([]byte, error) {
	kind, body, err := c.change()
	if err != nil {
		return nil, fmt.Errorf("encode command: %w", err)
	}
	raw, err := commandCodec.enc.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("encode command %q: %w", kind, err)
	}
	data, err := commandCodec.enc.Marshal(envelope{
		Version: envelopeVersion, Ignorable: c.Heartbeat != nil,
		Kind: kind, RequestID: c.RequestID, By: c.By, At: c.At, Body: raw,
	})
	if err != nil {
		return nil, fmt.Errorf("encode command %q: %w", kind, err)
	}
	if _, err := DecodeCommand(data); err != nil {
		return nil, fmt.Errorf("encode command %q: it would not decode: %w", kind, err)
	}
	return data, nil
}

// DecodeCommand reads a log entry. An *UnknownCommandError must halt the reader;
// an unknown kind that may be ignored comes back as a Heartbeat, which changes
// nothing.
func DecodeCommand(data []byte) (Command, error) {
	if len(data) > MaxRestore {
		return Command{}, fmt.Errorf("decode command: %d bytes, the limit is %d", len(data), MaxRestore)
	}
	var e envelope
	if err := commandCodec.dec.Unmarshal(data, &e); err != nil {
		return Command{}, fmt.Errorf("decode command: %w", err)
	}
	if len(data) > MaxCommand && e.Kind != kindRestore {
		return Command{}, fmt.Errorf("decode command %q: %d bytes, the limit is %d", e.Kind, len(data), MaxCommand)
	}
	var c Command
	field, known := c.field(e.Kind)
	if !known || e.Version > envelopeVersion {
		if e.Ignorable {
			return Command{Heartbeat: &Heartbeat{}, RequestID: e.RequestID}, nil
		}
		return Command{}, &UnknownCommandError{Kind: e.Kind, Version: e.Version}
	}
	body := reflect.New(field.Type().Elem())
	if err := commandCodec.dec.Unmarshal(e.Body, body.Interface()); err != nil {
		return Command{}, fmt.Errorf("decode command %q: %w", e.Kind, err)
	}
	field.Set(body)
	c.RequestID, c.By, c.At = e.RequestID, e.By, e.At
	return c, nil
}

// change returns the one field of c that is set, with its wire name.
func (c Command) change() (kind string, body any, err error) {
	v := reflect.ValueOf(c)
	for i := range v.NumField() {
		f := v.Field(i)
		if f.Kind() != reflect.Pointer || f.IsNil() {
			continue
		}
		if body != nil {
			return "", nil, errTwoChanges
		}
		kind, body = wireName(v.Type().Field(i)), f.Interface()
	}
	if body == nil {
		return "", nil, errNoChange
	}
	return kind, body, nil
}

// field returns the settable field of c for a wire name.
func (c *Command) field(kind string) (reflect.Value, bool) {
	v := reflect.ValueOf(c).Elem()
	for i := range v.NumField() {
		if f := v.Field(i); f.Kind() == reflect.Pointer && wireName(v.Type().Field(i)) == kind {
			return f, true
		}
	}
	return reflect.Value{}, false
}

func wireName(f reflect.StructField) string {
	tag := f.Tag.Get("json")
	for i := range tag {
		if tag[i] == ',' {
			return tag[:i]
		}
	}
	return tag
}
