//go:build !linux

package senses

// Standard returns the senses that every host has: on systems other than Linux
// none.
func Standard(StandardConfig) ([]Sense, error) { return nil, nil }
