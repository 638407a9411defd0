package intent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
)

// Mesh collects declarations; see Main.
type Mesh struct {
	in       Intents
	apps     []string // where in the user's source each was declared
	reflexes []string
}

// App declares an app.
func (m *Mesh) App(a App) {
	m.in.Apps = append(m.in.Apps, a)
	m.apps = append(m.apps, caller())
}

// Reflex declares a reflex that is bound to no app.
func (m *Mesh) Reflex(r Reflex) {
	m.in.Reflexes = append(m.in.Reflexes, r)
	m.reflexes = append(m.reflexes, caller())
}

// Sense declares a sense that reflexes can be about.
func (m *Mesh) Sense(s Sense) { m.in.Senses = append(m.in.Senses, s) }

// Intents returns what has been declared so far, as written.
func (m *Mesh) Intents() Intents { return m.in }

func caller() string {
	_, file, line, ok := runtime.Caller(2)
	if !ok {
		return ""
	}
	return filepath.Base(file) + ":" + strconv.Itoa(line) + ": "
}

// Main is the whole of a main function in the Go form:
//
//	func main() {
//		intent.Main(func(m *intent.Mesh) {
//			m.App(intent.App{Name: "web", Run: intent.Run{Command: []string{"/usr/bin/web"}}})
//		})
//	}
//
// It prints the intents as JSON on the standard output, where `ganglion apply`
// reads them. If something is wrong with them it prints one line for each
// problem on the standard error instead and exits with status 2.
func Main(declare func(m *Mesh)) {
	if code := run(declare, os.Stdout, os.Stderr); code != 0 {
		os.Exit(code)
	}
}

func run(declare func(m *Mesh), stdout, stderr io.Writer) int {
	m := new(Mesh)
	declare(m)
	if problems := m.problems(); len(problems) > 0 {
		for _, line := range problems {
			fmt.Fprintln(stderr, line)
		}
		return 2
	}
	enc := json.NewEncoder(stdout)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(m.in); err != nil {
		fmt.Fprintln(stderr, "print intents:", err)
		return 1
	}
	return 0
}

// problems returns a line for each problem, with the source line of the
// declaration it is in.
func (m *Mesh) problems() []string {
	var lines []string
	for _, p := range m.in.problems() {
		where := ""
		switch {
		case p.app >= 0:
			where = m.apps[p.app]
		case p.reflex >= 0:
			where = m.reflexes[p.reflex]
		}
		lines = append(lines, where+p.String())
	}
	return lines
}

// ParseJSON reads the wire form: the JSON that Main prints. Unknown fields,
// anything after the value and more than MaxIntents bytes are refused. The
// result is as written: neither normalized nor validated.
func ParseJSON(data []byte) (Intents, error) {
	if len(data) > MaxIntents {
		return Intents{}, fmt.Errorf("read intents: %d bytes; at most %d are allowed", len(data), MaxIntents)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	var in Intents
	if err := dec.Decode(&in); err != nil {
		if errors.Is(err, io.EOF) {
			err = errors.New("nothing was written")
		}
		return Intents{}, fmt.Errorf("read intents: %w%s", err, position(data, err))
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return Intents{}, errors.New("read intents: there is more after the JSON value")
	}
	return in, nil
}

// position tells where in data a JSON error is.
func position(data []byte, err error) string {
	var offset int64
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		offset = syntax.Offset
	case errors.As(err, &kind):
		offset = kind.Offset
	default:
		return ""
	}
	before := data[:min(max(offset-1, 0), int64(len(data)))]
	line := bytes.Count(before, []byte("\n")) + 1
	column := len(before) - bytes.LastIndexByte(before, '\n')
	return fmt.Sprintf(" (line %d, column %d)", line, column)
}
