//go:build linux

package systemd

import (
	"fmt"
	"strings"

	"github.com/ganglion-mesh/ganglion/workload"
)

// command is how PID 1 is told to run argv.
//
// PID 1 expands $NAME in arguments; a doubled $ is one. But PID 1 also writes
// the command to the unit's file, in a form that it (systemd 252) reads back
// wrongly where it has a $ or a semicolon: \$ and \; stay as they are. (The
// newer ExecStartEx, which can turn expansion off, is written in a form that is
// not read back at all.) So a copy that PID 1 may start again after it has read
// its configuration anew must have neither character in its command: such a
// command, which is almost always a shell's anyway, is unwrapped by a shell.
func command(path string, argv []string, spec workload.Spec) execStart {
	switch {
	case !strings.ContainsAny(strings.Join(argv, ""), "$;"):
		return execStart{Path: path, Argv: argv}
	case spec.SelfHeal:
		return execStart{Path: "/bin/sh", Argv: wrap(path, argv, spec)}
	}
	out := make([]string, len(argv))
	for i, arg := range argv {
		out[i] = strings.ReplaceAll(arg, "$", "$$")
	}
	return execStart{Path: path, Argv: out}
}

// wrap writes a command as a shell's, of harmless characters alone:
//
//	/bin/sh -c 'eval "`printf %b "exec\0040..."`"'
//
// The shell becomes the program; the process stays the same.
func wrap(path string, argv []string, spec workload.Spec) []string {
	var script strings.Builder
	for _, name := range []string{"PWD", "OLDPWD", "SHLVL"} { // what shells add
		if _, ok := spec.Env[name]; !ok {
			script.WriteString("unset " + name + "\n")
		}
	}
	script.WriteString("exec " + quote(path))
	for _, arg := range argv[1:] {
		script.WriteString(" " + quote(arg))
	}
	var b strings.Builder
	b.WriteString("eval \"`printf %b '")
	for _, c := range []byte(script.String()) {
		if (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "\\0%03o", c)
		}
	}
	b.WriteString("'`\"")
	return []string{"/bin/sh", "-c", b.String()}
}

// quote writes an argument for a shell.
func quote(arg string) string { return "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'" }
