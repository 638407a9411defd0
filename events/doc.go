// Package events tells the story of a mesh: typed CloudEvents, a recorder
// that keeps them on the host's own disk, and NATS, which carries them to
// anyone who listens.
//
// The order of trust is fixed. An event is first a record in the [Recorder]:
// one plain write, so that it survives kill -9, and an fsync within 100 ms.
// Only then does the [Publisher] send it, from the disk, again and again until
// a server has confirmed it. NATS may be down, slow or absent: the story is
// then late, never wrong, and nothing that acts on a workload waits for it.
//
// [Server] embeds a core nats-server for hosts that are voters. EVENTS.md
// lists every event with its subject and fields; DESIGN.md says why the
// package is as it is.
package events
