//go:build linux

package systemd

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"github.com/ganglion-mesh/ganglion/workload"
)

const (
	unitPrefix  = "ganglion-"
	checkPrefix = "ganglion.check-" // no app's name has a dot: never taken for a copy
	unitSuffix  = ".service"
	tagLen      = 8
	nonceLen    = 8
)

// unitName is ganglion-<app>-<n>-<version8>-<incarnation>.service. The
// incarnation is the tag of the data directory, so that no agent takes another's
// copies for its own, and a random number, so that no two starts share a unit.
func (d *Driver) unitName(spec workload.Spec) string {
	version := cleanVersion(spec.Version)
	return unitPrefix + spec.ID.App + "-" + strconv.Itoa(spec.ID.N) + "-" + version + "-" + d.tag + nonce() + unitSuffix
}

// cleanVersion is the version's first 8 characters; versions are hex, and what
// is not cannot be part of a unit's name.
func cleanVersion(v string) string {
	if len(v) > 8 {
		v = v[:8]
	}
	for _, c := range []byte(v) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return "0"
		}
	}
	if v == "" {
		return "0"
	}
	return v
}

// parseUnitName tells which copy a unit runs, if it is one of tag's.
func parseUnitName(unit, tag string) (id workload.CopyID, ok bool) {
	name, ok1 := strings.CutPrefix(unit, unitPrefix)
	name, ok2 := strings.CutSuffix(name, unitSuffix)
	parts := strings.Split(name, "-")
	if !ok1 || !ok2 || len(parts) < 4 {
		return id, false
	}
	end := len(parts) - 3 // of the app's name, which may have dashes itself
	n, err := strconv.Atoi(parts[end])
	id = workload.CopyID{App: strings.Join(parts[:end], "-"), N: n}
	incarnation := parts[end+2]
	if err != nil || !validID(id) || len(incarnation) != tagLen+nonceLen || !strings.HasPrefix(incarnation, tag) {
		return workload.CopyID{}, false
	}
	return id, true
}

// tagOf names a data directory.
func tagOf(dir string) string {
	sum := sha256.Sum256([]byte(dir))
	return hex.EncodeToString(sum[:tagLen/2])
}

func nonce() string {
	var b [nonceLen / 2]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// maxUserName is what utmp leaves room for; systemd refuses longer ones.
const maxUserName = 31

// dynamicUser names the private user of an app. With a name that stays, PID 1
// gives the user the same number again, checks can run as the same user, and the
// app's files keep their owner.
func dynamicUser(app string) string {
	if name := "gl-" + app; len(name) <= maxUserName {
		return name
	}
	sum := sha256.Sum256([]byte(app))
	return "gl_" + hex.EncodeToString(sum[:12]) // no app's name has an underscore
}

// describe is a unit's description: enough to adopt it if its record is lost.
func describe(spec workload.Spec, n int) string {
	return fmt.Sprintf("ganglion copy %s version %s generation %d start %d", spec.ID, spec.Version, spec.Generation, n)
}

// parseDescription reads what describe wrote.
func parseDescription(s string) (spec workload.Spec, n int, ok bool) {
	var id string
	_, err := fmt.Sscanf(s, "ganglion copy %s version %s generation %d start %d", &id, &spec.Version, &spec.Generation, &n)
	if err != nil {
		return workload.Spec{}, 0, false
	}
	spec.ID, err = workload.ParseCopyID(id)
	return spec, n, err == nil
}

func validID(id workload.CopyID) bool {
	if id.N < 0 || len(id.App) == 0 || len(id.App) > 63 || id.App[0] == '-' {
		return false
	}
	for _, c := range []byte(id.App) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

// objectPath is where the bus keeps a unit: all but letters and digits as _XX.
func objectPath(unit string) string {
	var b strings.Builder
	b.WriteString("/org/freedesktop/systemd1/unit/")
	for i, c := range []byte(unit) {
		if (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9' && i > 0) {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "_%02x", c)
		}
	}
	return b.String()
}
