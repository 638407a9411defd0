package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
)

func (c *cli) snapshotCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "snapshot", Short: "Save what the mesh has decided, and take it back to that", Args: cobra.ArbitraryArgs}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return usagef("snapshot: say what to do: ganglion snapshot save FILE, restore FILE or inspect FILE")
		}
		return usagef("%s", unknownCommand(cmd, args[0]))
	}
	cmd.AddCommand(c.saveCommand(), c.restoreCommand(), c.inspectCommand())
	return cmd
}

// snapshotLine tells what a file holds.
type snapshotLine struct {
	File     string    `json:"file"`
	Mesh     string    `json:"mesh"`
	MeshID   string    `json:"mesh_id"`
	Era      uint64    `json:"era"`
	Revision uint64    `json:"revision"`
	Saved    time.Time `json:"saved"`
	By       string    `json:"by"` // version of the agent that saved it
	Apps     int       `json:"apps"`
	Copies   int       `json:"copies"`
	Hosts    int       `json:"hosts"`
	Keys     bool      `json:"keys"` // whether it holds the mesh's keys
}

func describeBackup(file string, b topology.Backup) snapshotLine {
	s := b.State
	return snapshotLine{
		File: file, Mesh: s.MeshName(), MeshID: s.MeshID(), Era: s.Era(), Revision: s.Revision(), Saved: b.Saved, By: b.By,
		Apps: len(s.Apps()), Copies: len(s.Placements()), Hosts: len(s.Hosts()), Keys: len(s.Trust().CAKey) > 0,
	}
}

func (l snapshotLine) String() string {
	keys := "without the mesh's keys"
	if l.Keys {
		keys = "with the mesh's keys"
	}
	return fmt.Sprintf("mesh %s (%s), era %d, revision %d, saved %s: %d apps, %d copies, %d hosts, %s",
		l.Mesh, l.MeshID, l.Era, l.Revision, l.Saved.UTC().Format(time.RFC3339), l.Apps, l.Copies, l.Hosts, keys)
}

func (c *cli) saveCommand() *cobra.Command {
	var bare bool
	cmd := &cobra.Command{
		Use: "save FILE", Short: "Write intents, placements, roster and keys to a file",
		Long: `Writes what the mesh has decided to FILE (mode 0600, replaced as a whole; - is
standard output, never a terminal), with what the leader observes now, so that
plan --from FILE works with no agent.

On a voter the file also holds the key of the mesh's authority and the gossip
key. Who reads such a file can make hosts of the mesh: keep it like a root
password. Join tokens are not in it.`,
		Args: args(cobra.ExactArgs(1)),
	}
	cmd.Flags().BoolVar(&bare, "without-keys", false, "leave out the mesh's keys")
	f := formatFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.saveSnapshot(cmd.Context(), args[0], bare, f.json())
	}
	return cmd
}

func (c *cli) saveSnapshot(ctx context.Context, path string, bare, asJSON bool) error {
	if err := c.writable(path); err != nil {
		return err
	}
	client, err := c.dial()
	if err != nil {
		return err
	}
	defer client.CloseIdle()
	b, err := fetchBackup(ctx, client)
	if err != nil {
		return err
	}
	if !bare {
		if err := c.addKeys(ctx, client, &b); err != nil {
			return err
		}
	}
	var file bytes.Buffer
	if err := b.Write(&file); err != nil {
		return err
	}
	line := describeBackup(path, b)
	if path == "-" {
		_, err := c.out.Write(file.Bytes())
		return err
	}
	if err := writeWhole(path, file.Bytes()); err != nil {
		return fmt.Errorf("save snapshot: %w", err)
	}
	if line.Keys {
		fmt.Fprintf(c.errs, "%s holds the keys of mesh %s: who reads it can make hosts of the mesh; keep it like a root password\n", path, line.Mesh)
	}
	if asJSON {
		return c.printJSON(line)
	}
	fmt.Fprintf(c.out, "%s: %s\n", path, line)
	return nil
}

// writable refuses what a snapshot must not be written to.
func (c *cli) writable(path string) error {
	if path == "-" {
		if f, ok := c.out.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
			return usagef("save snapshot: it holds keys and is not for terminals; name a file, or send it on to another program")
		}
		return nil
	}
	info, err := os.Stat(path)
	switch {
	case err == nil && !info.Mode().IsRegular():
		return usagef("save snapshot: %s is not a regular file; name one, or - for the standard output", path)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("save snapshot: %w", err)
	}
	return nil
}

// fetchBackup asks the mesh for a snapshot, and reads it as a restore would.
func fetchBackup(ctx context.Context, client *api.Client) (topology.Backup, error) {
	var snap api.Snapshot
	if err := client.Get(ctx, "/v1/snapshot", nil, &snap); err != nil {
		return topology.Backup{}, err
	}
	return topology.ReadBackup(bytes.NewReader(snap.Data))
}

// addKeys adds the mesh's keys where this agent has them and may give them out.
func (c *cli) addKeys(ctx context.Context, client *api.Client, b *topology.Backup) error {
	var keys api.Keys
	err := client.Get(ctx, "/v1/snapshot/keys", nil, &keys)
	if isCode(err, api.CodeRejected) || isCode(err, api.CodeDenied) {
		fmt.Fprintf(c.errs, "saved without the keys of the mesh (%v): the file restores a mesh that lives, not one that lost all its voters\n", err)
		return nil
	}
	if err != nil {
		return err
	}
	b.State, err = b.State.WithKeys(keys.Keys)
	return err
}

// writeWhole writes a private file that is there in whole, on disk, or not at
// all.
func writeWhole(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // with mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// readBackup reads a file of snapshot save; - is the standard input.
func (c *cli) readBackup(path string) (topology.Backup, error) {
	in := c.in
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return topology.Backup{}, usagef("read snapshot: %w", err)
		}
		defer f.Close()
		in = f
	}
	b, err := topology.ReadBackup(in)
	if err != nil {
		return b, usagef("%s: %w", path, err)
	}
	return b, nil
}

func (c *cli) restoreCommand() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "restore FILE", Short: "Take the mesh back to what a snapshot declares",
		Long: `Takes the mesh that FILE was saved from back to what it declared then, in a new
era: as an apply of all of it would, with what was declared since removed. Apps
go back by their own update rules; copies that are as FILE says are not touched;
apps that were deleted come back to the hosts they were on.

The roster, drains, join tokens and keys stay as they are now. Shows what would
change and asks; where there is no terminal it needs --yes. Returns when it is
committed: ganglion status tells how far the mesh has come.`,
		Args: args(cobra.ExactArgs(1)),
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	f := formatFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.restoreSnapshot(cmd.Context(), args[0], yes, f.json())
	}
	return cmd
}

func (c *cli) restoreSnapshot(ctx context.Context, path string, yes, asJSON bool) error {
	what := "restore " + path
	if !yes && (!c.asks || path == "-") {
		c.asks = false // the standard input is the file, or nobody
		return c.confirm(yes, what, "")
	}
	b, err := c.readBackup(path)
	if err != nil {
		return err
	}
	client, err := c.dial()
	if err != nil {
		return err
	}
	defer client.CloseIdle()
	req := api.RestoreRequest{Restore: b.State.Restoration(), Check: true}
	var resp api.ApplyResponse
	if err := client.Post(ctx, "/v1/restore", nil, req, &resp); err != nil {
		return err
	}
	line := describeBackup(path, b)
	if !asJSON {
		fmt.Fprintln(c.out, line)
		c.printChanges(resp.Changes)
	}
	if err := c.confirm(yes, what, fmt.Sprintf("Take mesh %s back to that?", line.Mesh)); err != nil {
		return err
	}
	req.Check = false
	if err := client.PostOnce(ctx, "/v1/restore", newKey(), req, &resp); err != nil {
		return err
	}
	if asJSON {
		return c.printJSON(resp)
	}
	fmt.Fprintf(c.out, "mesh %s: restored, at revision %d\n", line.Mesh, resp.Revision)
	return nil
}

func (c *cli) inspectCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "inspect FILE", Short: "Check a snapshot and tell what it holds", Args: args(cobra.ExactArgs(1))}
	f := formatFlag(cmd)
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		b, err := c.readBackup(args[0])
		if err != nil {
			return err
		}
		line := describeBackup(args[0], b)
		if f.json() {
			return c.printJSON(line)
		}
		fmt.Fprintf(c.out, "%s: %s\n", args[0], line)
		for _, a := range b.State.Apps() {
			fmt.Fprintf(c.out, "  %s  %s  version %s  %d copies\n", a.Spec.Name, a.Spec.Kind(), a.Version, len(b.State.PlacementsOf(a.Spec.Name)))
		}
		return nil
	}
	return cmd
}
