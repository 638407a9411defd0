package gossip

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestConfigIsChecked(t *testing.T) {
	good := func() Config { return Config{Name: "h1", MeshID: "mesh-a", Key: testKey} }
	for what, c := range map[string]struct {
		change func(*Config)
		says   string
	}{
		"no name":         {func(c *Config) { c.Name = "" }, `host name ""`},
		"upper case":      {func(c *Config) { c.Name = "H1" }, "host name"},
		"300 characters":  {func(c *Config) { c.Name = strings.Repeat("a", 300) }, "host name"},
		"no mesh":         {func(c *Config) { c.MeshID = "" }, "mesh id"},
		"mesh too long":   {func(c *Config) { c.MeshID = strings.Repeat("m", 65) }, "mesh id"},
		"no key":          {func(c *Config) { c.Key = nil }, "gossip key of 0 bytes"},
		"short key":       {func(c *Config) { c.Key = testKey[:20] }, "gossip key of 20 bytes"},
		"port":            {func(c *Config) { c.Port = 70000 }, "gossip port 70000"},
		"bind":            {func(c *Config) { c.Bind = "host" }, "bind address"},
		"seed":            {func(c *Config) { c.Seeds = []string{"ok", "a:b:c"} }, `seed "a:b:c"`},
		"empty seed":      {func(c *Config) { c.Seeds = []string{""} }, `seed ""`},
		"the mesh's tag":  {func(c *Config) { c.Tags = map[string]string{"mesh": "x"} }, `host tag "mesh"`},
		"tags too long":   {func(c *Config) { c.Tags = map[string]string{"x": strings.Repeat("y", 500)} }, "the limit is 512"},
		"seed port":       {func(c *Config) { c.Seeds = []string{"10.0.0.1:0"} }, "seed"},
		"seed port large": {func(c *Config) { c.Seeds = []string{"10.0.0.1:99999"} }, "seed"},
	} {
		cfg := good()
		c.change(&cfg)
		if _, err := cfg.validate(); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", what, err)
		}
		if p, err := New(cfg); err == nil {
			t.Errorf("%s: New took it", what)
			_ = p.Close()
		}
	}
	cfg, err := good().validate()
	if err != nil || cfg.Bind != "0.0.0.0" || cfg.Logger == nil || cfg.Timing != (Timing{}).withDefaults() {
		t.Errorf("defaults: %+v, %v", cfg, err)
	}
}

// The largest tags that are taken must fit what the libraries encode.
func TestLargestTagsFit(t *testing.T) {
	inMesh(t, func(m *mesh) {
		tags := map[string]string{}
		cfg := m.config(1)
		for i := 0; ; i++ {
			key := string(rune('a'+i%26)) + string(rune('a'+i/26))
			tags[key] = strings.Repeat("v", i%40)
			if checkTags(tags, cfg.MeshID) != nil {
				delete(tags, key)
				break
			}
		}
		cfg.Tags = tags
		h := m.start(cfg)
		m.within(1e9, "it runs", func() bool { return len(h.Members()) == 1 && len(h.Members()[0].Tags) == len(tags) })
		tags["zz"] = "1" // the pool keeps its own copy
		if len(h.Members()[0].Tags) == len(tags) {
			t.Error("the caller's map is shared")
		}
	})
}

func TestSplitSeed(t *testing.T) {
	for in, want := range map[string]string{
		"10.0.0.1": "10.0.0.1 7946", "10.0.0.1:1": "10.0.0.1 1", "h1": "h1 7946", "h1.example:80": "h1.example 80",
		"fd00::1": "fd00::1 7946", "[fd00::1]:9": "fd00::1 9",
	} {
		host, port, err := splitSeed(in, DefaultPort)
		wantHost, wantPort, _ := strings.Cut(want, " ")
		if err != nil || host != wantHost || wantPort != fmt.Sprint(port) {
			t.Errorf("%s: %s %d, %v", in, host, port, err)
		}
	}
}

func TestLogLevels(t *testing.T) {
	var out bytes.Buffer
	l := newLogBridge(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelInfo})))
	l.Printf("[ERR] memberlist: broken")
	l.Printf("[WARN] serf: odd")
	l.Printf("[INFO] serf: fine")
	l.Printf("[DEBUG] serf: dull")
	got := out.String()
	if !strings.Contains(got, `level=WARN msg="memberlist: broken"`) || !strings.Contains(got, `level=INFO msg="serf: odd"`) ||
		strings.Contains(got, "fine") || strings.Contains(got, "dull") {
		t.Errorf("logged:\n%s", got)
	}
}
