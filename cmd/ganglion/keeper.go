//go:build linux

package main

import (
	"fmt"
	"io"

	"github.com/ganglion-mesh/ganglion/workload/keeper"
)

// keeperCommand makes this binary the keeper of a singleton's copy. It is not a
// command that users see.
const keeperCommand = keeper.Command

func runKeeper(errs io.Writer) int {
	if err := keeper.Run(); err != nil {
		fmt.Fprintln(errs, "ganglion: "+err.Error())
		return exitFailed
	}
	return 0
}
