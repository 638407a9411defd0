package agent

import (
	"cmp"
	"maps"
	"slices"
)

// sortedKeys lists the keys of m in order, so that what is told does not depend
// on chance.
func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
