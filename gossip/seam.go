package gossip

import "github.com/hashicorp/memberlist"

// Transport is what a Pool may run over instead of UDP and TCP, so that those
// who embed one need not name the library. It is a test seam.
type Transport = memberlist.NodeAwareTransport
