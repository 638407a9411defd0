//go:build linux

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/ganglion-mesh/ganglion/agent"
	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/pause"
)

// probeFile is written and flushed in data_dir before the watchdog is fed.
const probeFile = "watchdog"

// tellSystemd tells systemd, if it started us, when the agent serves, and feeds
// its watchdog while the agent makes progress, until ctx ends. It does not tell
// that the agent stops: who says so and lives on, as one does that has left its
// mesh, is killed half a minute later.
func tellSystemd(ctx context.Context, cfg agent.Config, ready <-chan struct{}) {
	select {
	case <-ctx.Done():
		return
	case <-ready:
	}
	notify(cfg.Logger, daemon.SdNotifyReady)
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil || interval == 0 {
		return
	}
	w := watchdog{
		socket: cmp.Or(cfg.Socket, "/run/ganglion/agent.sock"), dir: cmp.Or(cfg.DataDir, "/var/lib/ganglion"),
		patience: interval / 2,
	}
	for pause.For(ctx, interval/3) {
		if err := w.probe(ctx); err != nil {
			cfg.Logger.Warn("no progress: the watchdog is not fed", "error", err)
			continue
		}
		notify(cfg.Logger, daemon.SdNotifyWatchdog)
	}
}

func notify(log *slog.Logger, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		log.Warn("notify systemd", "state", state, "error", err)
	}
}

// watchdog proves that the agent makes progress: it answers through its own
// socket, so does what looks after its copies, and its disk takes a write. A
// disk that hangs hangs the probe too, and then nothing is fed. What others do
// (a leader, the network) is no part of it: a new agent would find them no better.
type watchdog struct {
	socket, dir string
	patience    time.Duration
}

func (w watchdog) probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, w.patience)
	defer cancel()
	client, err := api.Dial("unix:"+w.socket, nil)
	if err != nil {
		return err
	}
	defer client.CloseIdle()
	var v api.Version
	if err := client.Get(ctx, "/v1/version", nil, &v); err != nil {
		return err
	}
	if v.Mesh != "" { // without one there are no copies to ask for
		if err := client.Get(ctx, "/v1/local/status", nil, new(json.RawMessage)); err != nil {
			return fmt.Errorf("look at copies: %w", err)
		}
	}
	return w.probeDisk()
}

func (w watchdog) probeDisk() error {
	f, err := os.OpenFile(filepath.Join(w.dir, probeFile), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("probe data_dir: %w", err)
	}
	_, err = f.WriteString(time.Now().UTC().Format(time.RFC3339) + "\n")
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("probe data_dir: %w", err)
	}
	return nil
}
