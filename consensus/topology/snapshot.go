package topology

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/ganglion-mesh/ganglion/intent"
)

// A snapshot is magic, format version, length of the body, body, SHA-256 of all
// that. The body is the image in CBOR.
const (
	snapshotMagic   = "GNGLTOPO"
	snapshotVersion = 1
	snapshotHeader  = len(snapshotMagic) + 4 + 8
	maxSnapshot     = 1 << 30
)

// snapshotCodec is constant.
var snapshotCodec = newCodec(1 << 27)

// image is a State as plain data.
type image struct {
	Revision   uint64                `json:"revision"`
	Era        uint64                `json:"era"`
	MeshID     string                `json:"mesh_id"`
	MeshName   string                `json:"mesh_name"`
	Trust      Trust                 `json:"trust"`
	Apps       []App                 `json:"apps"`
	Hosts      []hostImage           `json:"hosts"`
	Placements []Placement           `json:"placements"`
	Tokens     []PutToken            `json:"tokens"`
	Leases     []Lease               `json:"leases,omitempty"`
	Requests   map[string]remembered `json:"requests"`
	Revoked    []Revocation          `json:"revoked,omitempty"`
	Reflexes   []Reflex              `json:"reflexes,omitempty"`
	Senses     []Sense               `json:"senses,omitempty"`
	Signing    Signing               `json:"signing,omitzero"`
	Signatures []Signature           `json:"signatures,omitempty"`
	Rebalance  Rebalance             `json:"rebalance,omitzero"`
	Moved      []uint64              `json:"moved,omitempty"`
	Untold     []Fact                `json:"untold,omitempty"`
	Missed     unkept                `json:"missed,omitzero"`
	Thawed     Thaw                  `json:"thawed,omitzero"`
	Loans      []Loan                `json:"loans,omitempty"`
	Remnants   []Remnant             `json:"remnants,omitempty"`

	ReflexStage ReflexStage `json:"reflex_stage,omitzero"`
	Stages      []Stage     `json:"stages,omitempty"`
}

type hostImage struct {
	Host  Host   `json:"host"`
	Slice uint64 `json:"slice"`
}

// frame tells one kind of file from another.
type frame struct {
	magic   string // of 8 bytes
	version uint32
	what    string // in errors
}

// stateFrame is constant.
var stateFrame = frame{snapshotMagic, snapshotVersion, "a snapshot of a topology"}

// Write writes the state. Equal states write equal bytes.
func (s *State) Write(w io.Writer) error {
	if err := stateFrame.write(w, s.image()); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	return nil
}

func (f frame) write(w io.Writer, content any) error {
	body, err := snapshotCodec.enc.Marshal(content)
	if err != nil {
		return err
	}
	head := binary.BigEndian.AppendUint32([]byte(f.magic), f.version)
	head = binary.BigEndian.AppendUint64(head, uint64(len(body)))
	sum := sha256.New()
	for _, part := range [][]byte{head, body} {
		sum.Write(part)
		if _, err := w.Write(part); err != nil {
			return err
		}
	}
	_, err = w.Write(sum.Sum(nil))
	return err
}

func (s *State) image() image {
	im := image{
		Revision: s.revision, Era: s.era, MeshID: s.meshID, MeshName: s.meshName, Trust: s.trust,
		Apps: s.Apps(), Placements: s.Placements(), Tokens: s.Tokens(), Leases: s.Leases(), Revoked: s.revocations(),
		Reflexes: s.Reflexes(), Senses: s.Senses(),
		Signing: s.signing, Signatures: s.allSignatures(),
		Rebalance: s.rebalance, Moved: s.moved, Untold: s.kept(), Missed: s.missed, Thawed: s.thawed, Loans: s.loans, Remnants: s.Remnants(),
		ReflexStage: s.reflexStage, Stages: s.Stages(),
		Requests: make(map[string]remembered, s.requests.Len()),
	}
	for e := range values(s.hosts) {
		im.Hosts = append(im.Hosts, hostImage{e.Host, e.slice})
	}
	for id := range values(s.replay) {
		im.Requests[id], _ = s.requests.Get([]byte(id))
	}
	return im
}

// Read reads a state that Write wrote. It refuses what is cut short, altered,
// of a later format, or could not have come about.
func Read(r io.Reader) (*State, error) {
	body, err := stateFrame.read(r)
	if err != nil {
		return nil, fmt.Errorf("read snapshot: %w", err)
	}
	var im image
	if err := snapshotCodec.dec.Unmarshal(body, &im); err != nil {
		return nil, fmt.Errorf("read snapshot: %w", err)
	}
	s, err := im.state()
	if err != nil {
		return nil, fmt.Errorf("read snapshot: %w", err)
	}
	return s, nil
}

// short says what it means that a file has ended too soon.
func short(err error, means string) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("it is %s (%w)", means, err)
	}
	return err
}

func (f frame) read(r io.Reader) ([]byte, error) {
	head := make([]byte, snapshotHeader)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, short(err, "too short to be "+f.what)
	}
	if string(head[:len(f.magic)]) != f.magic {
		return nil, fmt.Errorf("this is not %s", f.what)
	}
	rest := head[len(f.magic):]
	if v := binary.BigEndian.Uint32(rest); v != f.version {
		return nil, fmt.Errorf("format %d is not known to this release; upgrade ganglion", v)
	}
	size := binary.BigEndian.Uint64(rest[4:])
	if size > maxSnapshot {
		return nil, fmt.Errorf("%d bytes, the limit is %d", size, maxSnapshot)
	}
	// The buffer grows with what arrives, not with what the header claims.
	var body bytes.Buffer
	if _, err := io.CopyN(&body, r, int64(size)); err != nil {
		return nil, short(err, "cut short: take another, or save it again")
	}
	sum := make([]byte, sha256.Size)
	if _, err := io.ReadFull(r, sum); err != nil {
		return nil, short(err, "cut short: take another, or save it again")
	}
	want := sha256.New()
	want.Write(head)
	want.Write(body.Bytes())
	if !bytes.Equal(sum, want.Sum(nil)) {
		return nil, errors.New("the checksum does not match: the snapshot is damaged")
	}
	return body.Bytes(), nil
}

func (im image) state() (*State, error) {
	s := New()
	s.revision, s.era = im.Revision, im.Era
	s.meshID, s.meshName, s.trust = im.MeshID, im.MeshName, im.Trust
	s.rebalance, s.moved, s.thawed, s.loans = im.Rebalance, im.Moved, im.Thawed, im.Loans
	for _, h := range im.Hosts {
		s.hosts = insert(s.hosts, h.Host.Name, &hostEntry{Host: h.Host, slice: h.Slice})
	}
	for _, a := range im.Apps {
		s.apps = insert(s.apps, a.Spec.Name, newAppEntry(a, nil))
	}
	for _, t := range im.Tokens {
		s.tokens = insert(s.tokens, t.ID, t)
	}
	for _, l := range im.Leases {
		s.leases = insert(s.leases, l.App, &l)
	}
	for _, r := range im.Revoked {
		s.revoked = insert(s.revoked, r.ID, r)
	}
	for _, r := range im.Reflexes {
		s.reflexes = insert(s.reflexes, r.Spec.Name, &r)
	}
	for _, x := range im.Senses {
		s.senses = insert(s.senses, x.Spec.Name, &x)
	}
	s.reflexStage = im.ReflexStage
	for _, st := range im.Stages {
		s.stages = insert(s.stages, st.Rule, &st)
	}
	s.signing = im.Signing
	for _, sig := range im.Signatures {
		s.signatures, _, _ = s.signatures.Insert(signatureKey(sig.Digest, sig.Key), &sig)
	}
	for id, r := range im.Requests {
		s.requests = insert(s.requests, id, r)
		s.replay, _, _ = s.replay.Insert(indexKey(r.Index), id)
	}
	for _, p := range im.Placements {
		s.copies, _, _ = s.copies.Insert(copyKey(p.Key()), &p)
		s.onHost, _, _ = s.onHost.Insert(hostKey(p.Host, p.Key()), &p)
	}
	for _, m := range im.Remnants {
		s.remnants, _, _ = s.remnants.Insert(remnantKey(m.Key(), m.Host), &m)
	}
	return s, errors.Join(s.keep(im.Untold, im.Missed), s.check(im))
}

// check holds the invariants that the rest of the package builds on.
func (s *State) check(im image) error {
	if s.hosts.Len() != len(im.Hosts) || s.apps.Len() != len(im.Apps) || s.copies.Len() != len(im.Placements) ||
		s.tokens.Len() != len(im.Tokens) || s.revoked.Len() != len(im.Revoked) || s.reflexes.Len() != len(im.Reflexes) || s.senses.Len() != len(im.Senses) || s.stages.Len() != len(im.Stages) || s.signatures.Len() != len(im.Signatures) || s.replay.Len() != len(im.Requests) {
		return errors.New("two entries have one name")
	}
	for _, h := range im.Hosts {
		if err := intent.CheckName(h.Host.Name); err != nil {
			return fmt.Errorf("host: %w", err)
		}
	}
	for _, r := range im.Reflexes {
		if err := intent.CheckName(r.Spec.Name); err != nil {
			return fmt.Errorf("reflex: %w", err)
		}
	}
	for _, x := range im.Senses {
		if err := intent.CheckName(x.Spec.Name); err != nil {
			return fmt.Errorf("sense: %w", err)
		}
	}
	for _, a := range im.Apps {
		if err := intent.CheckName(a.Spec.Name); err != nil {
			return fmt.Errorf("app: %w", err)
		}
		if _, ok := a.Versions[a.Version]; !ok {
			return fmt.Errorf("app %s: its version %q is missing", a.Spec.Name, a.Version)
		}
		for version := range a.Signed { // order does not matter
			if _, ok := a.Versions[version]; !ok {
				return fmt.Errorf("app %s: its signed version %q is missing", a.Spec.Name, version)
			}
		}
		if !slices.IsSorted(a.StoppedCopies) {
			return fmt.Errorf("app %s: its stopped copies are not in order", a.Spec.Name)
		}
	}
	for _, p := range im.Placements {
		if err := s.checkStored(p); err != nil {
			return fmt.Errorf("copy %s: %w", p.Key(), err)
		}
	}
	if p := s.signing; !slices.IsSortedFunc(p.Keys, func(a, b SigningKey) int { return cmp.Compare(a.Name, b.Name) }) || p.Required && len(p.Keys) == 0 {
		return errors.New("the policy on signatures cannot have come about")
	}
	if why := s.rebalance.wrong(); why != "" || len(s.moved) > MaxRebalanceMoves || !slices.IsSorted(s.moved) {
		return fmt.Errorf("setting rebalance: %s", orText(why, "what is spent of it is out of bounds"))
	}
	for i, l := range s.loans {
		if l.ID == 0 || l.Tokens < 1 || l.Tokens > MaxHosts || l.Used < 0 || l.Used > l.Tokens || i > 0 && l.ID <= s.loans[i-1].ID {
			return fmt.Errorf("loan %d cannot have come about", l.ID)
		}
	}
	return errors.Join(s.checkLeases(im), s.checkRemnants(im), s.checkStages())
}

func (s *State) checkStored(p Placement) error {
	app, ok := s.apps.Get([]byte(p.App))
	if !ok {
		return errors.New("its app is missing")
	}
	if _, ok := s.hosts.Get([]byte(p.Host)); !ok {
		return fmt.Errorf("its host %q is missing", p.Host)
	}
	if _, ok := app.Versions[p.Version]; !ok {
		return fmt.Errorf("its version %q is not one of %v", p.Version, slices.Sorted(maps.Keys(app.Versions)))
	}
	if p.N < 0 || p.N >= intent.MaxCopies {
		return errors.New("its number is out of bounds")
	}
	if r := checkRelief(p); r != nil {
		return r
	}
	return nil
}
