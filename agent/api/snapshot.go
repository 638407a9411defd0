package api

import "github.com/ganglion-mesh/ganglion/consensus/topology"

// MaxRestore is how many bytes the body of a RestoreRequest may have.
const MaxRestore = 64 << 20

// Snapshot is the answer of GET /v1/snapshot: the mesh at one instant, without
// its keys and tokens.
type Snapshot struct {
	Data []byte `json:"data"` // as topology.ReadBackup reads it
}

// Keys is the answer of GET /v1/snapshot/keys, which voters alone have and give
// to local root and to operators: who has them can make hosts of the mesh.
type Keys struct {
	Keys topology.Trust `json:"keys"`
}

// RestoreRequest is the body of POST /v1/restore. With Check nothing is
// committed: the answer tells what would be.
type RestoreRequest struct {
	Restore topology.Restore `json:"restore"`
	Check   bool             `json:"check,omitempty"`
}
