// Package systemd runs copies as transient units of systemd, the driver for
// hosts where systemd is PID 1. PID 1 restarts a copy that exits even while no
// agent runs; the agent finds its units again by their names.
//
// See DESIGN.md beside this file for who owns which state.
package systemd
