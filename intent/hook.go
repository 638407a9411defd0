package intent

import (
	"fmt"
	"strconv"
	"strings"
)

// Hook is what a run action says: a command of the user's own.
type Hook struct {
	Argv    []string // the program, by its absolute path, and its arguments; no shell sees them
	User    string   // empty: one without rights
	Timeout Duration // after which it is killed, with all that it started
}

// The time that a hook may take.
const (
	defaultHookTimeout = 30 * Second
	maxHookTimeout     = 4 * Minute
)

// Hook reads a run action: the target is the program, "1", "2", … its arguments,
// user and timeout what they say.
func (a Action) Hook() (Hook, error) {
	h := Hook{Argv: []string{a.Target}, User: a.Args["user"], Timeout: defaultHookTimeout}
	if !strings.HasPrefix(a.Target, "/") {
		return h, fmt.Errorf("%s is not the absolute path of a program on the hosts", quote(a.Target))
	}
	named := []string{"user", "timeout"}
	for n := 1; ; n++ {
		word, ok := a.Args[strconv.Itoa(n)]
		if !ok {
			break
		}
		h.Argv, named = append(h.Argv, word), append(named, strconv.Itoa(n))
	}
	if err := a.known(named...); err != nil {
		return h, err
	}
	if h.User != "" && !userForm.MatchString(h.User) {
		return h, fmt.Errorf("user %s is not the name or number of a user", quote(h.User))
	}
	if s := a.Args["timeout"]; s != "" {
		if err := h.Timeout.UnmarshalText([]byte(s)); err != nil {
			return h, err
		}
		if h.Timeout < 100*Millisecond || h.Timeout > maxHookTimeout {
			return h, fmt.Errorf("timeout = %s is out of bounds; want 100ms to %s", quote(s), maxHookTimeout)
		}
	}
	return h, nil
}
