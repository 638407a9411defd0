//go:build linux

package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
)

// hostPorts are the ports of one host of a localMesh. first to last are its
// copies'.
type hostPorts struct {
	gossip, mesh, nats, cluster int
	first, last                 int
}

func (p hostPorts) agents() []int { return []int{p.gossip, p.mesh, p.nats, p.cluster} }

// Where the ports of a localMesh are taken from: below those that the kernel
// gives to outgoing connections, one of which could sit on the port of an agent
// that was killed and comes back.
const (
	agentPortMin, agentPortMax = 11000, 19500
	copyPortMin, copyPortMax   = 20000, 29999
	copyPortsEach              = 200
)

// choosePorts finds free ports for n hosts, at random, so that two meshes on
// one machine hardly meet.
func choosePorts(n int) ([]hostPorts, error) {
	out := make([]hostPorts, n)
	next := agentPortMin + rand.IntN(agentPortMax-agentPortMin-100*n)
	first := copyPortMin + rand.IntN(copyPortMax-copyPortMin-n*copyPortsEach)
	for i := range out {
		for _, p := range []*int{&out[i].gossip, &out[i].mesh, &out[i].nats, &out[i].cluster} {
			for !portFree(next) {
				if next++; next > agentPortMax {
					return nil, errors.New("find free ports: there are none")
				}
			}
			*p = next
			next++
		}
		out[i].first = first + i*copyPortsEach
		out[i].last = out[i].first + copyPortsEach - 1
	}
	return out, nil
}

// portFree tells whether a port of the loopback can be listened on, by TCP and
// UDP.
func portFree(port int) bool {
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return false
	}
	defer l.Close()
	u, err := net.ListenPacket("udp", addr)
	if err != nil {
		return false
	}
	u.Close()
	return true
}
