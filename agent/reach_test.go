package agent

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
)

// TestActWithoutToken: what a reflex asks for and no token pays for is refused, and is
// not taken for the word of a person (S7).
func TestActWithoutToken(t *testing.T) {
	h := startHost(t, "h1", nil)
	h.init(t)
	for _, op := range []string{"drain_self", "evict"} {
		await(t, 20*time.Second, op+" to be refused", func() error { // once somebody leads
			err := h.agent.server.Load().serveAct(t.Context(), api.ActRequest{Host: "h1", Op: op, App: "web", Rule: "r", Why: "test"}, "key")
			if api.CodeOf(err) != api.CodeInvalid || !strings.Contains(err.Error(), "no token") {
				return fmt.Errorf("it says %v", err)
			}
			return nil
		})
	}
	req := api.ActRequest{Host: "h1", Op: "evict", App: "web", Rule: "r", Why: "test", Loan: 1, Chain: "hot,Flee"}
	if err := h.agent.server.Load().serveAct(t.Context(), req, "other"); api.CodeOf(err) != api.CodeInvalid || !strings.Contains(err.Error(), "is not the name of a rule") {
		t.Errorf("a chain of what are no rules: %v", err)
	}
}
