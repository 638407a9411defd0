//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"github.com/ganglion-mesh/ganglion/agent"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/intent"
)

func (c *cli) agentCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "agent [--config F]", Short: "Run this host's agent in the foreground (what systemd runs)",
		Long: `Runs the agent of this host until it is told to end. Its copies outlive it.

Every setting is a key of the configuration file (data_dir), a flag
(--data-dir) and an environment variable (GANGLION_DATA_DIR). A flag beats the
environment, which beats the file.`,
		Args: args(cobra.NoArgs),
	}
	cmd.Flags().StringVar(&file, "config", defaultConfig, "configuration file; the default one may be absent")
	for _, s := range settings {
		cmd.Flags().String(s.flag(), "", s.usage)
		if s.kind == kindBool {
			cmd.Flags().Lookup(s.flag()).NoOptDefVal = "true"
		}
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := c.agentConfig(cmd, file)
		if err != nil {
			return usage(err)
		}
		return runAgent(cmd.Context(), cfg)
	}
	return cmd
}

// agentConfig puts the three sources together.
func (c *cli) agentConfig(cmd *cobra.Command, file string) (agent.Config, error) {
	inFile, err := fromFile(file, cmd.Flags().Changed("config"))
	if err != nil {
		return agent.Config{}, err
	}
	inEnv, err := c.fromEnv()
	if err != nil {
		return agent.Config{}, err
	}
	flags := values{}
	for _, s := range settings {
		f := cmd.Flags().Lookup(s.flag())
		if !f.Changed {
			continue
		}
		if flags[s.key], err = s.parseValue(f.Value.String(), "--"+s.flag()); err != nil {
			return agent.Config{}, err
		}
	}
	all := inFile.over(inEnv).over(flags)
	if err := all.check(); err != nil {
		return agent.Config{}, err
	}
	cfg, err := all.config()
	if err == nil {
		cfg.Lease, err = testLease(c.getenv("GANGLION_TEST_LEASE"))
	}
	cfg.Version = version
	cfg.Logger = slog.New(c.logHandler())
	return cfg, err
}

// testLease reads the lease timers of singletons that a test asks for: hold,
// kill and grace, "1s,300ms,2s". They are no setting: all hosts must agree on
// them, and short ones end singletons for nothing on a busy host.
func testLease(text string) (topology.Timers, error) {
	var t topology.Timers
	if text == "" {
		return t, nil
	}
	parts := strings.Split(text, ",")
	if len(parts) != 3 {
		return t, fmt.Errorf("GANGLION_TEST_LEASE = %q: want three durations", text)
	}
	for i, d := range []*time.Duration{&t.Hold, &t.Kill, &t.Grace} {
		var err error
		if *d, err = time.ParseDuration(parts[i]); err != nil {
			return t, fmt.Errorf("GANGLION_TEST_LEASE: %w", err)
		}
	}
	return t, nil
}

// config turns settings into the agent's own form. What is absent is left to
// the agent's defaults.
func (v values) config() (agent.Config, error) {
	cfg := agent.Config{
		Name: v["name"].text, DataDir: v["data_dir"].text, Socket: v["socket"].text,
		Bind: v["bind"].text, Advertise: v["advertise"].text,
		Init: v["init"].on, Seeds: v["seeds"].list, TokenFile: v["token_file"].text,
		Labels: v["labels"].pairs, Voter: v["voter"].text, Driver: v["driver"].text,
		AllowRun: v["allow_run"].on, ReflexUnits: v["reflex_units"].list,
		ReflexAddresses: v["reflex_addresses"].pairs,
	}
	var err error
	if cfg.Ports, err = parsePorts(v["ports"]); err != nil {
		return cfg, err
	}
	if r, ok := v["port_range"]; ok {
		if cfg.PortRange, err = parsePortRange(r); err != nil {
			return cfg, err
		}
	}
	if cfg.ArtifactCache, err = parseSize(v["artifact_cache"]); err != nil {
		return cfg, err
	}
	if cfg.ArtifactRate, err = parseSize(v["artifact_rate"]); err != nil {
		return cfg, err
	}
	cfg.NATS, err = parseNATS(v["nats"])
	return cfg, err
}

// parseSize reads a size; 0 if there is none.
func parseSize(v value) (int64, error) {
	if v.text == "" {
		return 0, nil
	}
	var b intent.Bytes
	if err := b.UnmarshalText([]byte(v.text)); err != nil || b == 0 {
		return 0, fmt.Errorf("%s: %q: want a size such as 500MiB or 10GiB", v.from, v.text)
	}
	return int64(b), nil
}

func parsePorts(v value) (agent.Ports, error) {
	p := agent.DefaultPorts()
	field := map[string]*int{"gossip": &p.Gossip, "mesh": &p.Mesh, "nats": &p.NATS, "nats_cluster": &p.NATSCluster}
	for _, name := range sortedKeys(v.pairs) {
		to, ok := field[name]
		if !ok {
			return p, fmt.Errorf("%s: ports: unknown port %q; known are gossip, mesh, nats and nats_cluster", v.from, name)
		}
		n, err := strconv.ParseUint(v.pairs[name], 10, 16)
		if err != nil {
			return p, fmt.Errorf("%s: ports: %s = %q: want 0 to 65535", v.from, name, v.pairs[name])
		}
		*to = int(n)
	}
	return p, nil
}

func parsePortRange(v value) ([2]int, error) {
	first, last, _ := strings.Cut(v.text, "-")
	lo, err1 := strconv.ParseUint(strings.TrimSpace(first), 10, 16)
	hi, err2 := strconv.ParseUint(strings.TrimSpace(last), 10, 16)
	if err1 != nil || err2 != nil || lo == 0 || lo > hi {
		return [2]int{}, fmt.Errorf("%s: port_range %q: want FIRST-LAST, such as 20000-29999", v.from, v.text)
	}
	return [2]int{int(lo), int(hi)}, nil
}

func parseNATS(v value) ([]string, error) {
	if len(v.list) == 1 && v.list[0] == "embedded" {
		return nil, nil
	}
	for _, u := range v.list {
		if !strings.HasPrefix(u, "nats://") && !strings.HasPrefix(u, "tls://") {
			return nil, fmt.Errorf("%s: nats: %q: want embedded, or nats://HOST:PORT of existing servers", v.from, u)
		}
	}
	return v.list, nil
}

// runAgent runs agents on one configuration until ctx ends or one cannot go on.
// A host that left its mesh waits for another one: it does not create or join
// one by itself again in this life.
func runAgent(ctx context.Context, cfg agent.Config) error {
	raisePriority(cfg.Logger)
	relaxTimers(cfg.Logger)
	var telling sync.WaitGroup
	defer telling.Wait() // else we could be gone before it is told
	ending, stop := context.WithCancel(ctx)
	defer stop()
	telling.Go(func() {
		<-ending.Done()
		notify(cfg.Logger, daemon.SdNotifyStopping)
	})
	for {
		err := runOnce(ctx, cfg)
		if !errors.Is(err, agent.ErrLeft) || ctx.Err() != nil {
			return err
		}
		cfg.Logger.Info("left the mesh; waiting for ganglion init or ganglion join")
		cfg.Init, cfg.Seeds = false, nil
	}
}

func runOnce(ctx context.Context, cfg agent.Config) error {
	a, err := agent.New(cfg)
	if err != nil {
		if strings.HasPrefix(err.Error(), "configure agent: ") {
			return usage(err)
		}
		return err
	}
	var telling sync.WaitGroup
	defer telling.Wait()
	tellCtx, stop := context.WithCancel(ctx)
	defer stop()
	telling.Go(func() { tellSystemd(tellCtx, cfg, a.Ready()) })
	return a.Run(ctx)
}
