package consensus

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/hashicorp/raft"
)

// Limits and defaults of Config.
const (
	defaultHeartbeat  = 2 * time.Second
	defaultStuck      = 10 * time.Second
	defaultStability  = 10 * time.Second
	defaultLowSpace   = 64 << 20
	defaultReserve    = 16 << 20
	maxTiming         = 10
	snapshotsRetained = 2
	trailingLogs      = 10240
	commitTimeout     = 500 * time.Millisecond
	beatEvery         = 500 * time.Millisecond
	logCacheEntries   = 16 // what repeats to followers look up; few, for an entry may be large
	ioTimeout         = 10 * time.Second
	connectionsPooled = 3
)

// StreamLayer carries Raft between servers: the caller accepts and dials
// connections that are already authenticated as servers of the same mesh. The
// node closes it.
type StreamLayer interface {
	net.Listener
	Dial(addr string, timeout time.Duration) (net.Conn, error)
}

// Store holds the log and Raft's few durable values. It is a seam for tests;
// the node's own is a file.
type Store interface {
	raft.LogStore
	raft.StableStore
	Close() error
}

// Config is what a Node needs. Dir and Addr are required, and one of Streams
// and Transport.
type Config struct {
	Dir       string         // all files of this server; made if missing
	Addr      string         // host:port by which other servers reach this one
	Streams   StreamLayer    // the way to other servers
	Transport raft.Transport // in place of Streams, in tests
	Store     Store          // in place of a file, in tests
	Logger    *slog.Logger   // discards if nil

	// Resolve gives the present address of a server, if it is known better than
	// the Raft configuration knows it. May be nil; called from many goroutines;
	// must not block.
	Resolve func(serverID string) (addr string, ok bool)

	Timing         int           // multiplies Raft's timeouts, 1 to 10; default 1, for a LAN
	HeartbeatEvery time.Duration // how often a leader proves that its log commits; default 2 s
	StuckAfter     time.Duration // how long that proof may take before Run gives up; default 10 s
	Stability      time.Duration // how long a server must be lost or steady before it is replaced or replaces; default 10 s
	LowSpace       int64         // bytes free below which this server gives leadership away; default 64 MiB, negative: never
	Reserve        int64         // bytes kept in a file to be given up when the disk is full; default 16 MiB, negative: none
}

func (c *Config) validate() error {
	var errs []error
	if c.Dir == "" {
		errs = append(errs, errors.New("dir is missing"))
	}
	if _, _, err := net.SplitHostPort(c.Addr); err != nil {
		errs = append(errs, fmt.Errorf("addr %q is not host:port", c.Addr))
	}
	if (c.Streams == nil) == (c.Transport == nil) {
		errs = append(errs, errors.New("exactly one of streams and transport is needed"))
	}
	if c.Timing < 0 || c.Timing > maxTiming {
		errs = append(errs, fmt.Errorf("timing %d is not between 1 and %d", c.Timing, maxTiming))
	}
	if c.HeartbeatEvery < 0 || c.StuckAfter < 0 || c.Stability < 0 {
		errs = append(errs, errors.New("a duration is negative"))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("configure consensus: %w", err)
	}
	c.defaults()
	return nil
}

func (c *Config) defaults() {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Timing == 0 {
		c.Timing = 1
	}
	if c.HeartbeatEvery == 0 {
		c.HeartbeatEvery = defaultHeartbeat
	}
	if c.StuckAfter == 0 {
		c.StuckAfter = defaultStuck
	}
	if c.Stability == 0 {
		c.Stability = defaultStability
	}
	if c.LowSpace == 0 {
		c.LowSpace = defaultLowSpace
	}
	if c.Reserve == 0 {
		c.Reserve = defaultReserve
	}
}

// beat is how often a follower hears from its leader: often enough that
// one may come late by half a timeout.
func (c *Config) beat() time.Duration { return beatEvery * time.Duration(c.Timing) }

// raftConfig is Raft's own configuration. Pre-vote is on by default; a removed
// server stays up and says so in Status.
func (c *Config) raftConfig(id string) *raft.Config {
	rc := raft.DefaultConfig()
	rc.LocalID = raft.ServerID(id)
	rc.HeartbeatTimeout *= time.Duration(c.Timing)
	rc.ElectionTimeout *= time.Duration(c.Timing)
	rc.LeaderLeaseTimeout = rc.HeartbeatTimeout // of beats that are paced; see link.pace
	// How soon followers hear of a commit when nothing follows it. The default of
	// 50 ms costs an idle leader more than all else together, and who cannot wait
	// asks the leader.
	rc.CommitTimeout = commitTimeout
	rc.TrailingLogs = trailingLogs
	rc.ShutdownOnRemove = false
	rc.NoLegacyTelemetry = true
	rc.Logger = newRaftLogger(c.Logger)
	return rc
}
