package brake

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ganglion-mesh/ganglion/trust"
)

const (
	// lookEvery is how often the file that asks for a freeze is looked for where
	// nobody tells that it is there.
	lookEvery = 500 * time.Millisecond
	// maxWaiting bounds records that wait to be checked; those that find no room
	// come again.
	maxWaiting = 64
	// maxAsk bounds the file that asks for a freeze.
	maxAsk = 64 << 10
)

// Config of a Keeper. Logger may be nil.
type Config struct {
	Identity *trust.Identity
	// Load returns what Save saved last, nothing at first. Save returns once it
	// would survive a loss of power.
	Load func() ([][]byte, error)
	Save func([][]byte) error
	// File asks for a freeze by being there: for hands that have nothing else left.
	// It is taken and removed. Empty: there is none.
	File string
	// Watch calls there whenever File may have come to be, until ctx ends. There does
	// not block. Where Watch is nil or fails, File is looked for twice a second.
	Watch func(ctx context.Context, there func()) error
	// Revoked tells of a host's public key whether the host was removed.
	Revoked func(key []byte) bool
	// Spread is told all that is known, after each change and once at the start. It
	// must not block.
	Spread func(records [][]byte)
	// Told is told of each change, in order, from one goroutine at a time.
	Told   func(before, after *View)
	Logger *slog.Logger
}

func (c *Config) validate() error {
	if c.Identity == nil || c.Load == nil || c.Save == nil || c.Revoked == nil || c.Spread == nil || c.Told == nil {
		return errors.New("configure brake: something is missing")
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

// Keeper keeps this host's view of the freeze: nothing is shown that is not on
// disk. Its methods may be called from any goroutine, before, during and after
// Run.
type Keeper struct {
	cfg   Config
	inbox chan []byte
	view  atomic.Pointer[View]

	mu      sync.Mutex // held while a change is made durable and told
	set     set
	changed chan struct{}
}

// New loads what was known, and takes the file if it is there: so a host that
// comes up frozen does nothing first.
func New(cfg Config) (*Keeper, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	k := &Keeper{cfg: cfg, inbox: make(chan []byte, maxWaiting), changed: make(chan struct{})}
	records, err := cfg.Load()
	if err != nil {
		return nil, err
	}
	for _, b := range records {
		r, err := open(cfg.Identity, b)
		if err != nil {
			return nil, fmt.Errorf("load freeze: %w; remove its file if it is damaged, and freeze again if need be", err)
		}
		k.set, _ = k.set.with(r)
	}
	k.view.Store(k.set.view())
	return k, k.look()
}

// View is what is frozen now. It waits for nothing.
func (k *Keeper) View() *View { return k.view.Load() }

// Changed returns a channel that is closed at the next change. Take it, then
// look, then wait.
func (k *Keeper) Changed() <-chan struct{} {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.changed
}

// Freeze freezes apps, or with none everything, from now on. When it returns the
// freeze is on disk and shown; the others hear of it within a second or so. What
// was frozen before stays frozen.
func (k *Keeper) Freeze(apps []string, hard bool) (*View, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	r, err := sign(k.cfg.Identity, k.set.next(apps, hard))
	if err != nil {
		return nil, fmt.Errorf("freeze: %w", err)
	}
	if err := k.take(r); err != nil {
		return nil, fmt.Errorf("freeze: %w", err)
	}
	return k.view.Load(), nil
}

// Epoch is the highest that is known, of freezes and thaws: a thaw of all of them
// has to be higher.
func (k *Keeper) Epoch() uint64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.set.epoch()
}

// Records are all that is known, for others to Merge.
func (k *Keeper) Records() [][]byte {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.set.encode()
}

// Digest is the same on hosts that know the same.
func (k *Keeper) Digest() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.set.digest()
}

// digest leaves signatures out: two leaders may have sealed one thaw.
func (s set) digest() string {
	sum := sha256.New()
	for _, r := range s.all() {
		sum.Write(r.body)
	}
	return hex.EncodeToString(sum.Sum(nil)[:8])
}

func (s set) encode() [][]byte {
	var out [][]byte
	for _, r := range s.all() {
		out = append(out, r.encode())
	}
	return out
}

// Merge takes in what another host knows. What is wrong with a record is no
// reason not to take the others.
func (k *Keeper) Merge(records [][]byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	var errs []error
	for _, b := range records {
		errs = append(errs, k.merge(b))
	}
	return errors.Join(errs...)
}

func (k *Keeper) merge(b []byte) error {
	if slices.ContainsFunc(k.set.all(), func(r *Signed) bool { return string(r.encode()) == string(b) }) {
		return nil // most are known: a signature is dear to check
	}
	r, err := open(k.cfg.Identity, b)
	if err != nil {
		return err
	}
	if !r.Record.Thaw && k.cfg.Revoked(r.key) {
		return fmt.Errorf("freeze by %s: that host was removed", r.Record.By)
	}
	return k.take(r)
}

// take makes r known: on disk, then shown, then told. It is called with mu held.
func (k *Keeper) take(r *Signed) error {
	next, news := k.set.with(r)
	if !news {
		return nil
	}
	if err := k.cfg.Save(next.encode()); err != nil {
		return err
	}
	before, after := k.view.Load(), next.view()
	k.set = next
	k.view.Store(after)
	close(k.changed)
	k.changed = make(chan struct{})
	k.cfg.Spread(next.encode())
	k.cfg.Told(before, after)
	return nil
}

// Hear takes in a record that came by gossip, later. It never blocks.
func (k *Keeper) Hear(record []byte) {
	select {
	case k.inbox <- slices.Clone(record):
	default:
	}
}

// Run takes in what was heard, and the file, until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	k.cfg.Spread(k.Records())
	there := make(chan struct{}, 1)
	var watching sync.WaitGroup
	defer watching.Wait()
	watching.Go(func() {
		k.await(ctx, func() {
			select {
			case there <- struct{}{}:
			default:
			}
		})
	})
	for {
		select {
		case <-ctx.Done():
			return nil
		case b := <-k.inbox:
			if err := k.Merge([][]byte{b}); err != nil {
				k.cfg.Logger.Debug("freeze not taken", "error", err)
			}
		case <-there:
			if err := k.look(); err != nil {
				k.cfg.Logger.Error("asked to freeze by a file", "file", k.cfg.File, "error", err)
			}
		}
	}
}

// await calls there whenever the file that asks for a freeze may be there, until
// ctx ends.
func (k *Keeper) await(ctx context.Context, there func()) {
	if k.cfg.File == "" {
		return
	}
	if k.cfg.Watch != nil {
		err := k.cfg.Watch(ctx, there)
		if ctx.Err() != nil {
			return
		}
		k.cfg.Logger.Warn("the file that asks for a freeze cannot be watched: it is looked for instead", "file", k.cfg.File, "every", lookEvery, "error", err)
	}
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for {
		select {
		case <-look.C:
			there()
		case <-ctx.Done():
			return
		}
	}
}

// look freezes if the file is there, and removes it then. A line of it may be
// "--hard", or the name of an app; what cannot be read freezes everything.
func (k *Keeper) look() error {
	if k.cfg.File == "" {
		return nil
	}
	info, err := os.Lstat(k.cfg.File)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var text []byte
	if err == nil && info.Mode().IsRegular() && info.Size() <= maxAsk {
		text, _ = os.ReadFile(k.cfg.File)
	}
	apps := strings.Fields(string(text))
	hard := slices.Contains(apps, "--hard")
	apps = slices.DeleteFunc(apps, func(s string) bool { return s == "--hard" })
	if _, err := k.Freeze(apps, hard); err != nil {
		return err
	}
	k.cfg.Logger.Warn("frozen by a file", "file", k.cfg.File, "hard", hard, "apps", apps)
	return os.Remove(k.cfg.File)
}
