package trust

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strings"
)

const (
	tokenPrefix = "mesh1"
	// secretBytes gives 160 bits, which is 32 characters with no padding.
	secretBytes = 20
	secretChars = 32
	maxToken    = 512
)

// tokenAlphabet has no upper case, so that a token survives being read aloud.
var tokenAlphabet = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// Token lets its holder join one mesh in one role. Who shows it need not trust
// the network: CAHash pins the mesh's authority. The mesh stores only ID, Role
// and Hash.
type Token struct {
	CAHash string // as CAHash returns it
	Role   string
	ID     string // names the token in lists and when it is revoked; not secret
	Secret string
}

// NewToken makes a token for the mesh with the given authority.
func NewToken(caPEM []byte, role string) (Token, error) {
	if _, err := usageOf(role); err != nil {
		return Token{}, fmt.Errorf("make token: %w", err)
	}
	hash, err := CAHash(caPEM)
	if err != nil {
		return Token{}, fmt.Errorf("make token: %w", err)
	}
	random := make([]byte, secretBytes+5)
	if _, err := rand.Read(random); err != nil {
		return Token{}, fmt.Errorf("make token: %w", err)
	}
	return Token{
		CAHash: hash,
		Role:   role,
		ID:     tokenAlphabet.EncodeToString(random[secretBytes:]),
		Secret: tokenAlphabet.EncodeToString(random[:secretBytes]),
	}, nil
}

// String returns the whole token, secret included, as ParseToken reads it.
func (t Token) String() string {
	return strings.Join([]string{tokenPrefix, t.CAHash, t.Role, t.ID, t.Secret}, ".")
}

// LogValue keeps the secret out of logs.
func (t Token) LogValue() slog.Value { return slog.StringValue("token " + t.ID + " for " + t.Role) }

// GoString keeps the secret out of %#v.
func (t Token) GoString() string { return "token " + t.ID + " for " + t.Role }

// ParseToken reads mesh1.<CA sha256>.<role>.<id>.<secret>, with blanks around it
// ignored. Its errors do not repeat the input, which may be a secret.
func ParseToken(s string) (Token, error) {
	s = strings.TrimSpace(s)
	if len(s) > maxToken {
		return Token{}, errors.New("read token: it is too long; copy it as `ganglion token create` printed it")
	}
	part := strings.Split(s, ".")
	if len(part) != 5 || part[0] != tokenPrefix {
		return Token{}, errors.New("read token: want mesh1.<CA sha256>.<role>.<id>.<secret>; copy it as `ganglion token create` printed it")
	}
	t := Token{CAHash: part[1], Role: part[2], ID: part[3], Secret: part[4]}
	if err := t.validate(); err != nil {
		return Token{}, fmt.Errorf("read token: %w; copy it as `ganglion token create` printed it", err)
	}
	return t, nil
}

func (t Token) validate() error {
	if raw, err := hex.DecodeString(t.CAHash); err != nil || len(raw) != sha256.Size || strings.ToLower(t.CAHash) != t.CAHash {
		return errors.New("its CA hash is not 64 lower-case hex digits")
	}
	if _, err := usageOf(t.Role); err != nil {
		return errors.New("its role is unknown to this version")
	}
	if !nameForm.MatchString(t.ID) {
		return errors.New("its id is not a name")
	}
	if raw, err := tokenAlphabet.DecodeString(t.Secret); err != nil || len(raw) != secretBytes || len(t.Secret) != secretChars {
		return errors.New("its secret is damaged")
	}
	return nil
}

// Hash is what the mesh stores of a token: enough to recognise it, useless to
// show. ID and Secret are bound together; the role is the store's to remember,
// never the joiner's to say. A plain hash is enough for 160 random bits.
func (t Token) Hash() []byte {
	sum := sha256.Sum256([]byte("ganglion join token\x00" + t.ID + "\x00" + t.Secret))
	return sum[:]
}

// Verify reports whether hash is t's, in a time that does not depend on where
// they differ. It needs ID and Secret alone. An empty hash matches nothing.
func (t Token) Verify(hash []byte) bool {
	return len(hash) == sha256.Size && t.Secret != "" && subtle.ConstantTimeCompare(t.Hash(), hash) == 1
}
