//go:build !linux

package events

import "os"

// reserve does nothing: only Linux hosts run agents.
func reserve(*os.File, int64) error { return nil }
