package agent

import "sync"

// whenElected calls gone once this host's Raft server learns of a leader that it
// did not know: what was asked of others would else be waited for until their
// connections are found dead. Without a Raft server nothing is called. stop ends
// the watch; it may be called more than once.
func (m *member) whenElected(gone func()) (stop func()) {
	node := m.raft.node()
	if node == nil {
		return func() {}
	}
	known := node.Status().LeaderAddr
	over, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			moved := node.Leadership()
			if now := node.Status().LeaderAddr; now != "" && now != known {
				gone()
				return
			}
			select {
			case <-moved:
			case <-over:
				return
			}
		}
	}()
	return sync.OnceFunc(func() { close(over); <-ended })
}
