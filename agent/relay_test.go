package agent

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/trust"
)

// TestReportsAndLogsWithoutTheLeader: a voter hands the report of a host on, only
// a voter may, and the output of copies is read where they are with no leader.
func TestReportsAndLogsWithoutTheLeader(t *testing.T) {
	hosts := startMesh(t, 4)
	m := awaitVoters(t, hosts[0], 3)
	named := func(name string) *host {
		return hosts[slices.IndexFunc(hosts, func(h *host) bool { return h.cfg.Name == name })]
	}
	leader := named(m.Leader)
	i := slices.IndexFunc(hosts, func(h *host) bool { return !slices.Contains(m.Voters, h.cfg.Name) })
	plain := hosts[i]
	voter := named(m.Voters[slices.IndexFunc(m.Voters, func(n string) bool { return n != m.Leader })])

	own := credential{name: "plain", client: callAs(t, plain.agent.server.Load().id), base: "https://" + voter.addr()}
	report := func(seq uint64) api.Report {
		return api.Report{Host: plain.cfg.Name, HostID: "forged", Boot: "test", Seq: seq, Voter: "auto"}
	}
	await(t, 10*time.Second, "relayed", func() error {
		if status, code := own.call(t, "POST", "/v1/report", report(1)); status != 200 {
			return fmt.Errorf("status %d, code %q", status, code)
		}
		return nil
	})
	s := leader.agent.server.Load()
	await(t, 10*time.Second, "at the leader", func() error {
		own.call(t, "POST", "/v1/report", report(2)) // its agent goes on reporting too
		if r, _, _ := s.obs.last(plain.cfg.Name, time.Now()); r.Boot != "test" || r.HostID != plain.agent.server.Load().hostID() {
			return fmt.Errorf("the leader has %+v", r)
		}
		return nil
	})
	// A host without a vote vouches for nobody.
	own.base, own.via = "https://"+leader.addr(), trust.RoleAgent+"/"+voter.cfg.Name
	forged := report(3)
	forged.Host = voter.cfg.Name
	if _, code := own.call(t, "POST", "/v1/report", forged); code != api.CodeDenied {
		t.Errorf("a report for another host: %q", code)
	}

	said := sleeper("said", 4)
	said.Run.Command = []string{"sh", "-c", "echo word; exec sleep 1000"}
	hosts[0].apply(t, said)
	hosts[0].awaitReady(t, "said", 4)
	leader.stop(t)
	voter.stop(t)
	rest := slices.DeleteFunc(slices.Clone(hosts), func(h *host) bool { return h == leader || h == voter })
	var lines string
	err := rest[0].Stream(t.Context(), "/v1/logs/said", url.Values{}, func(line []byte) bool { lines += string(line) + "\n"; return true })
	for _, h := range rest {
		if err != nil || !strings.Contains(lines, fmt.Sprintf("%q", h.cfg.Name)) || !strings.Contains(lines, "word") {
			t.Errorf("with no leader, of %s: %v: %s", h.cfg.Name, err, lines)
		}
	}
}
