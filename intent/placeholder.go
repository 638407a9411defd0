package intent

import (
	"fmt"
	"strings"
)

// The placeholders without a parameter; besides them there is PortPlaceholder
// followed by the name of a port.
const (
	PlaceholderCopy     = "copy.n"
	PlaceholderHostName = "host.name"
	PlaceholderHostAddr = "host.addr"
	PortPlaceholder     = "port."
)

// Placeholders returns the names between ${ and } in s, in order: "port.http",
// "copy.n", "host.name" or "host.addr". Anything else after ${ is an error.
func Placeholders(s string) ([]string, error) {
	var names []string
	_, err := Expand(s, func(name string) (string, error) {
		names = append(names, name)
		return "", nil
	})
	return names, err
}

// Expand replaces each placeholder in s by what value returns for its name.
// What is put in is not expanded again.
func Expand(s string, value func(name string) (string, error)) (string, error) {
	var out strings.Builder
	for {
		head, rest, found := strings.Cut(s, "${")
		out.WriteString(head)
		if !found {
			return out.String(), nil
		}
		name, tail, closed := strings.Cut(rest, "}")
		if !closed {
			return "", fmt.Errorf("the placeholder %s has no closing }", quote("${"+rest))
		}
		if err := CheckPlaceholder(name); err != nil {
			return "", err
		}
		v, err := value(name)
		if err != nil {
			return "", fmt.Errorf("fill ${%s}: %w", name, err)
		}
		out.WriteString(v)
		s = tail
	}
}

// CheckPlaceholder reports why name cannot stand between ${ and }.
func CheckPlaceholder(name string) error {
	switch name {
	case PlaceholderCopy, PlaceholderHostName, PlaceholderHostAddr:
		return nil
	}
	if port, ok := strings.CutPrefix(name, PortPlaceholder); ok && CheckName(port) == nil {
		return nil
	}
	return fmt.Errorf("unknown placeholder %s: there are ${port.NAME}, ${copy.n}, ${host.name} and ${host.addr}; a shell variable is written $NAME",
		quote("${"+name+"}"))
}

// PortEnv is the environment variable that carries the port of that name.
func PortEnv(port string) string {
	return "PORT_" + strings.ToUpper(strings.ReplaceAll(port, "-", "_"))
}
