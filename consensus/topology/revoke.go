package topology

import "slices"

// MaxRevoked is how many removed hosts are remembered, the latest ones.
const MaxRevoked = 1000

// Revocation says that an identity is no longer of the mesh. The roster alone
// could not tell a host that was removed from one that joined after the state was
// saved that a mesh was restored from: only the first is to clear out.
type Revocation struct {
	ID    string `json:"id"`    // of the host, made at enrolment; it is never enrolled again
	Name  string `json:"name"`  // the host's; another may have it since
	Index uint64 `json:"index"` // at which it was removed
	Left  bool   `json:"left,omitempty"`
	// Unproved says what nobody could look at when the host was removed.
	Unproved []string `json:"unproved,omitempty"`
}

// Revoked returns the revocation of a host id, if it was removed.
func (s *State) Revoked(id string) (Revocation, bool) { return s.revoked.Get([]byte(id)) }

// RevokedName returns the latest revocation of a host of that name.
func (s *State) RevokedName(name string) (latest Revocation, ok bool) {
	for r := range values(s.revoked) {
		if r.Name == name && r.Index > latest.Index {
			latest, ok = r, true
		}
	}
	return latest, ok
}

// Farewell returns the last slice of a host that was removed: nothing is
// assigned, and Gone says why. It is newer than any that the host was given.
func (s *State) Farewell(id string) (Slice, bool) {
	r, ok := s.Revoked(id)
	return Slice{MeshID: s.meshID, Host: r.Name, Era: s.era, Index: r.Index, Drain: DrainDrained, Gone: &r}, ok
}

// revocations returns all revocations by id.
func (s *State) revocations() []Revocation { return slices.Collect(values(s.revoked)) }

func (s *State) revokedIDs() []string {
	var ids []string
	for r := range values(s.revoked) {
		ids = append(ids, r.ID)
	}
	return ids
}

// revoke remembers that a host was removed, and lets every host know.
func (t *txn) revoke(r Revocation) {
	t.revoked = insert(t.revoked, r.ID, r)
	if t.revoked.Len() > MaxRevoked {
		oldest := r
		for o := range values(t.revoked) {
			if o.Index < oldest.Index {
				oldest = o
			}
		}
		t.revoked = remove(t.revoked, oldest.ID)
	}
	for e := range values(t.hosts) {
		t.touched[e.Name] = true
	}
}
