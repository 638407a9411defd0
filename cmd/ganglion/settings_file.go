package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclparse"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"

	"github.com/ganglion-mesh/ganglion/intent"
)

// defaultConfig is read if it is there.
const defaultConfig = "/etc/ganglion/agent.hcl"

// maxConfig bounds the size of a configuration file.
const maxConfig = 1 << 20

// fromFile reads a configuration file. One that was not asked for by name may
// be absent.
func fromFile(path string, named bool) (values, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) && !named {
		return values{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	if info.IsDir() || info.Size() > maxConfig {
		return nil, fmt.Errorf("read configuration %s: want a file of at most %d bytes", path, maxConfig)
	}
	src, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	return parseConfig(path, src)
}

// parseConfig reads a configuration file's text. Every fault is told with its
// place.
func parseConfig(path string, src []byte) (values, error) {
	file, diags := hclparse.NewParser().ParseHCL(src, path)
	if diags.HasErrors() {
		return nil, diagnosed(diags)
	}
	attrs, diags := file.Body.JustAttributes()
	if diags.HasErrors() {
		return nil, diagnosed(diags)
	}
	out := values{}
	var faults hcl.Diagnostics
	for name, attr := range attrs {
		s, ok := findSetting(name)
		if !ok {
			faults = append(faults, at(attr.NameRange, unknownKey(name)))
			continue
		}
		raw, diags := attr.Expr.Value(nil)
		if diags.HasErrors() {
			faults = append(faults, diags...)
			continue
		}
		v, err := s.fromCty(raw)
		if err != nil {
			faults = append(faults, at(attr.Expr.Range(), name+": "+err.Error()))
			continue
		}
		v.from = fmt.Sprintf("%s:%d:%d", path, attr.NameRange.Start.Line, attr.NameRange.Start.Column)
		out[name] = v
	}
	if len(faults) > 0 {
		return nil, diagnosed(faults)
	}
	return out, nil
}

func unknownKey(name string) string {
	var keys []string
	for _, s := range settings {
		keys = append(keys, s.key)
	}
	if near := intent.Nearest(name, keys); near != "" {
		return fmt.Sprintf("unknown key %q; did you mean %s?", name, near)
	}
	return fmt.Sprintf("unknown key %q; known are %s", name, strings.Join(keys, ", "))
}

func at(r hcl.Range, why string) *hcl.Diagnostic {
	return &hcl.Diagnostic{Severity: hcl.DiagError, Summary: why, Subject: &r}
}

// diagnosed makes one error of diagnostics, a line each, in the order of their
// places.
func diagnosed(diags hcl.Diagnostics) error {
	var errs configFaults
	for _, d := range diags {
		line := strings.TrimSuffix(d.Summary, ".")
		if d.Detail != "" {
			line += ": " + strings.Join(strings.Fields(d.Detail), " ")
		}
		r := hcl.Range{}
		if d.Subject != nil {
			r = *d.Subject
		}
		errs = append(errs, configFault{r.Start.Line, r.Start.Column, fmt.Sprintf("%s:%d:%d: %s", r.Filename, r.Start.Line, r.Start.Column, line)})
	}
	return errs.sorted()
}

// fromCty reads the form that the file uses. A list or a map may also be
// written as a flag writes it.
func (s setting) fromCty(raw cty.Value) (value, error) {
	want := map[kind]cty.Type{kindText: cty.String, kindBool: cty.Bool, kindList: cty.List(cty.String), kindMap: cty.Map(cty.String)}[s.kind]
	if raw.IsNull() {
		return value{}, errors.New("want a value, not null")
	}
	if raw.Type() == cty.String && s.kind != kindText {
		v, err := s.parseValue(raw.AsString(), "value")
		return v, err
	}
	got, err := convert.Convert(raw, want)
	if err != nil || !got.IsWhollyKnown() {
		return value{}, fmt.Errorf("want %s", map[kind]string{kindText: "a string", kindBool: "true or false", kindList: "a list of strings", kindMap: "a map such as { zone = \"a\" }"}[s.kind])
	}
	var v value
	switch s.kind {
	case kindText:
		v.text = got.AsString()
	case kindBool:
		v.on = got.True()
	case kindList:
		for it := got.ElementIterator(); it.Next(); {
			_, e := it.Element()
			if e.IsNull() {
				return value{}, errors.New("want a list of strings, none of them null")
			}
			v.list = append(v.list, e.AsString())
		}
	case kindMap:
		v.pairs = map[string]string{}
		for it := got.ElementIterator(); it.Next(); {
			k, e := it.Element()
			if e.IsNull() {
				return value{}, fmt.Errorf("%s: want a string, not null", k.AsString())
			}
			v.pairs[k.AsString()] = e.AsString()
		}
	}
	return v, nil
}
