package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/events"
	"github.com/ganglion-mesh/ganglion/reflexes"
)

// maxStory bounds what is read of a story.
const maxStory = 16 << 20

// reflexTest is one reflex test command.
type reflexTest struct {
	*cli
	story    string
	facts    []string
	recorded time.Duration
	tail     time.Duration
}

func (c *cli) reflexTestCommand() *cobra.Command {
	r := &reflexTest{cli: c}
	cmd := &cobra.Command{
		Use: "test PATH | NAME", Short: "Run reflexes over recorded or given facts, and print what they would do",
		Long: `Runs the reflexes that PATH declares, or the declared one named NAME (or
APP/NAME), over a story, through the very engine that runs on hosts and in no
time at all. Nothing is acted on. The story is a file (--story), facts (--fact),
or what this host recorded of its copies (--recorded). A story has a line for
each moment:

    1.5s  host host.memory.available_ratio = 0.04
    2s..9s every 500ms  copy:web/0 check.failures = 3
    3s    exit web/0 signal SIGKILL ran 3s
    4s    freeze | thaw | restart-agent | crash-agent | reboot
    1m    end

docs/reflexes.md tells all of it.`,
		Args: args(cobra.ExactArgs(1)),
	}
	cmd.Flags().StringVar(&r.story, "story", "", "file with the story; - is standard input")
	cmd.Flags().StringArrayVar(&r.facts, "fact", nil, "a line of a story; may be repeated")
	cmd.Flags().DurationVar(&r.recorded, "recorded", 0, "replay what this host recorded of its copies in the last so long")
	cmd.Flags().DurationVar(&r.tail, "tail", time.Minute, "how long to go on after the last moment")
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return r.run(cmd.Context(), args[0]) }
	return cmd
}

func (r *reflexTest) run(ctx context.Context, what string) error {
	given := 0
	for _, is := range []bool{r.story != "", len(r.facts) > 0, r.recorded > 0} {
		if is {
			given++
		}
	}
	if given != 1 {
		return usagef("reflex test: want one of --story FILE, --fact LINE and --recorded 1h")
	}
	rules, err := r.rules(ctx, what)
	if err != nil {
		return err
	}
	story, err := r.moments(ctx)
	if err != nil {
		return err
	}
	text, err := reflexes.Replay(rules, story, reflexes.ReplayOptions{Tail: r.tail})
	fmt.Fprint(r.out, text)
	return usage(err)
}

// rules compiles what PATH declares or what NAME is.
func (r *reflexTest) rules(ctx context.Context, what string) (out []*reflexes.Rule, err error) {
	judge, err := api.NewJudge()
	if err != nil {
		return nil, err
	}
	var list []api.Reflex
	if _, err := os.Stat(what); err == nil || what == "-" {
		in, err := r.readIntents(ctx, what)
		if err != nil {
			return nil, err
		}
		for _, x := range in.Reflexes {
			list = append(list, api.ShowReflex(x, ""))
		}
		for _, a := range in.Apps {
			for _, x := range a.Reflexes {
				list = append(list, api.ShowReflex(x, a.Name))
			}
		}
		if len(list) == 0 {
			return nil, usagef("reflex test %s: it declares no reflex", what)
		}
	} else if list, err = r.declared(ctx, what); err != nil {
		return nil, err
	}
	for _, x := range list {
		rule, err := judge.Rule(x.Declared, x.App)
		if err != nil {
			return nil, usagef("reflex %s: %w", api.RuleName(x.Name, x.App), err)
		}
		out = append(out, rule)
	}
	return out, nil
}

// declared asks the mesh for the reflexes of a name.
func (r *reflexTest) declared(ctx context.Context, name string) (out []api.Reflex, err error) {
	var list []api.Reflex
	if err := r.read(ctx, "/v1/reflexes", nil, &list); err != nil {
		return nil, fmt.Errorf("reflex test %s: there is no such file, and the mesh cannot be asked: %w", name, err)
	}
	for _, x := range list {
		if x.Name == name || api.RuleName(x.Name, x.App) == name {
			out = append(out, x)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("reflex test %s: there is neither such a file nor such a reflex; see ganglion reflex list", name)
	}
	return out, nil
}

// moments reads the story.
func (r *reflexTest) moments(ctx context.Context) ([]reflexes.Moment, error) {
	if r.recorded > 0 {
		return r.replayed(ctx)
	}
	text := strings.Join(r.facts, "\n")
	if r.story != "" {
		in := r.in
		if r.story != "-" {
			file, err := os.Open(r.story)
			if err != nil {
				return nil, usagef("reflex test: read the story: %w", err)
			}
			defer file.Close()
			in = file
		}
		b, err := io.ReadAll(io.LimitReader(in, maxStory+1))
		switch {
		case err != nil:
			return nil, fmt.Errorf("reflex test: read the story: %w", err)
		case len(b) > maxStory:
			return nil, usagef("reflex test: the story has more than %d bytes", maxStory)
		}
		text = string(b)
	}
	story, err := reflexes.ParseStory(text)
	return story, usage(err)
}

// replayed makes a story of what this host recorded.
func (r *reflexTest) replayed(ctx context.Context) ([]reflexes.Moment, error) {
	client, err := r.dial()
	if err != nil {
		return nil, err
	}
	defer client.CloseIdle()
	var list []events.Event
	var broken error
	query := url.Values{"since": {r.recorded.String()}, "filter": {"app.>"}}
	err = client.Stream(ctx, "/v1/local/events", query, func(line []byte) bool {
		var e events.Event
		if broken = json.Unmarshal(line, &e); broken != nil {
			return false
		}
		list = append(list, e)
		return true
	})
	if err = errors.Join(err, broken); err != nil {
		return nil, fmt.Errorf("reflex test: read what was recorded: %w", err)
	}
	story, err := recordedStory(list)
	if err == nil && len(story) == 0 {
		err = fmt.Errorf("reflex test: this host recorded nothing of copies in the last %s", r.recorded)
	}
	return story, err
}

// recordedStory tells what happened to copies as their host's rules saw it. It
// begins with the first event.
func recordedStory(list []events.Event) ([]reflexes.Moment, error) {
	var text strings.Builder
	for _, e := range list {
		words := strings.Split(e.Subject, "/")
		if len(words) != 3 {
			continue
		}
		copy := words[1] + "/" + words[2]
		at := e.Time.Sub(list[0].Time)
		tell := func(format string, args ...any) {
			fmt.Fprintf(&text, "%s "+format+"\n", append([]any{max(at, 0)}, args...)...)
		}
		switch strings.TrimPrefix(e.Type, "dev.ganglion.app.") {
		case "started", "restarted":
			tell("copy:%s app.running = true", copy)
		case "ready":
			tell("copy:%s app.ready = true", copy)
			tell("copy:%s check.failures = 0", copy)
		case "unhealthy":
			var d events.AppUnhealthy
			if err := json.Unmarshal(e.Data, &d); err != nil {
				return nil, fmt.Errorf("read event %s: %w", e.ID, err)
			}
			tell("copy:%s app.ready = false", copy)
			tell("copy:%s check.failures = %d", copy, d.Failures)
		case "exited":
			var d events.AppExited
			if err := json.Unmarshal(e.Data, &d); err != nil {
				return nil, fmt.Errorf("read event %s: %w", e.ID, err)
			}
			how := " code -1"
			if d.Code != nil {
				how = " code " + strconv.Itoa(*d.Code)
			}
			if d.Signal != "" {
				how = " signal " + d.Signal
			}
			tell("exit %s%s ran %s", copy, how, time.Duration(d.RanMS)*time.Millisecond)
		case "stopped", "fenced":
			tell("exit %s by requested", copy)
		}
	}
	return reflexes.ParseStory(text.String())
}
