//go:build linux

package main

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/ganglion-mesh/ganglion/agent"
)

// configOf parses an agent command line with its environment and a file.
func configOf(t *testing.T, file string, env map[string]string, args ...string) (agent.Config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "agent.hcl")
	if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	c := &cli{errs: new(bytes.Buffer), env: func(k string) (string, bool) { v, ok := env[k]; return v, ok }}
	cmd := c.agentCommand()
	var cfg agent.Config
	var err error
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err = c.agentConfig(cmd, path)
		return nil
	}
	cmd.SetArgs(args)
	if err := cmd.Execute(); err != nil {
		t.Fatal(err)
	}
	return cfg, err
}

const fullConfig = `
name        = "file"
data_dir    = "/d"
socket      = "/s"
bind        = "127.0.0.1"
advertise   = "10.0.0.1"
init        = true
seeds       = ["a", "b:1"]
token_file  = "/t"
labels      = { zone = "a", rack = "7,8" }
voter       = "never"
ports       = { gossip = 1, mesh = 0 }
port_range  = "100-200"
nats        = ["nats://x:4222"]
nats_stream = false
http        = "off"
driver      = "process"
allow_run   = true
reflex_addresses = { "10.0.0.0/24" = "eth0", "fd00::/64" = "br0" }
reflex_units = ["nginx.service", "a@b.timer"]
artifact_cache = "2GiB"
artifact_rate  = "20MiB"
`

func TestEveryKeyParses(t *testing.T) {
	cfg, err := configOf(t, fullConfig, nil)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Logger = nil
	wanted := agent.Config{
		Name: "file", DataDir: "/d", Socket: "/s", Bind: "127.0.0.1", Advertise: "10.0.0.1", Init: true,
		Seeds: []string{"a", "b:1"}, TokenFile: "/t", Labels: map[string]string{"zone": "a", "rack": "7,8"}, Voter: "never",
		Ports: agent.Ports{Gossip: 1, Mesh: 0, NATS: 4222, NATSCluster: 6222}, PortRange: [2]int{100, 200},
		NATS: []string{"nats://x:4222"}, Driver: "process", AllowRun: true, ReflexUnits: []string{"nginx.service", "a@b.timer"}, Version: version,
		ReflexAddresses: map[string]string{"10.0.0.0/24": "eth0", "fd00::/64": "br0"},
		ArtifactCache:   2 << 30, ArtifactRate: 20 << 20,
	}
	if !reflect.DeepEqual(cfg, wanted) {
		t.Errorf("got  %+v\nwant %+v", cfg, wanted)
	}
	for _, s := range settings {
		if !strings.Contains(fullConfig, "\n"+s.key+" ") {
			t.Errorf("key %s is not in this test", s.key)
		}
	}
}

func TestFlagBeatsEnvironmentBeatsFile(t *testing.T) {
	env := map[string]string{
		"GANGLION_NAME": "env", "GANGLION_LABELS": "zone=env,x=1", "GANGLION_SEEDS": "c, d", "GANGLION_INIT": "false",
		"GANGLION_PORTS": "nats=5", "GANGLION_VOTER": "",
	}
	cfg, err := configOf(t, fullConfig, env)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Name != "env" || cfg.Init || !reflect.DeepEqual(cfg.Labels, map[string]string{"zone": "env", "x": "1"}) ||
		!reflect.DeepEqual(cfg.Seeds, []string{"c", "d"}) || cfg.Voter != "never" || cfg.DataDir != "/d" ||
		cfg.Ports != (agent.Ports{Gossip: 7946, Mesh: 7947, NATS: 5, NATSCluster: 6222}) {
		t.Errorf("environment over file: %+v", cfg)
	}
	cfg, err = configOf(t, fullConfig, env, "--name", "flag", "--init", "--labels", "zone=flag", "--port-range=1-2", "--nats", "embedded")
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Name != "flag" || !cfg.Init || cfg.Labels["zone"] != "flag" || cfg.PortRange != [2]int{1, 2} || cfg.NATS != nil || cfg.Seeds[0] != "c" {
		t.Errorf("flags over environment: %+v", cfg)
	}
}

func TestFormsOfTheFile(t *testing.T) {
	cfg, err := configOf(t, "labels = \"zone=a\"\nseeds = \"a,b\"\nports = { nats = \"9\" }\nnats = \"embedded\"\n", nil)
	if err != nil || cfg.Labels["zone"] != "a" || len(cfg.Seeds) != 2 || cfg.Ports.NATS != 9 || cfg.NATS != nil {
		t.Errorf("%+v, %v", cfg, err)
	}
	cfg, err = configOf(t, "", nil)
	if err != nil || cfg.Ports != agent.DefaultPorts() || cfg.PortRange != [2]int{} {
		t.Errorf("an empty file: %+v, %v", cfg, err)
	}
}

func TestWrongConfiguration(t *testing.T) {
	for _, tc := range []struct {
		name, file string
		env        map[string]string
		args       []string
		line       string
	}{
		{"unknown key", "name = \"a\"\ndata_dri = \"/x\"\n", nil, nil, `agent.hcl:2:1: unknown key "data_dri"; did you mean data_dir?`},
		{"unknown block", "labels {\n}\n", nil, nil, "agent.hcl:1:1: "},
		{"syntax", "name = \n", nil, nil, "agent.hcl:1:"},
		{"wrong type", "\nseeds = { a = 1 }\n", nil, nil, "agent.hcl:2:9: seeds: want a list of strings"},
		{"null", "name = null\n", nil, nil, "agent.hcl:1:8: name: want a value"},
		{"null in a list", "seeds = [\"a\", null]\n", nil, nil, "agent.hcl:1:9: seeds: want a list of strings"},
		{"variable", "name = other\n", nil, nil, "agent.hcl:1:8: "},
		{"unknown port", "ports = { http = 1 }\n", nil, nil, `unknown port "http"`},
		{"port too high", "ports = { mesh = 70000 }\n", nil, nil, "want 0 to 65535"},
		{"range", "port_range = \"9-1\"\n", nil, nil, `agent.hcl:1:1: port_range "9-1": want FIRST-LAST`},
		{"nats", "nats = [\"http://x\"]\n", nil, nil, "want embedded, or nats://"},
		{"stream", "nats_stream = true\n", nil, nil, "agent.hcl:1:1: nats_stream is not in this version yet"},
		{"http", "", map[string]string{"GANGLION_HTTP": "127.0.0.1:7980"}, nil, "GANGLION_HTTP: http is not in this version yet"},
		{"bad bool", "", map[string]string{"GANGLION_INIT": "maybe"}, nil, `GANGLION_INIT: "maybe": want true or false`},
		{"bad map", "", nil, []string{"--labels", "zone"}, `--labels: "zone": want key=value`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := configOf(t, tc.file, tc.env, tc.args...)
			if err == nil || !strings.Contains(strings.SplitN(err.Error(), "\n", 2)[0], tc.line) {
				t.Errorf("got %v, want in its first line %q", err, tc.line)
			}
		})
	}
}

func TestEveryFaultOfAFileIsTold(t *testing.T) {
	_, err := configOf(t, "bogus = 1\nseeds = 7\nalso_bogus = 2\n", nil)
	if err == nil {
		t.Fatal("no error")
	}
	got := strings.Split(err.Error(), "\n")
	if len(got) != 3 || !strings.Contains(got[0], ":1:1:") || !strings.Contains(got[1], ":2:9:") || !strings.Contains(got[2], ":3:1:") {
		t.Errorf("got %q", got)
	}
}

func TestNamedConfigurationMustExist(t *testing.T) {
	got := invocation{}.run(t, "agent", "--config", "/nosuch/agent.hcl")
	if got.code != 2 || !strings.Contains(got.firstLine(), "/nosuch/agent.hcl: no such file") {
		t.Errorf("%+v", got)
	}
	if _, err := fromFile("/nosuch/agent.hcl", false); err != nil {
		t.Errorf("the default file may be absent: %v", err)
	}
}

func TestJournalLines(t *testing.T) {
	var out bytes.Buffer
	c := &cli{errs: &out, env: func(string) (string, bool) { return "8:1", true }}
	log := slog.New(c.logHandler()).With("mesh", "lab")
	log.Info("hello", "n", 1)
	log.Error("bad")
	log.Debug("hidden")
	want(t, "journal", out.String(), "<6>msg=hello mesh=lab n=1\n<3>msg=bad mesh=lab\n")
	out.Reset()
	c.env = func(string) (string, bool) { return "", false }
	slog.New(c.logHandler()).Warn("x")
	if !strings.HasPrefix(out.String(), "time=") || !strings.Contains(out.String(), "level=WARN msg=x") {
		t.Errorf("elsewhere: %q", out.String())
	}
}
