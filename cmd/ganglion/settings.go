package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// kind is the form of a setting's value.
type kind int

const (
	kindText kind = iota
	kindBool
	kindList
	kindMap
)

// setting is one key of the agent's configuration: the same in the file
// (data_dir), as a flag (--data-dir) and in the environment (GANGLION_DATA_DIR).
type setting struct {
	key   string
	kind  kind
	usage string
}

func (s setting) flag() string { return strings.ReplaceAll(s.key, "_", "-") }
func (s setting) env() string  { return "GANGLION_" + strings.ToUpper(s.key) }

var settings = []setting{
	{"name", kindText, "name of this host, unique in the mesh (default: first label of the hostname)"},
	{"data_dir", kindText, "where the agent keeps its state (default /var/lib/ganglion)"},
	{"socket", kindText, "path of the local API (default /run/ganglion/agent.sock)"},
	{"bind", kindText, "address to listen on (default 0.0.0.0)"},
	{"advertise", kindText, "address by which others reach this host (default: first private address)"},
	{"init", kindBool, "create a mesh if the data directory has none"},
	{"seeds", kindList, "members to join through, with token_file: HOST[:PORT],…"},
	{"token_file", kindText, "file with the token for joining by seeds"},
	{"labels", kindMap, "what placement knows of this host: zone=a,…"},
	{"voter", kindText, "auto or never (default auto)"},
	{"ports", kindMap, "gossip=7946,mesh=7947,nats=4222,nats_cluster=6222; 0 is any free one"},
	{"port_range", kindText, "dynamic ports of copies (default 20000-29999)"},
	{"nats", kindList, "embedded, or nats://… of existing servers (default embedded)"},
	{"nats_stream", kindBool, "keep events in embedded JetStream (not yet)"},
	{"http", kindText, "address of the dashboard and metrics (not yet)"},
	{"artifact_cache", kindText, "disk that packages may take, those in use aside (default 10GiB)"},
	{"artifact_rate", kindText, "how fast packages are fetched, a second: 20MiB (default unbounded)"},
	{"driver", kindText, "auto, systemd or process (default auto)"},
	{"allow_run", kindBool, "let reflexes and senses run commands on this host (default false)"},
	{"reflex_addresses", kindMap, "networks of which reflexes may take addresses over, with the interface: 10.0.0.0/24=eth0,… (default none)"},
	{"reflex_units", kindList, "systemd units of this host that reflexes may restart, stop, signal and throttle (default none)"},
}

func findSetting(key string) (setting, bool) {
	i := slices.IndexFunc(settings, func(s setting) bool { return s.key == key })
	if i < 0 {
		return setting{}, false
	}
	return settings[i], true
}

// value is one value of a setting, and where it came from, for messages.
type value struct {
	text  string
	on    bool
	list  []string
	pairs map[string]string
	from  string
}

// parseValue reads the form that flags and the environment use.
func (s setting) parseValue(text, from string) (value, error) {
	v := value{from: from}
	switch s.kind {
	case kindBool:
		on, err := strconv.ParseBool(text)
		if err != nil {
			return v, fmt.Errorf("%s: %q: want true or false", from, text)
		}
		v.on = on
	case kindList:
		v.list = splitList(text)
	case kindMap:
		v.pairs = map[string]string{}
		for _, part := range splitList(text) {
			key, val, ok := strings.Cut(part, "=")
			if !ok || key == "" {
				return v, fmt.Errorf("%s: %q: want key=value,…", from, part)
			}
			v.pairs[strings.TrimSpace(key)] = strings.TrimSpace(val)
		}
	default:
		v.text = text
	}
	return v, nil
}

// notYet says whether a value asks for what this version does not execute.
func (s setting) notYet(v value) bool {
	switch s.key {
	case "nats_stream":
		return v.on
	case "http":
		return v.text != "" && v.text != "off"
	}
	return false
}

// values are settings by key.
type values map[string]value

// over returns v with everything that stronger sets put over it.
func (v values) over(stronger values) values {
	out := values{}
	for _, m := range []values{v, stronger} {
		for key, val := range m {
			out[key] = val
		}
	}
	return out
}

// check refuses what is understood but not executed yet.
func (v values) check() error {
	for _, s := range settings {
		if val, ok := v[s.key]; ok && s.notYet(val) {
			return fmt.Errorf("%s: %s is not in this version yet; remove it", val.from, s.key)
		}
	}
	return nil
}

// fromEnv reads the settings that the environment has. An empty variable counts
// as absent.
func (c *cli) fromEnv() (values, error) {
	out := values{}
	for _, s := range settings {
		text := c.getenv(s.env())
		if text == "" {
			continue
		}
		v, err := s.parseValue(text, s.env())
		if err != nil {
			return nil, err
		}
		out[s.key] = v
	}
	return out, nil
}
