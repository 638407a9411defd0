package events

import (
	"encoding/binary"
	"hash/fnv"

	"github.com/oklog/ulid/v2"
)

// DecisionID is the ID of the event that tells the nth thing that a command of a
// mesh's log decided. It depends on nothing but these, so that whoever tells it,
// and however often, it is one event. atMS is when the command was proposed, in
// Unix milliseconds; index is the command's in the log of that mesh and era.
func DecisionID(atMS int64, mesh string, era, index uint64, nth int) string {
	sum := fnv.New32a()
	sum.Write([]byte(mesh)) // never fails
	sum.Write(binary.BigEndian.AppendUint64(nil, era))
	entropy := binary.BigEndian.AppendUint64(nil, index)[2:] // 48 bits of it
	entropy = binary.BigEndian.AppendUint16(entropy, uint16(nth))
	entropy = append(entropy, sum.Sum(nil)[:2]...)
	var id ulid.ULID
	_ = id.SetTime(min(uint64(max(0, atMS)), ulid.MaxTime())) // within bounds
	_ = id.SetEntropy(entropy)                                // ten bytes
	return id.String()
}
