package agent

import (
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/intent"
)

// remove asks for the removal of a host until it is done or refused.
func (h *host) remove(t *testing.T, name string, force bool) (out api.Removal, err error) {
	t.Helper()
	await(t, 40*time.Second, "removal of "+name, func() error {
		out = api.Removal{}
		err = h.Post(t.Context(), "/v1/hosts/"+name+"/remove", nil, api.RemoveRequest{Force: force}, &out)
		if err == nil && !out.Done {
			return errors.New(out.Waiting)
		}
		return nil
	})
	return out, err
}

// forgotten waits until the agent of h has left its mesh, and nothing of it or of
// copies is on its disk.
func (h *host) forgotten(t *testing.T) {
	t.Helper()
	select {
	case err := <-h.done:
		if h.done <- nil; !errors.Is(err, ErrLeft) {
			t.Fatalf("the removed host's agent ended with %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the removed host still has its mesh")
	}
	for _, name := range []string{"identity", "raft", "slice.json", "apps/web", "output/web"} {
		if _, err := os.Stat(filepath.Join(h.cfg.DataDir, name)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there: %v", name, err)
		}
	}
}

func eventsOf(t *testing.T, h *host, filter string) (all string) {
	t.Helper()
	err := h.Stream(t.Context(), "/v1/events", url.Values{"since": {"1h"}, "filter": {filter}}, func(line []byte) bool {
		all += string(line) + "\n"
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestRemoveProves: a host with copies and their files is decommissioned, and
// nothing of it is left anywhere.
func TestRemoveProves(t *testing.T) {
	hosts := startMesh(t, 3)
	web := sleeper("web", 3)
	web.Update.HealthyFor = intent.Duration(100 * time.Millisecond)
	web.Run.Command = []string{"sh", "-c", "echo kept > $STATE_DIR/kept; echo said; exec sleep 1000"}
	hosts[0].apply(t, web)
	hosts[0].awaitReady(t, "web", 3)
	kept := filepath.Join(hosts[2].cfg.DataDir, "apps", "web")
	if list, _ := os.ReadDir(kept); len(list) == 0 {
		t.Fatal("nothing is kept on the host under test")
	}
	old := hosts[2].agent.server.Load().id

	got, err := hosts[1].remove(t, "h3", false)
	if err != nil || strings.Join(got.Proved, " ") != "copies files peer identity" || len(got.Unproved) > 0 {
		t.Fatalf("%+v, %v", got, err)
	}
	hosts[2].forgotten(t)
	for _, h := range hosts[:2] { // the second may have no Raft server, and know it from its slice alone
		c := credential{name: "removed", client: callAs(t, old), base: "https://" + h.addr()}
		await(t, 10*time.Second, "refused by "+h.cfg.Name, func() error {
			if _, code := c.call(t, "GET", "/v1/local/status", nil); code != api.CodeRemoved {
				return errors.New("answered " + string(code))
			}
			return nil
		})
	}
	var told string
	await(t, 10*time.Second, "the event", func() error {
		if told = eventsOf(t, hosts[0], "host.h3.removed"); told == "" {
			return errors.New("not told yet")
		}
		return nil
	})
	if strings.Count(told, "\n") != 1 || !strings.Contains(told, `"proved":["copies","files","peer","identity"]`) {
		t.Errorf("told: %s", told)
	}
	again, err := hosts[0].remove(t, "h3", false)
	if err != nil || again.Revision != got.Revision || len(again.Proved) != 4 {
		t.Errorf("asked again: %+v, %v", again, err)
	}
	for _, c := range hosts[0].awaitReady(t, "web", 3).Copies {
		if c.Host == "h3" {
			t.Errorf("copy %s is still on it", c.ID)
		}
	}
	if _, err := hosts[0].remove(t, "h9", false); api.CodeOf(err) != api.CodeNotFound {
		t.Errorf("an unknown host: %v", err)
	}
}

// TestRemovedWhileAway: a host that does not answer is removed only by force, and
// told when it is back.
func TestRemovedWhileAway(t *testing.T) {
	hosts := startMesh(t, 2)
	web := sleeper("web", 2)
	web.Disconnect.Policy = intent.DisconnectKeep
	hosts[0].apply(t, web)
	hosts[0].awaitReady(t, "web", 2)
	hosts[1].stop(t) // its copies run on
	var err error
	await(t, 30*time.Second, "refused", func() error {
		_, err = hosts[0].removeOnce(t, "h2", false)
		if err == nil {
			return errors.New("not known to be away")
		}
		return nil
	})
	if api.CodeOf(err) != api.CodeRejected || !strings.Contains(err.Error(), "--force") {
		t.Fatalf("without force: %v", err)
	}
	got, err := hosts[0].remove(t, "h2", true)
	if err != nil || strings.Join(got.Unproved, " ") != "copies files" || strings.Join(got.Proved, " ") != "peer identity" {
		t.Fatalf("by force: %+v, %v", got, err)
	}
	hosts[0].awaitReady(t, "web", 2) // elsewhere, though its rule is to wait: there is nobody to wait for
	hosts[1].run(t)
	hosts[1].forgotten(t)
	if _, err := hosts[0].remove(t, "h1", true); api.CodeOf(err) != api.CodeRejected {
		t.Errorf("the last host: %v", err)
	}
}

func (h *host) removeOnce(t *testing.T, name string, force bool) (out api.Removal, err error) {
	err = h.Post(t.Context(), "/v1/hosts/"+name+"/remove", nil, api.RemoveRequest{Force: force}, &out)
	return out, err
}
