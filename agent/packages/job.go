package packages

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/ganglion-mesh/ganglion/pause"
	"github.com/ganglion-mesh/ganglion/workload/artifact"
)

// job gets one package here. It ends when it is, or is not wanted any more.
type job struct {
	k      *Keeper
	ref    Ref
	from   string
	cancel context.CancelFunc

	state State // guarded by Keeper.mu
	told  time.Time

	failing time.Time // since when nobody has it right; zero: not so
}

const (
	retryMin = 500 * time.Millisecond
	retryMax = 30 * time.Second
	tellStep = time.Second // between two words on how far it is
)

func (j *job) run(ctx context.Context) {
	defer j.end()
	wait := retryMin
	for ctx.Err() == nil {
		err := j.try(ctx)
		if err == nil || ctx.Err() != nil {
			return
		}
		j.k.log.Warn("get package", "package", j.ref.Digest.Short(), "error", err)
		j.failed(err)
		if errors.As(err, new(*artifact.SpaceError)) {
			j.k.makeSpace()
		}
		pause.For(ctx, wait/2+rand.N(wait))
		wait = min(2*wait, retryMax)
	}
}

// end takes the job off the list, whether it did its work or was cancelled. If it
// is wanted again by now, another one begins.
func (j *job) end() {
	j.k.mu.Lock()
	defer j.k.mu.Unlock()
	delete(j.k.running, j.ref)
	if j.k.have(j.ref) {
		delete(j.k.asked, j.ref)
	}
	j.k.announce()
	j.k.signal()
}

// try fetches and unpacks once.
func (j *job) try(ctx context.Context) error {
	select {
	case j.k.turn <- struct{}{}:
		defer func() { <-j.k.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if j.k.have(j.ref) {
		return nil
	}
	s := j.k.cfg.Store
	if !s.Has(j.ref.Digest) {
		err := j.k.cfg.Fetcher.Fetch(ctx, artifact.Request{
			Digest: j.ref.Digest, Sources: j.k.cfg.Sources(j.from), URL: j.ref.URL, Progress: j.progress,
		})
		if err != nil {
			return err
		}
	}
	if j.ref.Plain == onlyStored {
		return nil
	}
	j.say("unpacking package " + j.ref.Digest.Short())
	if err := j.k.cfg.Admit(ctx, j.ref.Digest); err != nil {
		return err
	}
	_, err := s.Unpack(ctx, j.ref.Digest, j.ref.Plain)
	return err
}

// progress tells how far it is, now and then.
func (j *job) progress(done, size int64, from string) {
	if from != "" {
		from = " from " + from
	}
	j.k.mu.Lock()
	defer j.k.mu.Unlock()
	if time.Since(j.told) < tellStep {
		return
	}
	j.told = time.Now()
	j.set(State{Failed: j.state.Failed, Why: fmt.Sprintf("fetching package %s: %s of %s%s", j.ref.Digest.Short(), artifact.Bytes(done), artifact.Bytes(size), from)})
}

func (j *job) say(why string) {
	j.k.mu.Lock()
	defer j.k.mu.Unlock()
	j.set(State{Failed: j.state.Failed, Why: why})
}

// set is called with Keeper.mu held.
func (j *job) set(st State) {
	if j.state != st {
		j.state = st
		j.k.announce()
	}
}

// failed tells of a failure. That nobody has a package, or nobody has it right,
// may pass: it may be on its way to those who are asked. What this host or the
// network lacks blames no package.
func (j *job) failed(err error) {
	now := time.Now()
	bad := false
	switch {
	case errors.Is(err, artifact.ErrRefused):
		bad = true
	case errors.Is(err, artifact.ErrAbsent), errors.Is(err, artifact.ErrCorrupt):
		if j.failing.IsZero() {
			j.failing = now
		}
		bad = now.Sub(j.failing) >= j.k.cfg.Patience
	default:
		j.failing = time.Time{}
	}
	j.k.mu.Lock()
	defer j.k.mu.Unlock()
	j.set(State{Failed: bad, Stuck: true, Why: err.Error()})
}
