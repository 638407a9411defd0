// Package brake is the freeze of a mesh (S8): who has asked for automatic action
// to stop, and whether a quorum has ended that. Any host may freeze, with nobody's
// help; only a leader that has committed it may thaw. See DESIGN.md.
package brake

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/fxamacker/cbor/v2"

	"github.com/ganglion-mesh/ganglion/trust"
)

const (
	// MaxRecord bounds a record as it is stored and spread, in bytes.
	MaxRecord = 1024
	// maxEpoch leaves room above every epoch that is believed.
	maxEpoch = 1 << 62

	purpose = "freeze"
)

// Record is one freeze, or one thaw.
type Record struct {
	Epoch uint64   `cbor:"1,keyasint"`
	Thaw  bool     `cbor:"2,keyasint,omitempty"`
	Hard  bool     `cbor:"3,keyasint,omitempty"`
	Apps  []string `cbor:"4,keyasint,omitempty"` // sorted; none: everything
	By    string   `cbor:"5,keyasint,omitempty"` // the host that froze, or at which the thaw was asked for
}

// Signed is a record with the signature of the host that froze, or for a thaw of
// the mesh's authority. It is immutable.
type Signed struct {
	Record Record
	body   []byte
	cert   []byte // of the host; none for a thaw
	sig    []byte
	key    []byte // the public key in cert
}

// wire is how a Signed is stored and spread.
type wire struct {
	Body []byte `cbor:"1,keyasint"`
	Cert []byte `cbor:"2,keyasint,omitempty"`
	Sig  []byte `cbor:"3,keyasint"`
}

func (s *Signed) encode() []byte {
	b, err := cbor.Marshal(wire{s.body, s.cert, s.sig})
	if err != nil {
		return nil // byte strings always encode
	}
	return b
}

// sign makes a freeze of this host's.
func sign(id *trust.Identity, r Record) (*Signed, error) {
	r.By = id.Peer().Host
	body, err := cbor.Marshal(r)
	if err != nil {
		return nil, err
	}
	sig, cert, err := id.Sign(purpose, body)
	if err != nil {
		return nil, err
	}
	s := &Signed{Record: r, body: body, cert: cert, sig: sig}
	if n := len(s.encode()); n > MaxRecord {
		return nil, fmt.Errorf("it takes %d bytes to say which apps, the limit is %d: freeze everything", n, MaxRecord)
	}
	return s, nil
}

// SealThaw makes the thaw of an epoch that has been committed, in the name of the
// mesh.
func SealThaw(a trust.Authority, epoch uint64, by string) ([]byte, error) {
	body, err := cbor.Marshal(Record{Epoch: epoch, Thaw: true, By: by})
	if err != nil {
		return nil, fmt.Errorf("thaw: %w", err)
	}
	sig, err := a.Seal(purpose, body)
	if err != nil {
		return nil, fmt.Errorf("thaw: %w", err)
	}
	return (&Signed{body: body, sig: sig}).encode(), nil
}

// open reads a record that anybody may have sent, and checks who has signed it.
func open(id *trust.Identity, b []byte) (*Signed, error) {
	if len(b) > MaxRecord {
		return nil, fmt.Errorf("read freeze: %d bytes, the limit is %d", len(b), MaxRecord)
	}
	var w wire
	if err := cbor.Unmarshal(b, &w); err != nil {
		return nil, fmt.Errorf("read freeze: %w", err)
	}
	s := &Signed{body: w.Body, cert: w.Cert, sig: w.Sig}
	if !bytes.Equal(s.encode(), b) {
		return nil, errors.New("read freeze: not in its one form")
	}
	if err := cbor.Unmarshal(w.Body, &s.Record); err != nil {
		return nil, fmt.Errorf("read freeze: %w", err)
	}
	r := s.Record
	if r.Epoch == 0 || r.Epoch >= maxEpoch || !slices.IsSorted(r.Apps) || slices.Contains(r.Apps, "") {
		return nil, errors.New("read freeze: it cannot have come about")
	}
	if r.Thaw {
		if len(r.Apps) > 0 || r.Hard || len(w.Cert) > 0 {
			return nil, errors.New("read thaw: it cannot have come about")
		}
		return s, id.CheckSealed(purpose, w.Body, w.Sig)
	}
	peer, key, err := id.CheckSigned(purpose, w.Body, w.Sig, w.Cert)
	if err != nil {
		return nil, err
	}
	if peer.Host != r.By {
		return nil, fmt.Errorf("read freeze: by %s, signed by %s", r.By, peer.Host)
	}
	s.key = key
	return s, nil
}
