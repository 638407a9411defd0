// How copies are updated, restarted and stopped, and what becomes of those whose
// host is lost.
package main

import "github.com/ganglion-mesh/ganglion/intent"

func main() {
	copies := 6
	intent.Main(func(m *intent.Mesh) {
		m.App(intent.App{
			Name:  "worker",
			Count: &copies,
			Run:   intent.Run{Command: []string{"bin/worker", "--id", "${copy.n}"}, Artifact: "./worker", Dir: "share"},
			Update: intent.Update{
				Strategy: intent.StrategyRolling, Parallel: 2,
				HealthyFor: 10 * intent.Second, Deadline: 5 * intent.Minute, OnFailure: intent.OnFailureHold,
			},
			Restart:    intent.Restart{Limit: 10, Window: 5 * intent.Minute, BackoffMax: 2 * intent.Minute},
			Disconnect: intent.Disconnect{Policy: intent.DisconnectKeep, Grace: intent.Minute},
			Stop:       intent.Stop{Signal: "SIGINT", Grace: 30 * intent.Second},
		})
	})
}
