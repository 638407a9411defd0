package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ganglion-mesh/ganglion/agent/api"
)

func (c *cli) initCommand() *cobra.Command {
	var req api.InitRequest
	cmd := &cobra.Command{Use: "init [--name MESH]", Short: "Create a mesh with this host as its first voter", Args: args(cobra.NoArgs)}
	cmd.Flags().StringVar(&req.Name, "name", "", "name of the mesh (default main)")
	f := formatFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if req.Name != "" {
			if err := checkName("create mesh", req.Name); err != nil {
				return err
			}
		}
		var resp api.InitResponse
		if err := c.post(cmd.Context(), "/v1/init", req, &resp); err != nil {
			return err
		}
		if f.json() {
			return c.printJSON(resp)
		}
		fmt.Fprintf(c.out, "Mesh %s is there, and this host is its first voter. On every other host, run:\n\n  ganglion join %s --token %s\n", resp.Name, resp.Seed, resp.Token)
		return nil
	}
	return cmd
}

func (c *cli) joinCommand() *cobra.Command {
	var token, tokenFile string
	cmd := &cobra.Command{Use: "join SEED[,SEED…] --token T", Short: "Enrol this host through any member of a mesh", Args: args(cobra.ExactArgs(1))}
	cmd.Flags().StringVar(&token, "token", "", "token that ganglion init or token create printed")
	cmd.Flags().StringVar(&tokenFile, "token-file", "", "file to read the token from")
	f := formatFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if token != "" && tokenFile != "" {
			return usagef("join: --token and --token-file exclude each other")
		}
		if tokenFile != "" {
			b, err := os.ReadFile(tokenFile)
			if err != nil {
				return usagef("join: read token: %w", err)
			}
			token = strings.TrimSpace(string(b))
		}
		if token == "" {
			return usagef("join: no token; say --token T (a member prints one with ganglion token create)")
		}
		seeds := splitList(args[0])
		if len(seeds) == 0 {
			return usagef("join: no seed; name a member as HOST or HOST:PORT")
		}
		var resp api.JoinResponse
		if err := c.post(cmd.Context(), "/v1/join", api.JoinRequest{Seeds: seeds, Token: token}, &resp); err != nil {
			return err
		}
		if f.json() {
			return c.printJSON(resp)
		}
		fmt.Fprintf(c.out, "Host %s is in mesh %s.\n", resp.Host, resp.Name)
		return nil
	}
	return cmd
}

// splitList splits at commas and leaves out what is empty.
func splitList(s string) []string {
	var out []string
	for part := range strings.SplitSeq(s, ",") {
		if part = strings.TrimSpace(part); part != "" {
			out = append(out, part)
		}
	}
	return out
}

func (c *cli) leaveCommand() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{Use: "leave", Short: "Drain this host, leave the mesh and forget its identity", Args: args(cobra.NoArgs)}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var v api.Version
		if err := c.get(cmd.Context(), "/v1/version", &v); err != nil {
			return err
		}
		if v.Mesh == "" {
			return fmt.Errorf("leave: host %s is in no mesh", v.Host)
		}
		if err := c.confirm(yes, "leave", fmt.Sprintf("Move the copies off host %s, leave mesh %s and forget its identity?", v.Host, v.Mesh)); err != nil {
			return err
		}
		p := &progress{c: c}
		p.show("leaving: copies move to other hosts first")
		defer p.end()
		if err := c.post(cmd.Context(), "/v1/leave", nil, nil); err != nil {
			return err
		}
		c.awaitForgotten(cmd.Context())
		p.end()
		fmt.Fprintf(c.out, "Host %s has left mesh %s.\n", v.Host, v.Mesh)
		return nil
	}
	return cmd
}

// awaitForgotten waits until the agent waits for a mesh again, so that a join
// that follows finds it ready. Who embeds an agent may not start another: then
// it ends after a while.
func (c *cli) awaitForgotten(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for ctx.Err() == nil {
		var v api.Version
		if c.get(ctx, "/v1/version", &v) == nil && v.Mesh == "" {
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (c *cli) meshCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "mesh", Short: "Show the mesh: id, name, revision, leader, voters; change its settings", Args: args(cobra.NoArgs)}
	cmd.AddCommand(c.meshSetCommand())
	f := formatFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var m api.Mesh
		if err := c.get(cmd.Context(), "/v1/mesh", &m); err != nil {
			return err
		}
		if f.json() {
			return c.printJSON(m)
		}
		t := newTable("MESH", "ID", "REVISION", "LEADER", "VOTERS", "FROZEN")
		frozen := "no"
		if m.Frozen != nil {
			frozen = fmt.Sprintf("epoch %d", m.Frozen.Epoch)
		}
		t.row(m.Name, m.ID, fmt.Sprint(m.Revision), orDash(m.Leader), orDash(strings.Join(m.Voters, ",")), frozen)
		c.printTable(t)
		if m.Signing != nil && m.Signing.Required {
			fmt.Fprintln(c.out, "Packages must be signed by "+strings.Join(m.Signing.Keys, " or ")+".")
		}
		if m.Frozen != nil {
			fmt.Fprintln(c.out, "Frozen: "+frozenText(m.Frozen)+"; ganglion thaw ends it.")
		}
		if m.Held != "" {
			fmt.Fprintln(c.out, "Nothing is moved: "+oneLine(m.Held))
		}
		if m.Rebalance != "off" && m.Rebalance != "" {
			fmt.Fprintln(c.out, rebalanceLine(m))
		}
		if m.ReflexStage == "off" {
			fmt.Fprintln(c.out, "Reflexes are in force on all hosts as soon as they are declared (reflex_stage=off).")
		}
		return nil
	}
	return cmd
}

func (c *cli) hostsCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "hosts", Short: "List the hosts: role, health, vitals, what they run", Args: args(cobra.NoArgs)}
	f := formatFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		hosts := []api.Host{}
		if err := c.get(cmd.Context(), "/v1/hosts", &hosts); err != nil {
			return err
		}
		if f.json() {
			return c.printJSON(hosts)
		}
		c.printTable(hostTable(hosts, f.wide()))
		if hint := fewVoters(hosts); hint != "" {
			fmt.Fprintln(c.errs, c.colour(c.errTerm, dim, hint))
		}
		return nil
	}
	return cmd
}

func hostTable(hosts []api.Host, wide bool) *table {
	t := newTable("HOST", "STATUS", "ROLE", "DRAIN", "COPIES", "CPU", "MEMORY", "DISK", "NOTE")
	if wide {
		t.head = append(slices.Clone(t.head[:8]), "PRESSURE", "AGE", "ADDR", "ADDRESSES", "LABELS", "NOTE")
	}
	for _, h := range hosts {
		v := h.Vitals
		ratio := func(r float64) string {
			if v.AgeMS < 0 {
				return "-"
			}
			return fmt.Sprintf("%.0f%%", r*100)
		}
		cells := []string{h.Name, h.Status, h.Role, drainWord(h), fmt.Sprint(h.Copies), ratio(v.CPU), ratio(v.Memory), ratio(v.Disk)}
		if wide {
			age := "-"
			if v.AgeMS >= 0 {
				age = (time.Duration(v.AgeMS) * time.Millisecond).Round(100 * time.Millisecond).String()
			}
			cells = append(cells, ratio(v.Pressure), age, orDash(h.Addr), addressText(h.Addresses), labelText(h.Labels))
		}
		t.row(append(cells, h.Note)...)
	}
	return t
}

func drainWord(h api.Host) string {
	if h.Drain == "" {
		return "none"
	}
	return string(h.Drain)
}

// addressText lists the addresses that a host has taken over.
func addressText(list []api.HostAddress) string {
	var out []string
	for _, a := range list {
		out = append(out, a.Address)
	}
	return orDash(strings.Join(out, ","))
}

func labelText(labels map[string]string) string {
	var out []string
	for k, v := range labels {
		out = append(out, k+"="+v)
	}
	slices.Sort(out)
	return orDash(strings.Join(out, ","))
}

// fewVoters says what a mesh of one voter cannot survive.
func fewVoters(hosts []api.Host) string {
	var voters []string
	for _, h := range hosts {
		if h.Role == "leader" || h.Role == "voter" {
			voters = append(voters, h.Name)
		}
	}
	if len(voters) != 1 {
		return ""
	}
	return fmt.Sprintf("One voter: while %s is away nothing can be changed. With three hosts the mesh makes three voters by itself.", voters[0])
}

func (c *cli) peersCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "peers", Short: "List the Raft side of the mesh", Args: args(cobra.NoArgs)}
	f := formatFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		peers := []api.Peer{}
		if err := c.get(cmd.Context(), "/v1/peers", &peers); err != nil {
			return err
		}
		if f.json() {
			return c.printJSON(peers)
		}
		yes := map[bool]string{true: "yes", false: "no"}
		t := newTable("HOST", "ADDR", "VOTER", "LEADER", "HEALTHY")
		for _, p := range peers {
			t.row(p.Name, p.Addr, yes[p.Voter], yes[p.Leader], yes[p.Healthy])
		}
		c.printTable(t)
		return nil
	}
	return cmd
}

func (c *cli) tokenCommand() *cobra.Command {
	token := &cobra.Command{Use: "token", Short: "Make a token that lets hosts join", Args: cobra.ArbitraryArgs}
	token.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return usagef("token: say what to do: ganglion token create")
		}
		return usagef("%s", unknownCommand(cmd, args[0]))
	}
	var req api.TokenRequest
	create := &cobra.Command{Use: "create", Short: "Print a new join token", Args: args(cobra.NoArgs)}
	create.Flags().StringVar(&req.Role, "role", "agent", "role of who joins with it")
	f := formatFlag(create)
	create.RunE = func(cmd *cobra.Command, _ []string) error {
		var t api.Token
		if err := c.post(cmd.Context(), "/v1/tokens", req, &t); err != nil {
			return err
		}
		if f.json() {
			return c.printJSON(t)
		}
		fmt.Fprintln(c.out, t.Token)
		return nil
	}
	token.AddCommand(create, laterCommand("list"), laterCommand("revoke"))
	return token
}

func (c *cli) natsCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "nats", Short: "Print how any NATS client hears the events", Args: args(cobra.NoArgs)}
	f := formatFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var n api.NATS
		if err := c.get(cmd.Context(), "/v1/nats", &n); err != nil {
			return err
		}
		seen := map[string]bool{}
		n.URLs = slices.DeleteFunc(n.URLs, func(u string) bool {
			again := seen[u]
			seen[u] = true
			return again
		})
		if f.json() {
			return c.printJSON(n)
		}
		for _, u := range n.URLs {
			fmt.Fprintln(c.out, u)
		}
		for _, note := range []string{"subscribe to " + n.Subjects, n.Note} {
			if note != "" {
				fmt.Fprintln(c.errs, c.colour(c.errTerm, dim, note))
			}
		}
		if len(n.URLs) == 0 {
			return fmt.Errorf("list NATS servers: none is known to this agent at the moment; events stay on the hosts (ganglion events) and are published when one is")
		}
		return nil
	}
	return cmd
}

// get reads path from the agent that was picked.
func (c *cli) get(ctx context.Context, path string, out any) error {
	client, err := c.dial()
	if err != nil {
		return err
	}
	defer client.CloseIdle()
	return client.Get(ctx, path, nil, out)
}

// post sends one write, under an idempotency key, to the agent that was picked.
func (c *cli) post(ctx context.Context, path string, in, out any) error {
	client, err := c.dial()
	if err != nil {
		return err
	}
	defer client.CloseIdle()
	return client.PostOnce(ctx, path, newKey(), in, out)
}
