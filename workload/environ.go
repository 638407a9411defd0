package workload

import (
	"slices"
	"strconv"
	"strings"
)

// PlainPath is the PATH of every copy, and where a bare command is looked for.
const PlainPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Environ returns the whole environment of start number n of a copy, sorted:
// what the spec brings (PORT_* among it), the names of the copy, STATE_DIR, the
// token of a lease and a plain PATH. The user may choose PATH; nobody but the driver sets GANGLION_*
// and STATE_DIR.
func (s Spec) Environ(host string, n int, stateDir string) []string {
	env := make([]string, 0, len(s.Env)+8)
	for k, v := range s.Env {
		if k != "STATE_DIR" && !strings.HasPrefix(k, "GANGLION_") {
			env = append(env, k+"="+v)
		}
	}
	if _, ok := s.Env["PATH"]; !ok {
		env = append(env, "PATH="+PlainPath)
	}
	env = append(env,
		"GANGLION_APP="+s.ID.App,
		"GANGLION_COPY="+strconv.Itoa(s.ID.N),
		"GANGLION_HOST="+host,
		"GANGLION_VERSION="+s.Version,
		"GANGLION_START="+strconv.Itoa(n),
		"STATE_DIR="+stateDir,
	)
	if s.Lease != nil {
		env = append(env, "GANGLION_TOKEN="+strconv.FormatUint(s.Lease.Token, 10))
	}
	slices.Sort(env)
	return env
}
