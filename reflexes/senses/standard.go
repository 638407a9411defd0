package senses

import "log/slog"

// StandardConfig configures the senses that every host has.
type StandardConfig struct {
	// Now is the boot clock; required.
	Now Clock
	// Copies that run here; required.
	Copies *Copies
	// Logger; default: discard.
	Logger *slog.Logger
}
