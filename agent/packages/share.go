package packages

import (
	"cmp"
	"hash/fnv"
	"slices"

	"github.com/ganglion-mesh/ganglion/workload/artifact"
)

// Holders is how many voters have each package that an app names, besides the
// hosts that run it.
const Holders = 2

// Share orders hosts by how much a package is theirs to hold: everybody who
// knows the same hosts comes to the same order, packages spread over all, and a
// host that comes or goes changes it for few.
func Share(d artifact.Digest, hosts []string) []string {
	weight := map[string]uint64{}
	for _, h := range hosts {
		f := fnv.New64a()
		f.Write([]byte(string(d) + "\x00" + h)) //nolint:errcheck // a hash takes everything
		weight[h] = mix(f.Sum64())
	}
	out := slices.Clone(hosts)
	slices.SortFunc(out, func(a, b string) int {
		return cmp.Or(cmp.Compare(weight[b], weight[a]), cmp.Compare(a, b))
	})
	return out
}

// mix spreads what FNV leaves alike in names that differ at the end only.
func mix(x uint64) uint64 {
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	return x
}
