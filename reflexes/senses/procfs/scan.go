package procfs

import (
	"bytes"
	"errors"
	"fmt"
)

// errNumber is a number that is none, or that does not fit.
var errNumber = errors.New("not a number")

// cutLine splits off the first line of b, without its newline.
func cutLine(b []byte) (line, rest []byte) {
	if i := bytes.IndexByte(b, '\n'); i >= 0 {
		return b[:i], b[i+1:]
	}
	return b, nil
}

// cutWord splits off the first word of b, skipping blanks before it. It is empty
// at the end.
func cutWord(b []byte) (word, rest []byte) {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for i, c := range b {
		if c == ' ' || c == '\t' || c == '\n' {
			return b[:i], b[i:]
		}
	}
	return b, nil
}

// number reads a decimal number that fills b.
func number(b []byte) (uint64, error) {
	if len(b) == 0 || len(b) > 20 {
		return 0, errNumber
	}
	var n uint64
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, errNumber
		}
		d := uint64(c - '0')
		if n > (1<<64-1-d)/10 {
			return 0, errNumber
		}
		n = n*10 + d
	}
	return n, nil
}

// decimal reads a number with at most a few decimals, such as 0.42, that fills b.
func decimal(b []byte) (float64, error) {
	whole, frac, _ := bytes.Cut(b, []byte{'.'})
	n, err := number(whole)
	if err != nil {
		return 0, err
	}
	v := float64(n)
	for scale := 0.1; len(frac) > 0; frac, scale = frac[1:], scale/10 {
		if frac[0] < '0' || frac[0] > '9' {
			return 0, errNumber
		}
		v += float64(frac[0]-'0') * scale
	}
	return v, nil
}

// Number reads a file that holds one decimal number and perhaps a newline.
// "max", which cgroups say for no limit, is the greatest number.
func Number(b []byte) (uint64, error) {
	b = bytes.TrimRight(b, "\n")
	if string(b) == "max" {
		return 1<<64 - 1, nil
	}
	n, err := number(b)
	if err != nil {
		return 0, fmt.Errorf("parse %.40q: %w", b, err)
	}
	return n, nil
}

// Field returns the number behind key in a file of lines "key number", as
// memory.stat, memory.events, cpu.stat and vmstat are, or "key: number kB". It
// is false where the key is absent or no number follows.
func Field(b []byte, key string) (uint64, bool) {
	for len(b) > 0 {
		var line []byte
		line, b = cutLine(b)
		if len(line) <= len(key) || string(line[:len(key)]) != key {
			continue
		}
		rest := line[len(key):]
		if rest[0] == ':' {
			rest = rest[1:]
		} else if rest[0] != ' ' {
			continue
		}
		word, _ := cutWord(rest)
		n, err := number(word)
		return n, err == nil
	}
	return 0, false
}
