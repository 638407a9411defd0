package intent

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Duration is a span of time that reads and prints as "1m30s".
type Duration time.Duration

// Units for plain literals: 5 * intent.Second.
const (
	Millisecond = Duration(time.Millisecond)
	Second      = Duration(time.Second)
	Minute      = Duration(time.Minute)
	Hour        = Duration(time.Hour)
)

// Std returns d as the standard library's type.
func (d Duration) Std() time.Duration { return time.Duration(d) }

func (d Duration) String() string {
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return s
}

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%s is not a duration such as 500ms, 5s or 2m", quote(string(text)))
	}
	*d = Duration(v)
	return nil
}

// Bytes is a size that reads and prints as "256MiB".
type Bytes int64

// Units for plain literals: 256 * intent.MiB.
const (
	KiB Bytes = 1 << 10
	MiB Bytes = 1 << 20
	GiB Bytes = 1 << 30
)

var byteUnits = []struct {
	suffix string
	size   Bytes
}{
	{"TiB", 1 << 40}, {"GiB", GiB}, {"MiB", MiB}, {"KiB", KiB},
	{"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}, {"B", 1},
}

func (b Bytes) String() string {
	for _, u := range byteUnits {
		if b != 0 && b%u.size == 0 {
			return strconv.FormatInt(int64(b/u.size), 10) + u.suffix
		}
	}
	return "0B"
}

// MarshalText implements encoding.TextMarshaler.
func (b Bytes) MarshalText() ([]byte, error) { return []byte(b.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler. A bare number is in bytes.
func (b *Bytes) UnmarshalText(text []byte) error {
	s, unit := string(text), Bytes(1)
	for _, u := range byteUnits {
		if head, ok := strings.CutSuffix(s, u.suffix); ok {
			s, unit = head, u.size
			break
		}
	}
	s = strings.TrimSpace(s)
	// Whole numbers stay exact: what String prints is read back as it was.
	if n, err := strconv.ParseInt(s, 10, 64); err == nil && n >= 0 && n < (1<<62)/int64(unit) {
		*b = Bytes(n) * unit
		return nil
	}
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || !(v >= 0 && v*float64(unit) < 1<<62) { // also refuses NaN
		return fmt.Errorf("%s is not a size such as 512KiB, 256MiB or 2GB", quote(string(text)))
	}
	*b = Bytes(v * float64(unit))
	return nil
}
