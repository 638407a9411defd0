// Package senses turns what happens on a host into facts: pressure and memory,
// kills for want of memory, links, disks, clocks, and what copies use. It looks
// and reports; what follows is decided elsewhere.
//
// A Set runs those senses whose variables somebody reads, starts again what has
// failed, and holds their facts for one consumer. Probes of checks (NewProbe)
// stand apart: whoever supervises a copy calls them.
//
// The senses read the Linux kernel; on other systems only Set and probes are
// there. See DESIGN.md.
package senses
