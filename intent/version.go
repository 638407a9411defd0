package intent

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
)

// Version is the first 12 hex digits of a hash over what a running copy
// embodies: its process, ports, resources and checks, with defaults filled. Two
// apps with equal versions can take over each other's copies as they are.
// Count, place, update, restart, stop, disconnect and reflexes are left out: to
// change them restarts nothing.
//
// The app must be valid.
func (a App) Version() string {
	a = a.WithDefaults()
	// JSON orders the keys of maps and the fields of structs, so that equal apps
	// have equal bytes. A valid app always marshals.
	data, _ := json.Marshal(struct {
		Run       Run             `json:"run"`
		Ports     map[string]Port `json:"ports,omitempty"`
		Resources Resources       `json:"resources,omitzero"`
		Checks    []Check         `json:"checks,omitempty"`
	}{a.Run, a.Ports, a.Resources, a.Checks})
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:6])
}
