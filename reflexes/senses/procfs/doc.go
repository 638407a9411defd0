// Package procfs reads what the kernel says in text: parsers over bytes that
// allocate nothing, and File, which reads one kernel file again and again.
//
// The parsers are pure and safe for concurrent use. They take whatever bytes
// they are given: text that is not what they expect is an error or an absent
// value, never a panic and never a value made up.
package procfs
