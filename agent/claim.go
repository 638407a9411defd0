package agent

import (
	"context"
	"errors"
	"sync"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/trust"
)

// errClaimed answers a second request to make this host a member. The first one
// has an identity on disk, which nothing may replace.
var errClaimed = api.Errorf(api.CodeRejected, "this host is being made a member of a mesh already; look with ganglion mesh")

// claim sees to it that a host becomes a member once in the life of its agent,
// however many ways to a mesh are tried at once.
type claim struct {
	mu    sync.Mutex
	taken bool
}

// make calls keep unless the host has an identity. If keep fails the host may be
// claimed again.
func (c *claim) make(keep func() error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.taken {
		return errClaimed
	}
	err := keep()
	c.taken = err == nil
	return err
}

// found makes a new mesh. What must still be committed is on disk before the
// identity is, so that a crash in between is made good at the next start. done,
// if not nil, is told whether the host could become a member.
func (a *Agent) found(name string, done chan error) (*trust.Identity, error) {
	id, founding, err := found(name, a.cfg.Name)
	if err != nil {
		return nil, err
	}
	return id, a.claim.make(func() error {
		if err := a.store.save(fileFounding, founding); err != nil {
			return err
		}
		return a.admitAs(admission{id: id, founding: founding, done: done})
	})
}

// join enrols this host through one of the seeds and keeps what it won. The key
// it enrols with is on disk first: a join that was cut short is repeated with
// the same one, by which the mesh knows the host again.
func (a *Agent) join(ctx context.Context, seeds []string, token string, done chan error) (*trust.Identity, error) {
	key, err := a.joinKey()
	if err != nil {
		return nil, err
	}
	id, peers, err := enrol(ctx, &a.cfg, key, seeds, token)
	if err != nil {
		return nil, err
	}
	return id, a.claim.make(func() error {
		if err := a.store.save(filePeers, peers); err != nil {
			return err
		}
		if err := a.store.remove(fileFounding); err != nil { // of a found that was cut short
			return err
		}
		return a.admitAs(admission{id: id, done: done})
	})
}

// admitAs keeps an identity and hands it to the agent's life. It is called under
// the claim, so that the one place in admit is free.
func (a *Agent) admitAs(adm admission) error {
	if err := trust.SaveIdentity(a.store.path(dirIdentity), adm.id); err != nil {
		return err
	}
	a.admit <- adm
	return a.store.remove(fileJoinKey) // it is part of the identity now
}

// joinKey returns the key of this host's joins, made at the first of them.
func (a *Agent) joinKey() (joinKey, error) {
	a.claim.mu.Lock()
	defer a.claim.mu.Unlock()
	var k joinKey
	if a.claim.taken {
		return k, errClaimed
	}
	if err := a.store.load(fileJoinKey, &k); err != nil || len(k.Key) > 0 {
		return k, err
	}
	k, err := newJoinKey(a.cfg.Name)
	if err != nil {
		return k, err
	}
	return k, a.store.save(fileJoinKey, k)
}

// joinForEver enrols through the configured seeds, retried with jitter until the
// host is a member, by whatever way, or ctx ends.
func (a *Agent) joinForEver(ctx context.Context) {
	var retry backoff
	for {
		token, err := readToken(a.cfg.TokenFile)
		if err == nil {
			_, err = a.join(ctx, a.cfg.Seeds, token, nil)
		}
		if err == nil || errors.Is(err, errClaimed) || ctx.Err() != nil {
			return
		}
		a.cfg.Logger.Warn("not joined yet; trying again", "error", err)
		if !retry.wait(ctx) {
			return
		}
	}
}
