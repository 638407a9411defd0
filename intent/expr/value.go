package expr

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
)

// Type is the type of a variable or a value.
type Type uint8

// The types. None is that of the zero Value: nothing is known.
const (
	None Type = iota
	BoolType
	IntType
	FloatType
	StringType
)

// String returns the type as users of the expression language know it.
func (t Type) String() string {
	switch t {
	case BoolType:
		return "bool"
	case IntType:
		return "int"
	case FloatType:
		return "double"
	case StringType:
		return "string"
	}
	return "none"
}

// Value is what a variable holds: a bool, an int, a float or a string, or
// nothing. It is flat, so that keeping and comparing values allocates nothing,
// and comparable with ==, which tells whether type and bits are the same.
type Value struct {
	text string
	bits uint64
	kind Type
}

// Bool returns the value of b.
func Bool(b bool) Value {
	if b {
		return Value{kind: BoolType, bits: 1}
	}
	return Value{kind: BoolType}
}

// Int returns the value of i.
func Int(i int64) Value { return Value{kind: IntType, bits: uint64(i)} }

// Float returns the value of f; of a NaN, which no condition can judge, nothing.
func Float(f float64) Value {
	if math.IsNaN(f) {
		return Value{}
	}
	return Value{kind: FloatType, bits: math.Float64bits(f)}
}

// String returns the value of s.
func String(s string) Value { return Value{kind: StringType, text: s} }

// Type tells what v is; None if nothing is known.
func (v Value) Type() Type { return v.kind }

// Known tells that v is anything at all.
func (v Value) Known() bool { return v.kind != None }

// AsBool returns the bool that v is, else false.
func (v Value) AsBool() bool { return v.kind == BoolType && v.bits == 1 }

// AsInt returns the int that v is, else 0.
func (v Value) AsInt() int64 {
	if v.kind != IntType {
		return 0
	}
	return int64(v.bits)
}

// AsFloat returns the number that v is, an int too, else 0.
func (v Value) AsFloat() float64 {
	switch v.kind {
	case FloatType:
		return math.Float64frombits(v.bits)
	case IntType:
		return float64(int64(v.bits))
	}
	return 0
}

// AsString returns the string that v is, else "".
func (v Value) AsString() string { return v.text }

// String prints v as it would stand in an expression; "?" if nothing is known.
func (v Value) String() string {
	switch v.kind {
	case BoolType:
		return strconv.FormatBool(v.bits == 1)
	case IntType:
		return strconv.FormatInt(int64(v.bits), 10)
	case FloatType:
		return strconv.FormatFloat(v.AsFloat(), 'g', 6, 64)
	case StringType:
		return strconv.Quote(v.text)
	}
	return "?"
}

// MarshalJSON writes v as plain JSON: true, 3, 0.5, "x" or null. Whole floats
// keep their point, so that they are read back as floats.
func (v Value) MarshalJSON() ([]byte, error) {
	switch v.kind {
	case BoolType:
		return strconv.AppendBool(nil, v.bits == 1), nil
	case IntType:
		return strconv.AppendInt(nil, int64(v.bits), 10), nil
	case FloatType:
		f := v.AsFloat()
		if math.IsInf(f, 0) {
			return []byte("null"), nil
		}
		b := strconv.AppendFloat(nil, f, 'g', -1, 64)
		for _, c := range b {
			if c == '.' || c == 'e' {
				return b, nil
			}
		}
		return append(b, '.', '0'), nil
	case StringType:
		return json.Marshal(v.text)
	}
	return []byte("null"), nil
}

// UnmarshalJSON reads what MarshalJSON writes.
func (v *Value) UnmarshalJSON(b []byte) error {
	s := string(b)
	switch s {
	case "null":
		*v = Value{}
		return nil
	case "true", "false":
		*v = Bool(s == "true")
		return nil
	}
	if s != "" && s[0] == '"' {
		var text string
		if err := json.Unmarshal(b, &text); err != nil {
			return err
		}
		*v = String(text)
		return nil
	}
	if i, err := strconv.ParseInt(s, 10, 64); err == nil {
		*v = Int(i)
		return nil
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return fmt.Errorf("read value %.40q: want true, false, a number, a string or null", s)
	}
	*v = Float(f)
	return nil
}

// Convert returns v as a value of type t, if it means the same: an int is a
// float too, and everything else is only what it is.
func (v Value) Convert(t Type) (Value, bool) {
	switch {
	case v.kind == t || v.kind == None:
		return v, true
	case v.kind == IntType && t == FloatType:
		return Float(v.AsFloat()), true
	}
	return v, false
}
