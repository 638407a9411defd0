package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/ganglion-mesh/ganglion/workload"
	"github.com/ganglion-mesh/ganglion/workload/keeper"
	"github.com/ganglion-mesh/ganglion/workload/output"
	"github.com/ganglion-mesh/ganglion/workload/process"
	"github.com/ganglion-mesh/ganglion/workload/systemd"
)

// hostDriver is the driver of this host with what belongs to it.
type hostDriver struct {
	name    string
	driver  workload.Driver
	outputs *output.Store // nil: the driver keeps no output files
	canUser bool          // whether copies can run as other users
	apps    string        // directory of what copies keep, as <app>/<n>; empty: data_dir/apps
	run     func(ctx context.Context) error
	close   func() error
}

// realDriver is what both drivers of real hosts offer besides running copies.
type realDriver interface {
	workload.Driver
	Run(ctx context.Context) error
	Close() error
	Output() *output.Store
	AppsDir() string
}

// openDriver opens the driver that the configuration names; auto is systemd
// where it is PID 1 and lets us, else process.
func openDriver(cfg *Config) (hostDriver, error) {
	if d := cfg.Seams.Driver; d != nil {
		return hostDriver{name: "test", driver: d, canUser: true, run: waitDone, close: func() error { return nil }}, nil
	}
	root := os.Getuid() == 0
	name := cfg.Driver
	if name == "auto" {
		name = "process"
		if root && isPID1Systemd() {
			name = "systemd"
		}
	}
	var d realDriver
	keep, err := keeperCommand()
	switch {
	case err != nil:
	case name == "systemd":
		d, err = openSystemd(cfg, keep)
	default:
		d, err = process.New(process.Config{Dir: cfg.DataDir, Host: cfg.Name, Keeper: keep, Logger: cfg.Logger})
	}
	if err != nil {
		return hostDriver{}, fmt.Errorf("open %s driver: %w", name, err)
	}
	return hostDriver{name: name, driver: d, outputs: d.Output(), canUser: root, apps: d.AppsDir(), run: d.Run, close: d.Close}, nil
}

// keeperCommand is how this binary is asked to be the keeper of a singleton. By
// the time of a start it may be a younger one, after an upgrade.
func keeperCommand() ([]string, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program, to be the keeper of singletons: %w", err)
	}
	return []string{exe, keeper.Command}, nil
}

func openSystemd(cfg *Config, keep []string) (realDriver, error) {
	if !isPID1Systemd() {
		return nil, errors.New("PID 1 of this host is not systemd; set driver to process")
	}
	return systemd.New(systemd.Config{Dir: cfg.DataDir, Host: cfg.Name, Keeper: keep, Logger: cfg.Logger})
}

func waitDone(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// isPID1Systemd tells whether systemd runs this host, as sd_booted(3) does, and
// is not merely that of an outer namespace.
func isPID1Systemd() bool {
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		return false
	}
	comm, err := os.ReadFile("/proc/1/comm")
	return err == nil && strings.TrimSpace(string(comm)) == "systemd"
}
