package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/workload/signature"
)

// What artifact policy calls the two policies.
const (
	policyRequired = "required"
	policyOptional = "optional"
)

func (c *cli) artifactSign() *cobra.Command {
	var files []string
	cmd := &cobra.Command{
		Use: "sign DIGEST --signature FILE", Short: "Bring a signature of a package to the mesh",
		Long: `Brings a signature that minisign -S or ssh-keygen -Y sign -n ganglion has made, of
the package itself, or of the line that ganglion artifact push prints for it. The
second works for everything, also for what no host has yet:

  ganglion artifact push ./site >site.digest
  minisign -S -m site.digest
  ganglion artifact sign $(cat site.digest) --signature site.digest.minisig

The leader checks it, and takes it if a key that the mesh trusts has made it.`,
		Args: args(cobra.ExactArgs(1)),
	}
	cmd.Flags().StringArrayVar(&files, "signature", nil, "file with the signature (repeatable)")
	f := formatFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		texts, err := readSignatures("sign", files)
		if err != nil {
			return err
		}
		if len(texts) == 0 {
			return usagef("sign: no signature; say --signature FILE (minisign -S, or ssh-keygen -Y sign -n %s, makes one)", signature.Namespace)
		}
		client, err := c.dial()
		if err != nil {
			return err
		}
		defer client.CloseIdle()
		digest, err := wholeDigest(ctx, client, "sign", args[0])
		if err != nil {
			return err
		}
		var out api.SignatureResponse
		for _, text := range texts {
			if out, err = c.bring(ctx, client, string(digest), text, ""); err != nil {
				return err
			}
		}
		if f.json() {
			return c.printJSON(out)
		}
		fmt.Fprintf(c.out, "%s: signed by %s\n", digest.Short(), strings.Join(out.SignedBy, ", "))
		return nil
	}
	return cmd
}

// readSignatures reads the files of --signature.
func readSignatures(verb string, files []string) (texts []string, _ error) {
	for _, file := range files {
		text, err := readSignature(file)
		if err != nil {
			return nil, usagef("%s: %w", verb, err)
		}
		texts = append(texts, text)
	}
	return texts, nil
}

func (c *cli) artifactTrust() *cobra.Command {
	cmd := &cobra.Command{
		Use: "trust NAME KEY", Short: "Let signatures of a key count: a minisign or ssh-ed25519 public key, or its file",
		Args: args(cobra.RangeArgs(2, 4)), // a line of ssh-keygen has three words
	}
	f := formatFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := checkName("trust", args[0]); err != nil {
			return err
		}
		text, err := keyText(args[1:])
		if err != nil {
			return usagef("trust %s: %w", args[0], err)
		}
		if _, err := signature.ParseKey(text); err != nil {
			return usagef("trust %s: %w", args[0], err)
		}
		var key api.SigningKey
		if err := c.post(cmd.Context(), "/v1/signing/keys", api.TrustRequest{Name: args[0], Key: text}, &key); err != nil {
			return err
		}
		if f.json() {
			return c.printJSON(key)
		}
		fmt.Fprintf(c.out, "%s: %s key %s is trusted\n", key.Name, key.Kind, key.ID)
		return nil
	}
	return cmd
}

// keyText is the key that the words are, or that is in the file they name.
func keyText(words []string) (string, error) {
	if len(words) > 1 {
		return strings.Join(words, " "), nil
	}
	f, err := os.Open(words[0])
	switch {
	case errors.Is(err, fs.ErrNotExist) && !strings.HasSuffix(words[0], ".pub"):
		return words[0], nil
	case err != nil:
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 64<<10))
	return string(b), err
}

func (c *cli) artifactDistrust() *cobra.Command {
	cmd := &cobra.Command{Use: "distrust NAME", Short: "Let signatures of a key count no more; what it let in runs on", Args: args(cobra.ExactArgs(1))}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := checkName("distrust", args[0]); err != nil {
			return err
		}
		client, err := c.dial()
		if err != nil {
			return err
		}
		defer client.CloseIdle()
		var out api.DistrustResponse
		if err := client.Delete(cmd.Context(), "/v1/signing/keys/"+args[0], &out); err != nil {
			return err
		}
		fmt.Fprintf(c.out, "%s: not trusted any more\n", args[0])
		if len(out.Apps) > 0 {
			fmt.Fprintf(c.out, "It let in packages of %s: they run on, also when they are moved; to stop what you do not trust, delete the app or apply another package\n", strings.Join(out.Apps, ", "))
		}
		return nil
	}
	return cmd
}

func (c *cli) artifactPolicy() *cobra.Command {
	cmd := &cobra.Command{
		Use: "policy [required|optional]", Short: "Show whose signatures count, or say whether packages must be signed",
		Args: args(cobra.MaximumNArgs(1)),
	}
	f := formatFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 1 {
			if args[0] != policyRequired && args[0] != policyOptional {
				return usagef("policy %q: want %s or %s", args[0], policyRequired, policyOptional)
			}
			if err := c.post(cmd.Context(), "/v1/signing", api.SigningRequest{Required: args[0] == policyRequired}, nil); err != nil {
				return err
			}
		}
		var p api.Signing
		if err := c.get(cmd.Context(), "/v1/signing", &p); err != nil {
			return err
		}
		if f.json() {
			return c.printJSON(p)
		}
		c.printPolicy(p, f.wide())
		return nil
	}
	return cmd
}

func (c *cli) printPolicy(p api.Signing, wide bool) {
	switch {
	case p.Required:
		fmt.Fprintln(c.out, "Packages must be signed by one of these keys.")
	case len(p.Keys) == 0:
		fmt.Fprintln(c.out, "Packages need no signature, and no key is trusted (ganglion artifact trust NAME KEY).")
		return
	default:
		fmt.Fprintln(c.out, "Packages need no signature; those of these keys are kept.")
	}
	head := []string{"NAME", "KIND", "ID"}
	if wide {
		head = append(head, "KEY")
	}
	t := newTable(head...)
	for _, k := range p.Keys {
		row := []string{k.Name, k.Kind, k.ID}
		if wide {
			row = append(row, k.Key)
		}
		t.row(row...)
	}
	c.printTable(t)
}

// signedBy is who signed a package, as lists show it.
func signedBy(a api.Artifact) string { return orDash(strings.Join(a.SignedBy, ",")) }
