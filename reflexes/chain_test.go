package reflexes

import (
	"testing"
	"time"
)

const heardRules = `reflex "answer" {
  scope    = "sense:story"
  when     = "sense.subject != ''"
  act      = [emit("heard")]
  cooldown = "1s"
}
reflex "many" {
  scope    = "sense:story"
  when     = "sense.count_1m >= 3"
  act      = [emit("many")]
  cooldown = "1s"
}`

// hears has a host hear one more event, and returns the rules that acted on it and
// what was told meanwhile.
func (h *hostUnderTest) hears(count int64, chain string) (acted []string, told []Outcome) {
	h.now += 5 * time.Second
	var cause Cause
	if chain != "" {
		cause = Cause{Kind: CauseChain, Chain: chain}
	}
	story := Target{ScopeSense, "story"}
	firings, _ := h.e.Step(h.now, []Fact{
		{SenseSubject, story, Text("app.web.1.unhealthy"), h.now, cause},
		{SenseCount, story, Int(count), h.now, cause},
	})
	for _, f := range firings {
		if act, ok := h.e.Permit(h.now, f, Authority{}); ok {
			h.acts = append(h.acts, act)
			acted = append(acted, act.Rule)
			h.e.Done(h.now, act.ID, true, "")
		}
	}
	h.journal = append(h.journal, h.e.TakeRecords()...)
	return acted, h.e.TakeOutcomes()
}

// What acts of reflexes led to, on whatever host, may be acted on by another rule
// while fewer than two stand before it, and never by one that is among them.
func TestChainOverTheStory(t *testing.T) {
	for chain, reason := range map[string]Reason{
		"": ReasonNone, "other": ReasonNone, "web/answer": ReasonNone,
		"answer": ReasonOwnAct, "answer,other": ReasonOwnAct, "other,answer": ReasonOwnAct, "a,b": ReasonDepth, "a,b,c": ReasonDepth,
	} {
		h := newHost(t, "boot", compile(t, heardRules))
		acted, told := h.hears(1, chain)
		if allowed := reason == ReasonNone; allowed != (len(acted) == 1) {
			t.Fatalf("after %q: acted %v", chain, acted)
		}
		if reason == ReasonNone {
			want := "answer"
			if chain != "" {
				want = chain + ",answer"
			}
			if h.acts[0].Chain != want || told[len(told)-1].Kind != Finished || told[len(told)-1].Chain != want {
				t.Errorf("after %q: chain %q, told %+v", chain, h.acts[0].Chain, told)
			}
			continue
		}
		if own := chain == "answer" || chain == "other,answer"; own != (len(told) == 0) {
			t.Errorf("after %q: told %+v; a rule that hears itself has nothing to tell, others have", chain, told)
		}
		if len(told) > 0 && (told[0].Reason != reason || told[0].Chain != chain+",answer") {
			t.Errorf("after %q: told %+v, want %v", chain, told[0], reason)
		}
	}
}

// Two rules that hear each other's refusals do not tell of them for ever.
func TestChainIsPassedOverQuietly(t *testing.T) {
	h := newHost(t, "boot", compile(t, heardRules))
	passed := 0
	for n := range int64(60) {
		_, told := h.hears(n+1, "a,b")
		for _, o := range told {
			if o.Kind == Suppressed && o.Rule == "answer" {
				passed++
			}
		}
	}
	if passed != 5 {
		t.Errorf("told %d times in 5 minutes, want once a minute", passed)
	}
}

// A story tells chains as facts print them.
func TestChainInAStory(t *testing.T) {
	const line = "sense:story sense.count = 3 by chain a,web/b"
	story, err := ParseStory("1s  " + line)
	if err != nil || len(story) != 1 || story[0].Facts[0].String() != line || story[0].Facts[0].Cause != (Cause{Kind: CauseChain, Chain: "a,web/b"}) {
		t.Errorf("%+v, %v", story, err)
	}
	for _, bad := range []string{"by chain", "by chain a b", "by act", "by act x"} {
		if _, err := ParseStory("1s  sense:story sense.count = 3 " + bad); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
}

// A count of what was heard goes on from the chain of the last, and what an act on
// it causes goes on from that.
func TestChainOfACount(t *testing.T) {
	h := newHost(t, "boot", compile(t, heardRules))
	h.hears(1, "other")
	h.hears(2, "other")
	acted, _ := h.hears(3, "other")
	if len(acted) != 2 || h.acts[len(h.acts)-1].Chain != "other,many" && h.acts[len(h.acts)-2].Chain != "other,many" {
		t.Fatalf("acted %v with %+v", acted, h.acts)
	}
	h = newHost(t, "boot", compile(t, heardRules))
	for n := range int64(5) {
		if acted, _ := h.hears(n+1, "many"); len(acted) > 0 && acted[0] == "many" {
			t.Fatal("acted on what it did itself")
		}
	}
}
