package intent

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

var checkTypes = []string{
	string(CheckHTTP), string(CheckTCP), string(CheckExec), string(CheckProcess), string(CheckSmoke),
}

func (c Check) check(f field, a App) {
	if !slices.Contains(checkTypes, string(c.Type)) {
		f.at("type").fail("%s is not a check: %s", quote(string(c.Type)), oneOf(string(c.Type), checkTypes))
		return
	}
	c.checkSubject(f, a)
	f.at("timeout").span(c.Timeout)
	if c.Type == CheckSmoke {
		c.checkSmoke(f)
		return
	}
	f.at("every").span(c.Every)
	f.at("grace").span(c.Grace)
	f.at("failures").count(c.Failures, 1, 1000)
}

// checkSubject judges what the check looks at: each type has its own fields,
// and takes no other's.
func (c Check) checkSubject(f field, a App) {
	onPort := c.Type == CheckHTTP || c.Type == CheckTCP
	runs := c.Type == CheckExec || c.Type == CheckSmoke
	if c.Type == CheckHTTP {
		p := f.at("path")
		p.filled(c.Path, a.Ports)
		if !strings.HasPrefix(c.Path, "/") || strings.ContainsFunc(c.Path, notInPath) || len(c.Path) > MaxText {
			p.fail("%s is not the path of a request; it begins with / and has no space", quote(c.Path))
		}
	} else if c.Path != "" {
		f.at("path").fail("a path is for http checks, not %s", c.Type)
	}
	port := f.at("port")
	_, known := a.Ports[c.Port]
	switch {
	case !onPort && c.Port != "":
		port.fail("a port is for http and tcp checks, not %s", c.Type)
	case !onPort:
	case len(a.Ports) == 0:
		port.fail("the check needs a port, but the app declares none; add port \"http\" {}")
	case c.Port == "":
		port.fail("the app has %d ports; name the one to check", len(a.Ports))
	case !known:
		port.fail("%s is not a port of the app: %s", quote(c.Port), oneOf(c.Port, sortedKeys(a.Ports)))
	}
	if runs {
		checkCommand(f.at("command"), c.Command, a.Run.Artifact != "", a.Ports)
	} else if len(c.Command) > 0 {
		f.at("command").fail("a command is for exec and smoke checks, not %s", c.Type)
	}
}

func notInPath(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }

// checkSmoke refuses what a check that runs once has no use for.
func (c Check) checkSmoke(f field) {
	unused := func(is bool, name string) {
		if is {
			f.at(name).fail("a smoke check runs once after a rollout and has no %s", name)
		}
	}
	unused(c.Every != 0, "every")
	unused(c.Grace != 0, "grace")
	unused(c.Failures != 0, "failures")
	unused(c.Live != nil, "live")
}

// text judges a string of one line.
func (f field) text(s string, most int) {
	switch {
	case len(s) > most:
		f.fail("%d bytes; at most %d are allowed", len(s), most)
	case !utf8.ValidString(s):
		f.fail("%s is not UTF-8", quote(s))
	case strings.ContainsFunc(s, unicode.IsControl):
		f.fail("%s has a control character in it", quote(s))
	case strings.Contains(s, "${"):
		f.fail("%s: placeholders stand in commands, env and checks only", quote(s))
	}
}

// filled judges a string that may hold placeholders. Only a NUL, which no
// program could receive, is refused in it.
func (f field) filled(s string, ports map[string]Port) {
	switch {
	case len(s) > MaxWord:
		f.fail("%d bytes; at most %d are allowed", len(s), MaxWord)
		return
	case !utf8.ValidString(s) || strings.ContainsRune(s, 0):
		f.fail("%s is not UTF-8 without NUL", quote(s))
		return
	}
	names, err := Placeholders(s)
	f.failIf(err)
	for _, name := range names {
		port, isPort := strings.CutPrefix(name, PortPlaceholder)
		if _, known := ports[port]; isPort && !known {
			f.fail("${%s}: the app declares no such port; add port %q {}", name, port)
		}
	}
}

func (f field) expression(s string) {
	switch {
	case strings.TrimSpace(s) == "":
		f.fail("an expression is required")
	case len(s) > MaxExpression:
		f.fail("%d bytes; an expression has at most %d", len(s), MaxExpression)
	case !utf8.ValidString(s):
		f.fail("%s is not UTF-8", quote(s))
	}
}

func (f field) word(s string, allowed ...string) {
	if !slices.Contains(allowed, s) {
		f.fail("%s is not known: %s", quote(s), oneOf(s, allowed))
	}
}

func (f field) span(d Duration) {
	if d < 0 || d > MaxSpan {
		f.fail("%v is not between 0 and %v", d, MaxSpan)
	}
}

func (f field) count(n, least, most int) {
	if n < least || n > most {
		f.fail("%d is not between %d and %d", n, least, most)
	}
}
