package agent

import (
	"net/url"
	"testing"

	"github.com/ganglion-mesh/ganglion/consensus/topology"
)

// A later era is newer at whatever index and term: a restore or a recovery may
// begin anew in both. Within an era neither may fall.
func TestLaterEraIsNewerAtAnyIndex(t *testing.T) {
	at := func(era, term, index uint64) topology.Slice {
		return topology.Slice{Era: era, Term: term, Index: index}
	}
	for _, c := range []struct {
		a, b  topology.Slice
		older bool // a than b
	}{
		{at(2, 1, 5), at(1, 9, 500), false},
		{at(1, 9, 500), at(2, 1, 5), true},
		{at(1, 3, 9), at(1, 3, 9), false},
		{at(1, 3, 8), at(1, 3, 9), true},
		{at(1, 2, 9), at(1, 3, 9), true},
		{at(1, 4, 8), at(1, 3, 9), true},
		{at(1, 4, 9), at(1, 3, 9), false},
	} {
		if got := older(c.a, c.b); got != c.older {
			t.Errorf("%+v older than %+v: %t", c.a, c.b, got)
		}
	}
	for _, c := range []struct {
		a, b   mark
		before bool
	}{
		{mark{1, 500}, mark{2, 5}, true}, {mark{2, 5}, mark{1, 500}, false}, {mark{1, 5}, mark{1, 6}, true}, {mark{1, 5}, mark{1, 5}, false},
	} {
		if got := c.a.before(c.b); got != c.before {
			t.Errorf("%+v before %+v: %t", c.a, c.b, got)
		}
	}
	if m, err := markOf(url.Values{"era": {"3"}, "index": {"7"}}); err != nil || m != (mark{3, 7}) {
		t.Errorf("%+v, %v", m, err)
	}
	for _, bad := range []url.Values{{}, {"era": {"1"}}, {"era": {"x"}, "index": {"7"}}, {"era": {"1"}, "index": {"-7"}}} {
		if m, err := markOf(bad); err == nil {
			t.Errorf("%v was read as %+v", bad, m)
		}
	}
}
