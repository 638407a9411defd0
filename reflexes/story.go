package reflexes

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Moment is one line of a story: a fact, several at once, or something that
// happened to the mesh or to the agent.
type Moment struct {
	At    Boot
	Facts []Fact
	Do    string   // "" for facts; else a word such as freeze
	Args  []string // what follows it
}

// ParseStory reads a story, a line a moment:
//
//	1.5s  host host.memory.available_ratio = 0.04
//	2s    copy:web/1 app.ready = false by deploy
//	2s    sense:db sense.count = 3 by chain db-slow,web/shed
//	2s    exit web/1 signal SIGKILL ran 3s
//	3s..9s every 500ms  host host.memory.available_ratio = 0.04
//	4s    freeze [hard] [APP] | thaw | gate shut | gate open | permit
//	4s    lend 3 for 5m | mute [TARGET] for 10m | deploying TARGET for 10m
//	4s    others RULE 3 | failing RULE | working RULE
//	5s    restart-agent | crash-agent | reboot
//	1m    end
//
// Exits are counted as they come. Text after # is ignored. Times do not go back.
func ParseStory(text string) ([]Moment, error) {
	var out []Moment
	exits := map[string]int64{}
	for n, line := range strings.Split(text, "\n") {
		line, _, _ = strings.Cut(line, "#")
		words := fields(line)
		if len(words) == 0 {
			continue
		}
		moments, err := parseLine(words, exits)
		if err != nil {
			return nil, fmt.Errorf("line %d of the story: %w", n+1, err)
		}
		out = append(out, moments...)
	}
	slices.SortStableFunc(out, func(a, b Moment) int { return int(min(max(a.At-b.At, -1), 1)) })
	return out, nil
}

// fields splits a line into words; a string in quotes is one.
func fields(line string) []string {
	var out []string
	for line = strings.TrimSpace(line); line != ""; line = strings.TrimSpace(line) {
		if line[0] == '"' {
			if q, err := strconv.QuotedPrefix(line); err == nil {
				out = append(out, q)
				line = line[len(q):]
				continue
			}
		}
		i := strings.IndexAny(line, " \t")
		if i < 0 {
			i = len(line)
		}
		out = append(out, line[:i])
		line = line[i:]
	}
	return out
}

func parseLine(words []string, exits map[string]int64) ([]Moment, error) {
	from, to, repeated := strings.Cut(words[0], "..")
	at, err := time.ParseDuration(from)
	if err != nil || at < 0 {
		return nil, fmt.Errorf("%q is not a time such as 1.5s", words[0])
	}
	times := []Boot{at}
	rest := words[1:]
	if repeated {
		if len(rest) < 2 || rest[0] != "every" {
			return nil, fmt.Errorf("want %s every 500ms, and what", words[0])
		}
		end, err1 := time.ParseDuration(to)
		step, err2 := time.ParseDuration(rest[1])
		if err1 != nil || err2 != nil || step <= 0 || end < at || (end-at)/step > 100000 {
			return nil, fmt.Errorf("%s every %s is not a series of at most 100000 times", words[0], rest[1])
		}
		for t := at + step; t <= end; t += step {
			times = append(times, t)
		}
		rest = rest[2:]
	}
	if len(rest) == 0 {
		return nil, fmt.Errorf("nothing happens")
	}
	var out []Moment
	for _, t := range times {
		m, err := parseWhat(t, rest, exits)
		if err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	return out, nil
}

// verbs are what can happen besides facts, with the number of words that may
// follow.
var verbs = map[string][2]int{
	"freeze": {0, 2}, "thaw": {0, 0}, "gate": {1, 1}, "permit": {0, 0}, "lend": {3, 3}, "mute": {2, 3}, "deploying": {3, 3},
	"others": {2, 2}, "failing": {1, 1}, "working": {1, 1}, "restart-agent": {0, 0}, "crash-agent": {0, 0}, "reboot": {0, 0}, "end": {0, 0},
}

func parseWhat(at Boot, words []string, exits map[string]int64) (Moment, error) {
	if words[0] == "exit" {
		return parseExit(at, words[1:], exits)
	}
	if n, ok := verbs[words[0]]; ok {
		if len(words)-1 < n[0] || len(words)-1 > n[1] {
			return Moment{}, fmt.Errorf("%s: too few or too many words", words[0])
		}
		return Moment{At: at, Do: words[0], Args: words[1:]}, nil
	}
	f, err := parseFact(words)
	f.At = at
	return Moment{At: at, Facts: []Fact{f}}, err
}

// parseExit reads WEB/1 [signal S] [code N] [ran D] [oom] [by CAUSE].
func parseExit(at Boot, words []string, exits map[string]int64) (Moment, error) {
	if len(words) == 0 || !strings.Contains(words[0], "/") {
		return Moment{}, fmt.Errorf("exit: want the copy, as in exit web/1")
	}
	exits[words[0]]++
	e := Exit{Copy: words[0], Count: exits[words[0]], At: at}
	for i := 1; i < len(words); i++ {
		var err error
		word, arg := words[i], ""
		if word != "oom" {
			if i++; i == len(words) {
				return Moment{}, fmt.Errorf("exit: %s what?", word)
			}
			arg = words[i]
		}
		switch word {
		case "oom":
			e.OOM = true
		case "signal":
			e.Signal, e.Code = arg, -1
		case "code":
			e.Code, err = strconv.ParseInt(arg, 10, 64)
		case "ran":
			e.Ran, err = time.ParseDuration(arg)
		case "by":
			e.Cause, err = parseCause(words[i:])
			i = len(words)
		default:
			err = fmt.Errorf("exit: %q is not known", word)
		}
		if err != nil {
			return Moment{}, err
		}
	}
	return Moment{At: at, Facts: e.Facts(nil)}, nil
}

// parseFact reads what Fact.String writes.
func parseFact(words []string) (Fact, error) {
	if len(words) < 4 || words[2] != "=" {
		return Fact{}, fmt.Errorf("want TARGET VARIABLE = VALUE, as in host host.memory.available_ratio = 0.04")
	}
	var f Fact
	if err := f.Target.UnmarshalText([]byte(words[0])); err != nil {
		return f, err
	}
	if err := f.Var.UnmarshalText([]byte(words[1])); err != nil {
		return f, err
	}
	if words[3] != "?" {
		if err := json.Unmarshal([]byte(words[3]), &f.Value); err != nil {
			return f, err
		}
	}
	v := f.Var.Info()
	value, ok := f.Value.Convert(v.Type)
	if !ok || v.Window > 0 || v.Scope != f.Target.Scope {
		return f, fmt.Errorf("%s is a %s of a %s that senses tell", v.Name, v.Type, v.Scope)
	}
	f.Value = value
	if len(words) == 4 {
		return f, nil
	}
	if words[4] != "by" {
		return f, fmt.Errorf("%q after the value is not known", words[4])
	}
	var err error
	f.Cause, err = parseCause(words[5:])
	return f, err
}

func parseCause(words []string) (Cause, error) {
	if len(words) == 1 {
		for i, n := range causeNames {
			if n == words[0] && i > 0 && CauseKind(i) < CauseAct {
				return Cause{Kind: CauseKind(i)}, nil
			}
		}
	}
	if len(words) == 2 && words[0] == "act" {
		n, err := strconv.ParseUint(words[1], 10, 63)
		return Cause{Kind: CauseAct, Act: ActID(n)}, err
	}
	if len(words) == 2 && words[0] == "chain" {
		return Cause{Kind: CauseChain, Chain: words[1]}, nil
	}
	return Cause{}, fmt.Errorf("by %s: want requested, deploy, act N or chain RULE,RULE", strings.Join(words, " "))
}
