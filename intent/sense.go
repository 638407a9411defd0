package intent

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// Sense is a source of facts of a user's own, on every host, that reflexes with
// the scope "sense:NAME" are about: a command that says how things are, files of
// which each change is told, or events of the mesh's story. Exactly one of
// Command, Files and Events is set.
type Sense struct {
	Name string `json:"name"`
	// Command is a program by its absolute path, and its arguments; no shell. What
	// it says, in the first line that says anything, is the sense's text and, if it
	// is a number, its value.
	Command []string `json:"command,omitempty"`
	Every   Duration `json:"every,omitempty"`   // from start to start; default 10s
	Timeout Duration `json:"timeout,omitempty"` // default: every, at most 10s
	User    string   `json:"user,omitempty"`    // that it runs as; empty: one without rights
	// Files are absolute paths of files, and of directories of which every entry
	// counts. They need not exist.
	Files []string `json:"files,omitempty"`
	// Events are patterns of what is told on NATS, without the ganglion.<mesh>. before
	// them, as in app.db.*.unhealthy or reflex.backlog.*.fired.
	Events []string `json:"events,omitempty"`
}

// The bounds of a sense.
const (
	defaultSenseEvery = 10 * Second
	minSenseEvery     = Second
	maxSenseEvery     = Minute
	minSenseTimeout   = 10 * Millisecond
	maxSenseFiles     = 64
	maxSenseEvents    = 16
)

// Validate reports what is wrong with one sense; the paths are relative to it.
func (s Sense) Validate() error { return asError(s.problems()) }

func (s Sense) problems() []Problem {
	var sc scope
	s.check(sc.root())
	return sc.problems
}

func (s Sense) check(f field) {
	f.at("name").failIf(CheckName(s.Name))
	kinds := 0
	for _, list := range [][]string{s.Command, s.Files, s.Events} {
		if len(list) > 0 {
			kinds++
		}
	}
	switch {
	case kinds == 0:
		f.fail("a command, files or events are required, as in command = [\"/usr/local/bin/temperature\"]")
	case kinds > 1:
		f.fail("a sense has a command, files or events, and one of them alone; declare another")
	case len(s.Command) > 0:
		s.checkCommand(f)
	case s.Every != 0 || s.Timeout != 0 || s.User != "":
		f.fail("files and events are told as they happen: every, timeout and user belong to a command")
	case len(s.Files) > 0:
		s.checkFiles(f.at("files"))
	default:
		s.checkEvents(f.at("events"))
	}
}

// checkEvents leaves to whoever knows the story whether there are such events.
func (s Sense) checkEvents(f field) {
	if len(s.Events) > maxSenseEvents {
		f.fail("%d patterns; at most %d are allowed", len(s.Events), maxSenseEvents)
		return
	}
	for i, p := range s.Events {
		f.item(i).text(p, MaxText)
		if p == "" {
			f.item(i).fail("a pattern is required, as in app.web.*.unhealthy")
		}
	}
}

func (s Sense) checkFiles(files field) {
	if len(s.Files) > maxSenseFiles {
		files.fail("%d paths; at most %d are allowed", len(s.Files), maxSenseFiles)
		return
	}
	for i, p := range s.Files {
		files.item(i).text(p, MaxText)
		if !strings.HasPrefix(p, "/") || path.Clean(p) != p {
			files.item(i).fail("%s is not the plain absolute path of a file on the hosts", quote(p))
		}
	}
}

func (s Sense) checkCommand(f field) {
	command := f.at("command")
	if len(s.Command) > MaxArgv {
		command.fail("%d words; at most %d are allowed", len(s.Command), MaxArgv)
		return
	}
	for i, w := range s.Command {
		command.item(i).text(w, MaxText)
	}
	if !strings.HasPrefix(s.Command[0], "/") {
		command.fail("%s is not the absolute path of a program on the hosts", quote(s.Command[0]))
	}
	if s.Every != 0 && (s.Every < minSenseEvery || s.Every > maxSenseEvery) {
		f.at("every").fail("%s is out of bounds; want %s to %s", s.Every, minSenseEvery, maxSenseEvery)
	}
	if s.Timeout != 0 && (s.Timeout < minSenseTimeout || s.Timeout > maxSenseEvery) {
		f.at("timeout").fail("%s is out of bounds; want %s to %s", s.Timeout, minSenseTimeout, maxSenseEvery)
	}
	if s.User != "" && !userForm.MatchString(s.User) {
		f.at("user").fail("%s is not the name or number of a user", quote(s.User))
	}
}

// senseProblems lists what is wrong with senses, in each and between them.
func senseProblems(list []Sense) (out []Problem) {
	seen := map[string]bool{}
	for i, s := range list {
		at := "sense." + s.Name
		if CheckName(s.Name) != nil {
			at = index("senses", i)
		}
		out = append(out, prefixed(at, s.problems())...)
		if seen[s.Name] && s.Name != "" {
			out = append(out, Problem{index("senses", i) + ".name", fmt.Sprintf("%s is declared twice", quote(s.Name))})
		}
		seen[s.Name] = true
	}
	return out
}

func normalSenses(list []Sense) []Sense {
	list = slices.Clone(list)
	for i := range list {
		s := &list[i]
		if len(s.Command) > 0 {
			orElse(&s.Every, defaultSenseEvery)
			orElse(&s.Timeout, min(s.Every, 10*Second))
		}
	}
	return list
}
