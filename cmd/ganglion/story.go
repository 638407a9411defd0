package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/events"
)

func (c *cli) eventsCommand() *cobra.Command {
	var follow bool
	var since time.Duration
	cmd := &cobra.Command{
		Use: "events [-f] [--since D] [FILTER]", Short: "The story of the mesh, live or replayed",
		Long: `Prints what happened, from the recorders of all hosts, oldest first. FILTER is a
subject pattern as on NATS, without ganglion.<mesh>.: app.web.> or host.*.failed.
With -f it goes on with what happens; without --since only from now on.`,
		Args: args(cobra.MaximumNArgs(1)),
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what happens")
	cmd.Flags().DurationVar(&since, "since", 0, "how far back, such as 10m (default: everything, with -f nothing)")
	f := formatFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		query, err := eventQuery(follow, since, args)
		if err != nil {
			return err
		}
		return c.streamEvents(cmd.Context(), query, f)
	}
	return cmd
}

func eventQuery(follow bool, since time.Duration, args []string) (url.Values, error) {
	query := url.Values{}
	if len(args) == 1 {
		if _, err := events.CompileFilter(args[0]); err != nil {
			return nil, usagef("events: %w", err)
		}
		query.Set("filter", args[0])
	}
	if since < 0 {
		return nil, usagef("events: --since %s: want how far back, such as 10m", since)
	}
	if since > 0 {
		query.Set("since", since.String())
	}
	if follow {
		query.Set("follow", "true")
	}
	return query, nil
}

func (c *cli) streamEvents(ctx context.Context, query url.Values, f *format) error {
	client, err := c.dial()
	if err != nil {
		return err
	}
	defer client.CloseIdle()
	head := func(h http.Header) {
		if missing := h.Values(api.HeaderMissing); len(missing) > 0 {
			fmt.Fprintf(c.errs, "events of %s are missing: they could not be asked\n", strings.Join(missing, ", "))
		}
	}
	var broken error
	err = client.StreamWithHeader(ctx, "/v1/events", query, head, func(line []byte) bool {
		broken = c.printEvent(line, f)
		return broken == nil
	})
	if ctx.Err() != nil {
		return nil // the reader has seen enough
	}
	if err == nil && query.Get("follow") != "" && broken == nil {
		err = fmt.Errorf("follow events: the agent ended the stream; run it again with --since to go on")
	}
	if broken != nil {
		return broken
	}
	return err
}

func (c *cli) printEvent(line []byte, f *format) error {
	if f.json() {
		_, err := fmt.Fprintf(c.out, "%s\n", line)
		return err
	}
	e, err := events.Parse(line)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(c.out, c.eventLine(e, f.wide()))
	return err
}

// eventLine is one event for people: when, what in the words of the NATS
// subject, its data, and who recorded it.
func (c *cli) eventLine(e events.Event, wide bool) string {
	_, what, _ := strings.Cut(e.Kind(), ".")
	subject := strings.ReplaceAll(e.Subject, "/", ".") + "." + what
	line := fmt.Sprintf("%s  %-28s  %s", c.colour(c.outTerm, dim, e.Time.Local().Format("2006-01-02 15:04:05.000")), subject, dataText(e.Data))
	if host := "host." + e.Host() + "."; !strings.HasPrefix(subject, host) {
		line += c.colour(c.outTerm, dim, "  @"+e.Host())
	}
	if wide {
		line += fmt.Sprintf("  id=%s seq=%d revision=%d", e.ID, e.Seq, e.Revision)
		if e.CauseID != "" {
			line += " cause=" + e.CauseID
		}
		if e.Chain != "" {
			line += " chain=" + e.Chain
		}
	}
	return strings.TrimRight(line, " ")
}

// dataText is an event's data as key=value in the order it was written.
func dataText(data json.RawMessage) string {
	dec := json.NewDecoder(bytes.NewReader(data))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return string(data)
	}
	var out []string
	for dec.More() {
		key, err := dec.Token()
		var value json.RawMessage
		if err != nil || dec.Decode(&value) != nil {
			return string(data)
		}
		text := string(value)
		var s string
		if json.Unmarshal(value, &s) == nil && text != "null" {
			text = s
			if strings.ContainsAny(s, " =\"") || s == "" || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
				text = strconv.Quote(s)
			}
		}
		out = append(out, fmt.Sprintf("%v=%s", key, text))
	}
	return strings.Join(out, " ")
}

// maxPart bounds how much of a line without an end is held back.
const maxPart = 64 << 10

// logView is one logs command.
type logView struct {
	*cli
	target target
	follow bool
	local  bool
	tail   int
	format *format
	client *api.Client
	prefix bool
	part   map[string][]byte // of each copy and stream: a line that has not ended
	failed error
}

func (c *cli) logsCommand() *cobra.Command {
	v := &logView{cli: c, part: map[string][]byte{}}
	cmd := &cobra.Command{Use: "logs APP[/COPY] [-f]", Short: "Print the output of copies, wherever they run", Args: args(cobra.ExactArgs(1))}
	cmd.Flags().BoolVarP(&v.follow, "follow", "f", false, "go on with what is printed")
	cmd.Flags().IntVar(&v.tail, "tail", 0, "only the last N lines of each copy (0: all)")
	cmd.Flags().BoolVar(&v.local, "local", false, "only the copies on this host, with no leader")
	v.format = formatFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var err error
		if v.target, err = parseTarget("logs", args[0]); err != nil {
			return err
		}
		if v.tail < 0 {
			return usagef("logs: --tail %d: want a number of lines", v.tail)
		}
		if v.client, err = c.dial(); err != nil {
			return err
		}
		defer v.client.CloseIdle()
		return v.run(cmd.Context())
	}
	return cmd
}

func (v *logView) run(ctx context.Context) error {
	list, err := v.copies(ctx)
	if err != nil {
		return err
	}
	v.prefix = len(list) > 1 && v.target.copy == ""
	query := v.target.query()
	if v.follow {
		query.Set("follow", "true")
	}
	if v.tail > 0 {
		query.Set("tail", strconv.Itoa(v.tail))
	}
	if v.local {
		err = v.streamLocal(ctx, list, query)
	} else {
		err = v.client.Stream(ctx, "/v1/logs/"+v.target.app, query, v.take)
	}
	v.flush()
	if ctx.Err() != nil {
		return nil
	}
	if err == nil {
		err = v.failed
	}
	return err
}

// copies lists the copies that the command is about.
func (v *logView) copies(ctx context.Context) ([]topology.CopyStatus, error) {
	sv := &statusView{cli: v.cli, app: v.target.app, local: v.local, client: v.client}
	list, err := sv.read(ctx, &watch{client: v.client, app: v.target.app})
	if err != nil {
		return nil, err
	}
	if v.target.copy == "" {
		return list[0].Copies, nil
	}
	for _, cp := range list[0].Copies {
		if cp.ID == v.target.String() {
			return []topology.CopyStatus{cp}, nil
		}
	}
	return nil, api.Errorf(api.CodeNotFound, "find copy %s: app %s has no such copy (ganglion status %s)", v.target, v.target.app, v.target.app)
}

// streamLocal reads the copies of this host one after the other; only one can
// be followed.
func (v *logView) streamLocal(ctx context.Context, list []topology.CopyStatus, query url.Values) error {
	if v.follow && len(list) > 1 {
		return usagef("logs: --local -f follows one copy; name it: %s", list[0].ID)
	}
	for _, cp := range list {
		if err := v.client.Stream(ctx, "/v1/local/logs/"+cp.ID, query, v.take); err != nil {
			return err
		}
	}
	return nil
}

// take prints one chunk. The pieces of a line are put together before it gets
// the name of its copy.
func (v *logView) take(line []byte) bool {
	var chunk api.LogChunk
	if err := json.Unmarshal(line, &chunk); err != nil {
		v.failed = fmt.Errorf("read logs: %w", err)
		return false
	}
	if v.format.json() {
		return v.printLine(chunk) == nil
	}
	if chunk.Error != "" {
		v.failed = fmt.Errorf("read logs of %s on host %s: %s", chunk.Copy, chunk.Host, chunk.Error)
		return true
	}
	if !v.prefix {
		_, err := fmt.Fprint(v.out, chunk.Data)
		return err == nil
	}
	key := chunk.Copy + " " + chunk.Stream
	text := append(v.part[key], chunk.Data...)
	for {
		i := bytes.IndexByte(text, '\n')
		if i < 0 {
			break
		}
		if _, err := fmt.Fprintf(v.out, "%s  %s\n", v.colour(v.outTerm, dim, chunk.Copy), text[:i]); err != nil {
			return false
		}
		text = text[i+1:]
	}
	if len(text) > maxPart {
		fmt.Fprintf(v.out, "%s  %s\n", v.colour(v.outTerm, dim, chunk.Copy), text)
		text = nil
	}
	v.part[key] = append([]byte(nil), text...)
	return true
}

// flush prints the lines that never ended.
func (v *logView) flush() {
	for _, key := range sortedKeys(v.part) {
		if id, _, _ := strings.Cut(key, " "); len(v.part[key]) > 0 {
			fmt.Fprintf(v.out, "%s  %s\n", v.colour(v.outTerm, dim, id), v.part[key])
		}
	}
}
