package topology

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/ganglion-mesh/ganglion/intent"
)

// Limits of what is kept of signatures.
const (
	MaxSigningKeys = 64
	MaxSignatures  = 4096

	maxSigningKey = 1 << 10 // bytes of a public key
	maxSignature  = 8 << 10 // bytes of a signature
)

// Signing is the mesh's policy on signatures of packages. It is looked at when a
// user declares: by an apply that adds or changes an app, and by a rollback to
// another version than the one that is proved. What it lets in stays in: restarts,
// moves, recovery and the rollback of a change that fails ask nobody again.
type Signing struct {
	Required bool         `json:"required,omitempty"` // a package must be signed by one of Keys
	Keys     []SigningKey `json:"keys,omitempty"`     // trusted now, by name
}

// SigningKey is a public key whose signatures count.
type SigningKey struct {
	Name string `json:"name"`
	Key  string `json:"key"` // one line, as who proposed it writes keys
}

// Signature is a signature of a package that was good when it was taken.
type Signature struct {
	Digest string `json:"digest"`
	Key    string `json:"key"`  // that made it, as SigningKey.Key
	Text   string `json:"text"` // as the tool that made it wrote it
	Index  uint64 `json:"index"`
}

// SetSigning changes the policy: exactly one of Require, Trust and Distrust is set.
type SetSigning struct {
	Require  *bool       `json:"require,omitempty"`
	Trust    *SigningKey `json:"trust,omitempty"`
	Distrust string      `json:"distrust,omitempty"` // name of a key
}

// PutSignature keeps a signature. Whoever proposes it has checked it against the
// package: voters have no packages to look at.
type PutSignature struct {
	Digest string `json:"digest"`
	Key    string `json:"key"`
	Text   string `json:"text"`
}

// Signing returns the policy on signatures of packages.
func (s *State) Signing() Signing { return s.signing }

// Name is what the mesh calls a key that it trusts; empty if it does not.
func (p Signing) Name(key string) string {
	for _, k := range p.Keys {
		if k.Key == key {
			return k.Name
		}
	}
	return ""
}

func (p Signing) names() string {
	var list []string
	for _, k := range p.Keys {
		list = append(list, k.Name)
	}
	return strings.Join(list, ", ")
}

// SignedBy returns the names of the keys, of those trusted now, that have signed
// a package.
func (s *State) SignedBy(digest string) []string {
	var list []string
	for sig := range prefixed(s.signatures, digest) {
		if name := s.signing.Name(sig.Key); name != "" {
			list = append(list, name)
		}
	}
	slices.Sort(list)
	return list
}

// voucher returns the key by whose signature a package may be declared now: the
// first by name of those that have signed it. It is empty if none has.
func (s *State) voucher(digest string) string {
	for _, k := range s.signing.Keys {
		if _, ok := s.signatures.Get(signatureKey(digest, k.Key)); ok {
			return k.Key
		}
	}
	return ""
}

// onPaper is the state under a policy that asks for no signatures and stages no
// reflexes, which move nothing by themselves.
func (s *State) onPaper() *State {
	open := *s
	open.signing.Required = false
	open.stages, open.reflexStage = New().stages, ReflexStage{Off: true}
	return &open
}

// packageOf is the digest of the package that run names; empty if it names none.
func packageOf(run intent.Run) string {
	if strings.HasPrefix(run.Artifact, "https://") {
		return run.Digest
	}
	return run.Artifact
}

// mayRun rejects a package that the policy does not let in. What names who asks.
func (s *State) mayRun(what string, run intent.Run) *Rejected {
	if why := s.unsigned(run); why != "" {
		return reject(RejectConflict, "%s: %s; nothing was changed", what, why)
	}
	return nil
}

// unsigned says why the policy does not let a package in, or "".
func (s *State) unsigned(run intent.Run) string {
	digest := packageOf(run)
	if !s.signing.Required || digest == "" || s.voucher(digest) != "" {
		return ""
	}
	return fmt.Sprintf("package %s is not signed by a key that this mesh trusts (%s), and signatures are required; sign it and say ganglion artifact sign %s --signature FILE",
		shortDigest(digest), s.signing.names(), digest)
}

func shortDigest(digest string) string { return digest[:min(len(digest), len("sha256:")+12)] }

// asks reports whether to apply an app asks for its package to be let in: it
// adds or changes it, or has it try again. What is as it was asks for nothing.
func (s *State) asks(spec intent.App) bool {
	e, ok := s.apps.Get([]byte(spec.Name))
	return !ok || !sameStored(e.Spec, spec) || e.TriesAgain()
}

// admit rejects an app that is to be applied if the policy does not let its
// package in.
func (t *txn) admit(spec intent.App) *Rejected {
	if !t.asks(spec) {
		return nil
	}
	return t.mayRun("apply app "+spec.Name, spec.Run)
}

// refusals are the apps of an apply that the policy would not let in, in the
// order in which it looks at them.
func (s *State) refusals(put PutIntents) (list []Refusal) {
	for _, spec := range put.Intents.Apps {
		if why := s.unsigned(spec.Run); why != "" && s.asks(spec) {
			list = append(list, Refusal{spec.Name, packageOf(spec.Run), why})
		}
	}
	return list
}

// vouched is what a records of whose signatures let its versions in, once a user
// has declared version under the present policy.
func (t *txn) vouched(a App, version string) map[string]string {
	key := ""
	if digest := packageOf(a.Versions[version].Run); t.signing.Required && digest != "" {
		key = t.voucher(digest)
	}
	if key == "" || a.Signed[version] == key {
		return a.Signed
	}
	signed := maps.Clone(a.Signed)
	if signed == nil {
		signed = map[string]string{}
	}
	signed[version] = key
	return signed
}

func (t *txn) setSigning(c SetSigning) *Rejected {
	next, r := t.signing, (*Rejected)(nil)
	switch {
	case c.Require != nil && c.Trust == nil && c.Distrust == "":
		r = next.require(*c.Require)
	case c.Trust != nil && c.Require == nil && c.Distrust == "":
		r = next.trust(*c.Trust)
	case c.Distrust != "" && c.Require == nil && c.Trust == nil:
		r = next.distrust(c.Distrust)
	default:
		r = reject(RejectInvalid, "change the policy on signatures: exactly one change at a time")
	}
	if r != nil {
		return r
	}
	t.noteSigning(t.signing, next)
	if next.Required != t.signing.Required {
		for e := range values(t.hosts) {
			t.touched[e.Name] = true // slices say whether signatures are required
		}
	}
	t.changed = t.changed || next.Required != t.signing.Required || !slices.Equal(next.Keys, t.signing.Keys)
	t.signing = next
	return nil
}

func (p *Signing) require(required bool) *Rejected {
	if required && len(p.Keys) == 0 {
		return reject(RejectConflict, "require signatures: this mesh trusts no key yet, so that nothing could be applied; first ganglion artifact trust NAME KEY")
	}
	p.Required = required
	return nil
}

func (p *Signing) trust(k SigningKey) *Rejected {
	if err := intent.CheckName(k.Name); err != nil {
		return reject(RejectInvalid, "trust key: %v", err)
	}
	if k.Key == "" || len(k.Key) > maxSigningKey {
		return reject(RejectInvalid, "trust key %s: it must have 1 to %d bytes", k.Name, maxSigningKey)
	}
	for _, old := range p.Keys {
		switch {
		case old == k:
			return nil
		case old.Name == k.Name:
			return reject(RejectConflict, "trust key %s: another key has that name; first ganglion artifact distrust %s, or take another name", k.Name, k.Name)
		case old.Key == k.Key:
			return reject(RejectConflict, "trust key %s: it is trusted already, as %s", k.Name, old.Name)
		}
	}
	if len(p.Keys) == MaxSigningKeys {
		return reject(RejectLimit, "trust key %s: this mesh trusts %d keys, the most it can", k.Name, MaxSigningKeys)
	}
	p.Keys = append(slices.Clone(p.Keys), k)
	slices.SortFunc(p.Keys, func(a, b SigningKey) int { return cmp.Compare(a.Name, b.Name) })
	return nil
}

func (p *Signing) distrust(name string) *Rejected {
	i := slices.IndexFunc(p.Keys, func(k SigningKey) bool { return k.Name == name })
	switch {
	case i < 0:
		return reject(RejectUnknown, "distrust key %q: this mesh trusts no key of that name (ganglion artifact policy)", name)
	case p.Required && len(p.Keys) == 1:
		return reject(RejectConflict, "distrust key %s: it is the last one, and signatures are required, so that nothing could be applied any more; first trust another, or ganglion artifact policy optional", name)
	}
	p.Keys = slices.Delete(slices.Clone(p.Keys), i, i+1)
	if len(p.Keys) == 0 {
		p.Keys = nil // as a policy that was never set: equal states have equal snapshots
	}
	return nil
}

// signatureKey orders by digest, as prefixed wants it.
func signatureKey(digest, key string) []byte { return []byte(digest + "\x00" + key) }

func (t *txn) putSignature(c PutSignature) *Rejected {
	switch {
	case len(c.Digest) != len("sha256:")+64 || c.Digest[:len("sha256:")] != "sha256:":
		return reject(RejectInvalid, "sign package %.80q: that is no digest", c.Digest)
	case c.Text == "" || len(c.Text) > maxSignature:
		return reject(RejectInvalid, "sign package %s: the signature must have 1 to %d bytes", shortDigest(c.Digest), maxSignature)
	case t.signing.Name(c.Key) == "":
		return reject(RejectConflict, "sign package %s: the key that signed it is not trusted any more (ganglion artifact policy)", shortDigest(c.Digest))
	}
	if _, ok := t.signatures.Get(signatureKey(c.Digest, c.Key)); ok {
		return nil // one good signature is as good as another
	}
	if t.signatures.Len() >= MaxSignatures && !t.forgetSignature() {
		return reject(RejectLimit, "sign package %s: apps name %d signed packages, the most that can be kept", shortDigest(c.Digest), MaxSignatures)
	}
	s := &Signature{Digest: c.Digest, Key: c.Key, Text: c.Text, Index: t.index}
	t.signatures, _, _ = t.signatures.Insert(signatureKey(c.Digest, c.Key), s)
	t.changed = true
	return nil
}

// forgetSignature drops the oldest signature of a package that no kept version of
// an app names.
func (t *txn) forgetSignature() bool {
	named := map[string]bool{}
	for e := range values(t.apps) {
		for _, spec := range e.Versions { // order does not matter
			named[packageOf(spec.Run)] = true
		}
	}
	var oldest *Signature
	for s := range values(t.signatures) {
		if !named[s.Digest] && (oldest == nil || s.Index < oldest.Index) {
			oldest = s
		}
	}
	if oldest == nil {
		return false
	}
	t.signatures, _, _ = t.signatures.Delete(signatureKey(oldest.Digest, oldest.Key))
	return true
}

// signaturesFor are the signatures that let packages of a slice in.
func (s *State) signaturesFor(packages []Package) []Signature {
	var list []Signature
	for _, p := range packages {
		if p.Key == "" {
			continue
		}
		if sig, ok := s.signatures.Get(signatureKey(packageOf(p.Run()), p.Key)); ok && !slices.Contains(list, *sig) {
			list = append(list, *sig)
		}
	}
	return list
}

// Admission is the signature that let a package of the slice in; nil if none was
// asked for when its app was declared. An error says why the package may not run:
// where signatures are required, what the slice does not name is not let in.
func (s Slice) Admission(digest string) (*Signature, error) {
	named := false
	for _, p := range s.Packages {
		if packageOf(p.Run()) != digest {
			continue
		}
		named = true
		if p.Key == "" {
			continue
		}
		for _, sig := range s.Signatures {
			if sig.Digest == digest && sig.Key == p.Key {
				return &sig, nil
			}
		}
		return nil, fmt.Errorf("package %s was let in by a signature that host %s was not told", shortDigest(digest), s.Host)
	}
	if !named && s.SignaturesRequired {
		return nil, fmt.Errorf("package %s: signatures are required, and no app on host %s names it", shortDigest(digest), s.Host)
	}
	return nil, nil
}

// known is what of signed, of an app in a backup, this state has signatures for.
func (s *State) known(a App) map[string]string {
	var signed map[string]string
	for _, version := range sortedKeys(a.Signed) {
		if _, ok := s.signatures.Get(signatureKey(packageOf(a.Versions[version].Run), a.Signed[version])); ok {
			if signed == nil {
				signed = map[string]string{}
			}
			signed[version] = a.Signed[version]
		}
	}
	return signed
}

// allSignatures lists all signatures by package and key.
func (s *State) allSignatures() []Signature {
	var list []Signature
	for sig := range values(s.signatures) {
		list = append(list, *sig)
	}
	return list
}
