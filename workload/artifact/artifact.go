// Package artifact keeps packages by the SHA-256 of their bytes: it packs them,
// fetches them from whoever has them, stores them, and unpacks them for copies
// to run from.
//
// A package is an archive (tar, tar.gz, tar.zst, zip) or a plain file. Nothing
// in one is trusted: what is fetched is not visible before its hash has been
// checked, and what is unpacked stays inside its own directory.
package artifact

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// Digest names a package by its content: "sha256:" and 64 hex digits.
type Digest string

const digestPrefix = "sha256:"

// ParseDigest checks that s is a Digest.
func ParseDigest(s string) (Digest, error) {
	hexed, ok := strings.CutPrefix(s, digestPrefix)
	if !ok || len(hexed) != 64 || strings.ToLower(hexed) != hexed {
		return "", fmt.Errorf("digest %q: want sha256: and 64 hex digits", clip(s))
	}
	if _, err := hex.DecodeString(hexed); err != nil {
		return "", fmt.Errorf("digest %q: want sha256: and 64 hex digits", clip(s))
	}
	return Digest(s), nil
}

func digestOf(sum []byte) Digest { return Digest(digestPrefix + hex.EncodeToString(sum)) }

// hex is the digest as the name of a file. The digest must be valid.
func (d Digest) hex() string { return strings.TrimPrefix(string(d), digestPrefix) }

// Short is the digest as people can compare it at a glance.
func (d Digest) Short() string {
	if len(d) < len(digestPrefix)+12 {
		return string(d)
	}
	return string(d[:len(digestPrefix)+12])
}

func clip(s string) string {
	if len(s) > 80 {
		return s[:77] + "..."
	}
	return s
}

var (
	// ErrAbsent is returned for a package that is not there: not in the store,
	// or at none of the sources.
	ErrAbsent = errors.New("no such package")
	// ErrCorrupt is returned for bytes that are not what their digest says.
	ErrCorrupt = errors.New("the content does not match its digest")
	// ErrRefused is returned for a package that cannot be used as it is: its
	// content breaks a rule or a limit. To try again fails again.
	ErrRefused = errors.New("package refused")
)

func refused(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrRefused, fmt.Sprintf(format, args...))
}

// Limits bound what a package may hold. The zero value of a field means its
// default.
type Limits struct {
	Package int64 // bytes of a package as it travels; default 4 GiB
	Bytes   int64 // bytes of all files together; default 16 GiB
	Files   int   // files, directories and links together; default 200,000
	Ratio   int64 // bytes unpacked for each byte packed, beyond ratioFree; default 200
	Depth   int   // directories above a file; default 64
	Name    int   // bytes of a whole path; default 1024
}

// ratioFree is what may be unpacked whatever the ratio: small files of zeros
// are common.
const ratioFree = 64 << 20

func (l Limits) withDefaults() Limits {
	orElse(&l.Package, 4<<30)
	orElse(&l.Bytes, 16<<30)
	orElse(&l.Files, 200_000)
	orElse(&l.Ratio, 200)
	orElse(&l.Depth, 64)
	orElse(&l.Name, 1024)
	return l
}

func orElse[T comparable](v *T, otherwise T) {
	var zero T
	if *v == zero {
		*v = otherwise
	}
}
