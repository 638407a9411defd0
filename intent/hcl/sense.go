package hcl

import "github.com/ganglion-mesh/ganglion/intent"

// decodeSense reads a sense block.
func decodeSense(b top) intent.Sense {
	b.read(b.body, []string{"command", "every", "timeout", "user", "files", "events"}, nil)
	s := intent.Sense{Name: b.name}
	b.strings("command", &s.Command)
	b.span("every", &s.Every)
	b.span("timeout", &s.Timeout)
	b.str("user", &s.User)
	b.strings("files", &s.Files)
	b.strings("events", &s.Events)
	return s
}
