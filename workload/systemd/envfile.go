//go:build linux

package systemd

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// encodeEnv writes an environment as a file for EnvironmentFile=. The
// environment goes to PID 1 by a file that only root reads, because a unit's
// Environment= can be read by everybody on the host.
func encodeEnv(env []string) ([]byte, error) {
	var b strings.Builder
	for _, kv := range env {
		k, v, _ := strings.Cut(kv, "=")
		if !validEnvName(k) {
			return nil, fmt.Errorf("environment variable %q: systemd takes letters, digits and underscores only", k)
		}
		if !validEnvValue(v) {
			return nil, fmt.Errorf("environment variable %s: its value is not plain text, which systemd does not pass on", k)
		}
		b.WriteString(k)
		b.WriteString(`="`)
		for _, c := range []byte(v) {
			if strings.IndexByte("\"\\`$", c) >= 0 {
				b.WriteByte('\\')
			}
			b.WriteByte(c)
		}
		b.WriteString("\"\n")
	}
	return []byte(b.String()), nil
}

func validEnvName(k string) bool {
	for i, c := range []byte(k) {
		letter := (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return k != ""
}

// validEnvValue: what PID 1 would silently drop must not be accepted.
func validEnvValue(v string) bool {
	for _, c := range []byte(v) {
		if (c < ' ' && c != '\t' && c != '\n') || c == 0x7f {
			return false
		}
	}
	return utf8.ValidString(v)
}

// addedByPID1 are the variables that PID 1 gives services unasked. A copy gets
// what the reference documents and nothing else.
var addedByPID1 = []string{
	"HOME", "LOGNAME", "USER", "SHELL", "LANG", "LANGUAGE", "LC_ALL", "TERM",
	"INVOCATION_ID", "JOURNAL_STREAM", "SYSTEMD_EXEC_PID", "SYSTEMD_LOG_LEVEL", "NOTIFY_SOCKET", "MAINPID", "MANAGERPID",
	"STATE_DIRECTORY", "RUNTIME_DIRECTORY", "CACHE_DIRECTORY", "LOGS_DIRECTORY", "CONFIGURATION_DIRECTORY", "CREDENTIALS_DIRECTORY",
	"LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_USEC", "WATCHDOG_PID",
	"MEMORY_PRESSURE_WATCH", "MEMORY_PRESSURE_WRITE", "FDSTORE", "SERVICE_RESULT", "EXIT_CODE", "EXIT_STATUS",
}

// unwanted lists what to take out of the environment again: what PID 1 adds and
// what its own environment (systemctl set-environment) has, but for what the
// copy shall have.
func unwanted(env, manager []string) []string {
	var out []string
	add := func(name string) {
		has := slices.ContainsFunc(env, func(kv string) bool { return strings.HasPrefix(kv, name+"=") })
		if !has && validEnvName(name) && !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	for _, name := range addedByPID1 {
		add(name)
	}
	for _, kv := range manager {
		name, _, _ := strings.Cut(kv, "=")
		add(name)
	}
	return out
}
