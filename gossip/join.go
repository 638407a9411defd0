package gossip

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/ganglion-mesh/ganglion/pause"
)

const (
	retryFirst    = 500 * time.Millisecond
	resolveMax    = 5 * time.Second
	maxAsked      = 8 // hosts asked in one attempt, until one answers
	settleAfter   = time.Second
	strangerAfter = 30 * time.Second // a seed that is no member is asked this often, and up to twice as late
)

// tend brings this host into the mesh and keeps it there. Alone, it asks seeds
// and known peers for ever. In company, it now and then asks a seed that is no
// member, so that two meshes of one id that never met still become one; hosts
// that failed are asked again by serf itself. And whenever a host fails it
// compares notes with others, who may know better: this one may have missed that
// the host left, or serf took the word for old, as it does when an exchange in the
// middle of the leave was faster (hashicorp/serf#663).
func (p *Pool) tend(ctx context.Context, known []netip.AddrPort) {
	attempt := 0
	for ctx.Err() == nil {
		if p.alone() {
			if !p.join(ctx, p.candidates(ctx, known)) {
				attempt++
				pause.For(ctx, fullJitter(attempt, p.cfg.Timing.JoinRetryMax))
				continue
			}
			p.settle(ctx)
		}
		attempt = 0
		timer := time.NewTimer(strangerAfter + rand.N(strangerAfter))
		why := p.company(ctx, timer.C)
		for why == hostFailed {
			p.settle(ctx)
			why = p.company(ctx, timer.C)
		}
		timer.Stop()
		if why != timeIsUp {
			continue
		}
		if strangers := p.candidates(ctx, nil); len(strangers) > 0 {
			p.join(ctx, strangers[:1])
		}
	}
}

// settle asks two more members, a little later. Gossip passes a news on a few
// times and now and then leaves a host out; hosts that join together, while the
// news of each other is on its way, would otherwise wait for the next regular
// exchange to be complete.
func (p *Pool) settle(ctx context.Context) {
	for range 2 {
		pause.For(ctx, settleAfter+rand.N(settleAfter))
		var others []netip.AddrPort
		for _, m := range p.Members() {
			if ip, err := netip.ParseAddr(m.Addr); err == nil && m.Status == StatusAlive && m.Name != p.cfg.Name {
				others = append(others, netip.AddrPortFrom(ip, uint16(m.Port)))
			}
		}
		if len(others) > 0 {
			i := rand.N(len(others))
			p.join(ctx, others[i:i+1])
		}
	}
}

// parting is why company ended its wait.
type parting int

const (
	timeIsUp   parting = iota
	leftAlone          // or the end of ctx
	hostFailed         // a member was failed since the last wait began
)

// company waits until this host is alone, until a member fails, or for timer.
func (p *Pool) company(ctx context.Context, timer <-chan time.Time) parting {
	for {
		changed := p.Changed()
		if p.alone() {
			return leftAlone
		}
		if p.newlyFailed() {
			return hostFailed
		}
		select {
		case <-ctx.Done():
			return leftAlone
		case <-timer:
			return timeIsUp
		case <-changed:
		}
	}
}

// newlyFailed says whether a member has failed since it was asked last. Only tend
// asks.
func (p *Pool) newlyFailed() bool {
	before := p.mourned
	for _, m := range p.Members() {
		if m.Status == StatusFailed && m.Since.After(p.mourned) {
			p.mourned = m.Since
		}
	}
	return p.mourned.After(before)
}

// fullJitter waits anything from nothing to twice as long as the time before: a
// thousand hosts whose seed returns do not return together.
func fullJitter(attempt int, most time.Duration) time.Duration {
	upper := retryFirst << min(attempt, 16)
	return rand.N(min(upper, most)) + 1
}

// join asks hosts one after the other until one answers. When it succeeds, this
// host has every member and everyone's vitals.
func (p *Pool) join(ctx context.Context, hosts []netip.AddrPort) bool {
	s := p.running()
	if s == nil || len(hosts) == 0 {
		return false
	}
	if p.alone() {
		p.setJoining(true)
		defer p.setJoining(false)
	}
	var problems []error
	for _, h := range hosts[:min(len(hosts), maxAsked)] {
		if ctx.Err() != nil {
			return false
		}
		_, err := s.Join([]string{h.String()}, true)
		p.refresh()
		if err == nil && !p.alone() {
			p.table.announce()
			p.setJoined(nil)
			return true
		}
		problems = append(problems, err)
	}
	if err := joinProblem(errors.Join(problems...)); err != nil && ctx.Err() == nil {
		p.setJoined(err)
		p.cfg.Logger.Info("not joined yet", "err", err)
	}
	return false
}

// candidates are the addresses worth asking, in random order: seeds and known
// peers, less this host and those it already counts among the living.
func (p *Pool) candidates(ctx context.Context, known []netip.AddrPort) []netip.AddrPort {
	all := slices.Clone(known)
	for _, s := range p.cfg.Seeds {
		addrs, err := p.resolve(ctx, s)
		if err != nil {
			p.setJoined(joinProblem(err))
			p.cfg.Logger.Info("seed not found", "seed", s, "err", err)
		}
		all = append(all, addrs...)
	}
	skip := map[netip.AddrPort]bool{p.self: true}
	for _, m := range p.Members() {
		if ip, err := netip.ParseAddr(m.Addr); err == nil && m.Status == StatusAlive {
			skip[netip.AddrPortFrom(ip, uint16(m.Port))] = true
		}
	}
	var out []netip.AddrPort
	for _, a := range all {
		if !skip[a] {
			skip[a] = true
			out = append(out, a)
		}
	}
	rand.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

// resolve looks a seed up anew each time: its address may change.
func (p *Pool) resolve(ctx context.Context, seed string) ([]netip.AddrPort, error) {
	host, port, err := splitSeed(seed, DefaultPort)
	if err != nil {
		return nil, err
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return []netip.AddrPort{netip.AddrPortFrom(ip.Unmap(), port)}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, resolveMax)
	defer cancel()
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	var out []netip.AddrPort
	for _, ip := range ips {
		out = append(out, netip.AddrPortFrom(ip.Unmap(), port))
	}
	return out, err
}
