package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/ganglion-mesh/ganglion/workload"
	"github.com/ganglion-mesh/ganglion/workload/output"
	"github.com/ganglion-mesh/ganglion/workload/process"
)

// hostDriver is the driver of this host with what belongs to it.
type hostDriver struct {
	name    string
	driver  workload.Driver
	outputs *output.Store // nil: the driver keeps no output files
	canUser bool          // whether copies can run as other users
	run     func(ctx context.Context) error
}

// openDriver opens the driver that the configuration names; auto is systemd
// where it is PID 1 and lets us, else process.
func openDriver(cfg *Config) (hostDriver, error) {
	if d := cfg.Seams.Driver; d != nil {
		return hostDriver{name: "test", driver: d, canUser: true, run: waitDone}, nil
	}
	root := os.Getuid() == 0
	name := cfg.Driver
	if name == "auto" {
		name = "process"
	}
	if name == "systemd" {
		if !isPID1Systemd() {
			return hostDriver{}, errors.New("open systemd driver: PID 1 of this host is not systemd; set driver to process")
		}
		return hostDriver{}, errors.New("open systemd driver: not in this version yet; set driver to process")
	}
	d, err := process.New(process.Config{Dir: cfg.DataDir, Host: cfg.Name, Logger: cfg.Logger})
	if err != nil {
		return hostDriver{}, fmt.Errorf("open process driver: %w", err)
	}
	return hostDriver{name: name, driver: d, outputs: d.Output(), canUser: root, run: func(ctx context.Context) error {
		return errors.Join(d.Run(ctx), d.Close())
	}}, nil
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
