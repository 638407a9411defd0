package senses

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/ganglion-mesh/ganglion/reflexes"
	"github.com/ganglion-mesh/ganglion/reflexes/senses/procfs"
)

// OOMConfig configures the sense of kills for want of memory.
type OOMConfig struct {
	CopiesConfig
	// Log is the kernel's. Default: /dev/kmsg.
	Log string
	// Logger; default: discard.
	Logger *slog.Logger
}

// OOM tells of processes that the kernel killed for want of memory. Of a copy
// with a memory group of its own the kernel itself tells, by inotify (version 2)
// or an eventfd (version 1), and counts. Of the others, and of the host, the
// kernel's log does; where that may not be read, the host's counter is looked at.
type OOM struct {
	cfg OOMConfig

	// What one run leaves to the next.
	next     uint64                // message of the log
	copies   map[string]*copyKills // by copy
	host     int64                 // kills since the sense first ran
	hostLast int64                 // what the kernel last counted; -1 before it was asked
}

// copyKills counts what was killed of one copy since it was first looked at,
// while the copy's groups come and go.
type copyKills struct {
	kills int64
	noted int64  // how many of them Copies has heard of
	group uint64 // whose counter was read last; 0 if none was
	last  int64  // what it said
}

// read takes in what the counter of a group says.
func (k *copyKills) read(group uint64, n int64) (rose bool) {
	before := k.kills
	switch {
	case k.group == group:
		k.kills += max(0, n-k.last)
	case k.group != 0: // one that was made since: all of it is new
		k.kills += n
	}
	k.group, k.last = group, n
	return k.kills > before
}

// NewOOM returns the sense of kills for want of memory.
func NewOOM(cfg OOMConfig) (*OOM, error) {
	cfg.Log = defaulted(cfg.Log, "/dev/kmsg")
	cfg.Logger = loggerOr(cfg.Logger)
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("set up the sense of kills for want of memory: %w", err)
	}
	return &OOM{cfg: cfg, copies: map[string]*copyKills{}, hostLast: -1}, nil
}

// Name implements Sense.
func (o *OOM) Name() string { return "oom" }

// Vars implements Sense.
func (o *OOM) Vars() []reflexes.VarID {
	return []reflexes.VarID{reflexes.OOMCount, reflexes.HostOOMCount}
}

// Run implements Sense.
func (o *OOM) Run(ctx context.Context, emit Emit) error {
	r := &oomRun{o: o, emit: emit, news: newOOMNews(), victims: map[int]string{}, told: map[string]bool{}}
	var err error
	if r.watch, err = newOOMWatch(r.news); err != nil {
		return err
	}
	defer r.watch.close()
	if r.track, err = newTracker(o.cfg.CopiesConfig, r.watch.open, nil); err != nil {
		return err
	}
	defer r.track.close()
	r.news.where = func(pid int) string {
		dirs, _ := r.track.finder.find(pid)
		return dirs.v2
	}
	log, err := openKmsg(o.cfg.Log, o.next)
	if err != nil {
		o.cfg.Logger.Warn("the kernel's log cannot be read: kills for want of memory are known of copies with a memory group of their own alone", "error", err)
		return r.loop(ctx)
	}
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(ctx)
	defer func() {
		cancel()
		log.close()
		wg.Wait()
		o.next = log.next
	}()
	wg.Go(func() { r.news.fail(log.follow(ctx, r.news.message, r.news.lost)) })
	return r.loop(ctx)
}

// oomRun is one run of the sense: all its state belongs to loop.
type oomRun struct {
	o        *OOM
	emit     Emit
	news     *oomNews
	watch    *oomWatch
	track    *tracker[*oomCounter]
	victims  map[int]string  // by pid, the groups of those that the log said will be killed
	told     map[string]bool // copies of which a count was told
	toldHost bool
}

// The kernel tells of a lack of memory a moment before it counts the kill: so
// long is looked, so often. In version 1 it tells of nothing but kills, most of
// which it counts at once.
const (
	lateKill     = 250 * time.Millisecond
	lateKillStep = 2 * time.Millisecond
	soonKill     = 10 * time.Millisecond
	soonKillStep = 250 * time.Microsecond
)

func (r *oomRun) loop(ctx context.Context) error {
	again := time.NewTicker(lookAgain)
	defer again.Stop()
	for all := true; ; {
		news, err := r.news.take()
		if err != nil {
			return fmt.Errorf("read the kernel's log: %w", err)
		}
		r.track.facts = r.track.facts[:0]
		for _, v := range news.victims {
			r.killed(v)
		}
		soon := r.counters(all, news) // before a group is let go
		if len(r.track.facts) > 0 {   // somebody is in a hurry, and what follows takes its time
			r.emit(r.track.facts)
			r.track.facts = r.track.facts[:0]
		}
		r.track.refresh()
		r.began()
		if all || len(news.victims) > 0 || news.missed {
			r.host()
		}
		r.emit(r.track.facts)
		if soon > 0 {
			if err := r.watch.alarm.set(soon); err != nil {
				return err
			}
		}
		all = false
		select {
		case <-ctx.Done():
			return nil
		case <-r.track.changed:
		case <-r.news.wake:
		case <-again.C:
			all = true
		}
	}
}

// counters reads the counters of those groups that have said something, or of
// all, and tells of what has risen. If a group has said that memory lacks and nothing
// was killed for it yet, it returns when to look again.
func (r *oomRun) counters(all bool, news oomBatch) (soon time.Duration) {
	now := r.o.cfg.Now()
	for _, c := range r.track.copies {
		f := c.files
		if f == nil {
			continue
		}
		if news.rings[f] || f.watch != 0 && news.watches[f.watch] {
			f.rang = now
		}
		waits := now-f.rang < lateKill
		if !all && !waits {
			continue
		}
		rose, err := r.read(c)
		if err != nil { // the group is gone, perhaps before its last kill was read
			if r.unread(c) {
				r.tell(c.copy.ID, now)
			}
			r.track.drop(c)
			continue
		}
		if rose { // it is what it rang for
			f.rang, waits = now-lateKill, false
			r.tell(c.copy.ID, now)
		}
		if waits && (soon == 0 || f.step(now) < soon) {
			soon = f.step(now)
		}
	}
	return soon
}

func (r *oomRun) read(c *trackedCopy[*oomCounter]) (rose bool, err error) {
	n, err := c.files.read()
	if err != nil {
		return false, err
	}
	k := r.of(c.copy.ID)
	before := k.kills
	rose = k.read(c.files.group, n)
	c.files.counted += k.kills - before
	return rose, nil
}

// unread adds those kills of a group that the log told of and that its counter
// cannot tell of any more.
func (r *oomRun) unread(c *trackedCopy[*oomCounter]) (rose bool) {
	rest := max(0, c.files.logged-c.files.counted)
	r.of(c.copy.ID).kills += rest
	return rest > 0
}

// began tells of copies that are looked at from now on, and of those that are
// not any more. That a copy's process has ended is no reason to forget.
func (r *oomRun) began() {
	for id := range r.told {
		if r.track.copies[id] == nil {
			r.track.facts = gone(r.track.facts, reflexes.CopyTarget(id), r.o.cfg.Now(), reflexes.OOMCount)
			delete(r.told, id)
			delete(r.o.copies, id)
		}
	}
	for id, c := range r.track.copies {
		if c.copy.PID == 0 {
			continue
		}
		if c.files != nil && !c.files.began {
			c.files.began = true
			if rose, err := r.read(c); err == nil && rose {
				delete(r.told, id)
			}
		}
		if !r.told[id] {
			r.tell(id, r.o.cfg.Now())
		}
	}
}

// of returns the count of a copy.
func (r *oomRun) of(copyID string) *copyKills {
	k := r.o.copies[copyID]
	if k == nil {
		if len(r.o.copies) >= maxFacts { // of copies long gone
			clear(r.o.copies)
		}
		k = &copyKills{}
		r.o.copies[copyID] = k
	}
	return k
}

func (r *oomRun) tell(copyID string, at reflexes.Boot) {
	r.told[copyID] = true
	if r.of(copyID).kills > r.of(copyID).noted {
		r.of(copyID).noted = r.of(copyID).kills
		r.o.cfg.Copies.killed(copyID, at)
	}
	r.track.facts = append(r.track.facts, fact(reflexes.OOMCount, reflexes.CopyTarget(copyID), reflexes.Int(r.of(copyID).kills), at))
}

// killed takes in what the log says of one kill.
func (r *oomRun) killed(k oomVictim) {
	if !k.done {
		if len(r.victims) < maxVictims {
			r.victims[k.pid] = k.v2
		}
		return
	}
	v2, chosen := r.victims[k.pid]
	delete(r.victims, k.pid)
	if !chosen {
		v2 = k.v2
	}
	for id, c := range r.track.copies {
		switch {
		case c.copy.PID != k.pid && (v2 == "" || c.dirs.v2 != v2):
			continue
		case c.files != nil: // its counter tells: it is read now
			if c.files.logged++; c.files.logged > c.files.counted {
				c.files.rang = r.o.cfg.Now()
			}
		default:
			r.of(id).kills++
			r.tell(id, r.o.cfg.Now())
		}
		return
	}
}

// host tells how many were killed on the host since the sense first ran.
func (r *oomRun) host() {
	text, err := os.ReadFile(r.o.cfg.Proc + "/vmstat")
	count, ok := procfs.Field(text, "oom_kill")
	if err != nil || !ok {
		return // Linux says it since 4.13
	}
	n, rose := int64(count), false
	if r.o.hostLast >= 0 && n > r.o.hostLast {
		r.o.host += n - r.o.hostLast
		rose = true
	}
	r.o.hostLast = n
	if rose || !r.toldHost {
		r.toldHost = true
		r.track.facts = append(r.track.facts, hostFact(reflexes.HostOOMCount, reflexes.Int(r.o.host), r.o.cfg.Now()))
	}
}
