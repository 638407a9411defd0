package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/intent"
	"github.com/ganglion-mesh/ganglion/workload/artifact"
)

// baggage is the packages that go with intents: made of local files, to be
// pushed before what names them is committed.
type baggage struct {
	*cli
	local  []*artifact.Local // each once
	from   map[string]string // the paths of local, by digest
	remote []string          // digests that were named as such
	far    map[string]string // addresses at servers outside of the mesh, by digest

	policy *api.Signing // on signatures, once it was asked for
	signed []string     // by whom, as of the signature that was brought last
	origin *http.Client // to read them from addresses; nil: by https alone
}

// pack makes packages of the local artifacts in in, which are relative to path,
// and names them by their digests. It sends nothing.
func (c *cli) pack(ctx context.Context, in *intent.Intents, path string) (_ *baggage, err error) {
	b := &baggage{cli: c, from: map[string]string{}, far: map[string]string{}}
	defer func() {
		if err != nil {
			b.close()
		}
	}()
	p := &progress{c: c}
	defer p.end()
	made := map[string]string{}
	for i := range in.Apps {
		run := &in.Apps[i].Run
		switch {
		case strings.HasPrefix(run.Artifact, "sha256:"):
			b.remote = append(b.remote, run.Artifact)
		case strings.HasPrefix(run.Artifact, "https://"):
			b.far[run.Digest] = run.Artifact
		case run.LocalArtifact():
			file := resolveFrom(path, run.Artifact)
			if made[file] == "" {
				p.show("packing " + file)
				l, err := artifact.Prepare(ctx, file)
				if err != nil {
					return nil, usagef("app.%s.run.artifact: %w", in.Apps[i].Name, err)
				}
				b.local = append(b.local, l)
				made[file] = string(l.Digest)
				b.from[made[file]] = file
			}
			run.Artifact = made[file]
		}
	}
	return b, nil
}

// resolveFrom is where a path is that was written in the file or directory that
// is applied; on standard input, in the working directory.
func resolveFrom(path, artifact string) string {
	if filepath.IsAbs(artifact) {
		return filepath.Clean(artifact)
	}
	base := path
	switch {
	case path == "-":
		base = "."
	case !isDir(path):
		base = filepath.Dir(path)
	}
	return filepath.Join(base, artifact)
}

func (b *baggage) close() {
	for _, l := range b.local {
		l.Close() //nolint:errcheck // a temporary file at most
	}
}

// push sends what the agent has not, and waits until enough hosts have all of
// it. It tells of each if tell says so.
func (b *baggage) push(ctx context.Context, client *api.Client, tell bool) error {
	for _, l := range b.local {
		spread, err := b.send(ctx, client, l)
		if err != nil {
			return err
		}
		if tell {
			fmt.Fprintf(b.out, "%s: %s, %s, on %s\n", l.Name, l.Digest, artifact.Bytes(l.Size), strings.Join(spread.Hosts, ", "))
		}
		if err := b.beside(ctx, client, string(l.Digest), b.from[string(l.Digest)]); err != nil {
			return err
		}
	}
	for _, digest := range sortedKeys(b.far) {
		if err := b.atOrigin(ctx, client, b.far[digest], digest); err != nil {
			return err
		}
	}
	for _, digest := range b.remote {
		if _, err := b.spread(ctx, client, digest); err != nil {
			return err
		}
	}
	return nil
}

// send pushes one package. To push again is safe at any point.
func (b *baggage) send(ctx context.Context, client *api.Client, l *artifact.Local) (api.ArtifactSpread, error) {
	has, err := client.HasArtifact(ctx, string(l.Digest))
	if err != nil {
		return api.ArtifactSpread{}, fmt.Errorf("push %s: %w", l.Name, err)
	}
	if !has {
		r, err := l.Reader()
		if err != nil {
			return api.ArtifactSpread{}, fmt.Errorf("push %s: %w", l.Name, err)
		}
		p := &progress{c: b.cli}
		err = client.PutArtifact(ctx, string(l.Digest), l.Name, &meter{r: r, show: func(n int64) {
			p.show(fmt.Sprintf("pushing %s: %s of %s", l.Name, artifact.Bytes(n), artifact.Bytes(l.Size)))
		}}, l.Size)
		p.end()
		if err != nil {
			return api.ArtifactSpread{}, fmt.Errorf("push %s: %w; nothing was changed, try again", l.Name, err)
		}
	}
	return b.spread(ctx, client, string(l.Digest))
}

func (b *baggage) spread(ctx context.Context, client *api.Client, digest string) (out api.ArtifactSpread, err error) {
	p := &progress{c: b.cli}
	defer p.end()
	p.show("waiting until enough hosts have " + digest)
	err = client.Post(ctx, "/v1/artifacts/"+digest+"/spread", nil, struct{}{}, &out)
	return out, err
}

// meter tells how much was read, now and then.
type meter struct {
	r    io.Reader
	n    int64
	told int64
	show func(int64)
}

func (m *meter) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	if m.n += int64(n); m.n-m.told >= 4<<20 {
		m.told = m.n
		m.show(m.n)
	}
	return n, err
}

func (c *cli) artifactCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "artifact", Short: "Packages: push, list, remove, and whose signatures count",
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("ganglion artifact: unknown command %q; there are push, list, remove, sign, trust, distrust and policy", args[0])
			}
			return usagef("ganglion artifact: want ganglion artifact push PATH, list, remove DIGEST, sign DIGEST, trust NAME KEY, distrust NAME or policy")
		},
		Args: cobra.ArbitraryArgs,
	}
	cmd.AddCommand(c.artifactPush(), c.artifactList(), c.artifactRemove(), c.artifactSign(), c.artifactTrust(), c.artifactDistrust(), c.artifactPolicy())
	return cmd
}

func (c *cli) artifactPush() *cobra.Command {
	var files []string
	cmd := &cobra.Command{
		Use: "push PATH", Short: "Push a file or directory, print its digest alone",
		Long: `Pushes an archive (tar, tar.gz, tar.zst, zip) as it is, a directory or a plain
file packed, and prints the digest that run.artifact can name. It ends with 0
when two voters have the package, or all hosts where there are fewer.

Signatures beside it, PATH.minisig and PATH.sig, go with it.`,
		Args: args(cobra.ExactArgs(1)),
	}
	cmd.Flags().StringArrayVar(&files, "signature", nil, "file with a signature that must be good (repeatable)")
	f := formatFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		texts, err := readSignatures("push", files)
		if err != nil {
			return err
		}
		l, err := artifact.Prepare(ctx, args[0])
		if err != nil {
			return usagef("push: %w", err)
		}
		defer l.Close() //nolint:errcheck // a temporary file at most
		client, err := c.dial()
		if err != nil {
			return err
		}
		defer client.CloseIdle()
		b := &baggage{cli: c}
		out, err := b.send(ctx, client, l)
		if err == nil {
			err = b.beside(ctx, client, out.Digest, args[0])
		}
		for _, text := range texts {
			if err == nil {
				err = b.bringAlong(ctx, client, out.Digest, text, "")
			}
		}
		if err != nil {
			return err
		}
		if f.json() {
			return c.printJSON(api.Artifact{Digest: out.Digest, Name: l.Name, Size: l.Size, Hosts: out.Hosts, Apps: []string{}, SignedBy: append([]string{}, b.signed...)})
		}
		fmt.Fprintln(c.out, l.Digest)
		return nil
	}
	return cmd
}

func (c *cli) artifactList() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "List the packages of the mesh: who has them, who needs them", Args: args(cobra.NoArgs)}
	f := formatFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		client, err := c.dial()
		if err != nil {
			return err
		}
		defer client.CloseIdle()
		list := []api.Artifact{}
		if err := client.Get(cmd.Context(), "/v1/artifacts", nil, &list); err != nil {
			return err
		}
		if f.json() {
			return c.printJSON(list)
		}
		t := newTable("DIGEST", "NAME", "SIZE", "HOSTS", "SIGNED BY", "APPS")
		for _, a := range list {
			digest, hosts := artifact.Digest(a.Digest).Short(), fmt.Sprint(len(a.Hosts))
			if f.wide() {
				digest, hosts = a.Digest, orDash(strings.Join(a.Hosts, ","))
			}
			t.row(digest, orDash(a.Name), artifact.Bytes(a.Size).String(), hosts, signedBy(a), orDash(strings.Join(a.Apps, ",")))
		}
		c.printTable(t)
		return nil
	}
	return cmd
}

func (c *cli) artifactRemove() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{Use: "remove DIGEST", Short: "Remove a package that no app names from all hosts", Args: args(cobra.ExactArgs(1))}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		client, err := c.dial()
		if err != nil {
			return err
		}
		defer client.CloseIdle()
		digest, err := wholeDigest(ctx, client, "remove", args[0])
		if err != nil {
			return err
		}
		if err := c.confirm(yes, "remove "+args[0], fmt.Sprintf("Remove package %s from all hosts?", digest.Short())); err != nil {
			return err
		}
		if err := client.Delete(ctx, "/v1/artifacts/"+string(digest), nil); err != nil {
			return err
		}
		fmt.Fprintf(c.out, "%s: removed\n", digest.Short())
		return nil
	}
	return cmd
}

// wholeDigest reads a digest, also as list shortens it.
func wholeDigest(ctx context.Context, client *api.Client, verb, s string) (artifact.Digest, error) {
	d, err := artifact.ParseDigest(s)
	if err == nil {
		return d, nil
	}
	if !strings.HasPrefix(s, "sha256:") || len(s) < len("sha256:")+8 {
		return "", usagef("%s: %w, or the first 8 of them", verb, err)
	}
	var list []api.Artifact
	if err := client.Get(ctx, "/v1/artifacts", nil, &list); err != nil {
		return "", err
	}
	found := ""
	for _, a := range list {
		if strings.HasPrefix(a.Digest, s) {
			if found != "" {
				return "", usagef("%s: several packages begin with %s; write more digits", verb, s)
			}
			found = a.Digest
		}
	}
	if found == "" {
		return "", errors.New(verb + " " + s + ": no host has such a package (ganglion artifact list)")
	}
	return artifact.Digest(found), nil
}
