package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/intent"
	"github.com/ganglion-mesh/ganglion/intent/hcl"
)

// readIntents reads what PATH declares: an HCL file or a directory of them, a
// directory with a Go main package, or "-" for the JSON that the Go form
// prints. What is wrong in it is a usage error.
func (c *cli) readIntents(ctx context.Context, path string) (intent.Intents, error) {
	if path == "-" {
		b, err := io.ReadAll(io.LimitReader(c.in, intent.MaxIntents+1))
		if err != nil {
			return intent.Intents{}, fmt.Errorf("read intents from standard input: %w", err)
		}
		return parseIntents("standard input", b)
	}
	kind, err := kindOf(path)
	if err != nil {
		return intent.Intents{}, usage(err)
	}
	if kind == sourceGo {
		return c.runGo(ctx, path)
	}
	judge, err := api.NewJudge()
	if err != nil {
		return intent.Intents{}, err
	}
	in, err := hcl.ParsePathJudged(path, judge.Reflex)
	return in, usage(err)
}

// The kinds of PATH.
const (
	sourceHCL = "hcl"
	sourceGo  = "go"
)

// kindOf tells which form PATH is written in.
func kindOf(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("read intents: %w", err)
	}
	if !info.IsDir() {
		switch filepath.Ext(path) {
		case ".go":
			return "", fmt.Errorf("read intents %s: name the directory of the Go program, not a file of it: %s", path, filepath.Dir(path))
		case ".json":
			return "", fmt.Errorf("read intents %s: JSON comes through standard input: - < %s", path, path)
		}
		return sourceHCL, nil
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return "", fmt.Errorf("read intents: %w", err)
	}
	var inHCL, inGo bool
	for _, e := range entries {
		name := e.Name()
		inHCL = inHCL || !e.IsDir() && strings.HasSuffix(name, ".hcl")
		inGo = inGo || !e.IsDir() && strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go")
	}
	switch {
	case inHCL && inGo:
		return "", fmt.Errorf("read intents %s: it holds both *.hcl and *.go files; keep one form in a directory", path)
	case inGo:
		return sourceGo, nil
	case inHCL:
		return sourceHCL, nil
	}
	return "", fmt.Errorf("read intents %s: no *.hcl and no *.go file in it", path)
}

// runGo runs the Go program in dir, which prints its intents as JSON.
func (c *cli) runGo(ctx context.Context, dir string) (intent.Intents, error) {
	if _, err := exec.LookPath("go"); err != nil {
		return intent.Intents{}, fmt.Errorf("read intents %s: it is a Go program and there is no go command here; install Go, or write HCL, or apply - what the program printed elsewhere", dir)
	}
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, "go", "run", ".")
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return intent.Intents{}, fmt.Errorf("read intents %s: interrupted", dir)
	case errors.As(err, &exit):
		return intent.Intents{}, usagef("read intents %s: %s", dir, programErrors(errs.String()))
	case err != nil:
		return intent.Intents{}, fmt.Errorf("read intents %s: %w", dir, err)
	}
	return parseIntents(dir, out.Bytes())
}

// programErrors is what go run said, less its own notes, the first line first.
func programErrors(text string) string {
	var lines []string
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		if line == "" || strings.HasPrefix(line, "# ") || strings.HasPrefix(line, "exit status ") {
			continue
		}
		lines = append(lines, line)
	}
	if len(lines) == 0 {
		return "the program failed without a word"
	}
	return strings.Join(lines, "\n")
}

func parseIntents(from string, b []byte) (intent.Intents, error) {
	in, err := intent.ParseJSON(b)
	if err == nil {
		err = in.Validate()
	}
	if err != nil {
		return in, usagef("%s: %w", from, err)
	}
	return in, nil
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}
