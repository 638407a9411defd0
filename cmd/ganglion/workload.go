//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
)

// workloadCommand makes this binary a copy of the demo's app. It is not a
// command that users see.
const workloadCommand = "demo-copy"

// copyReply is what a copy of the demo's app answers: who it is.
type copyReply struct {
	Copy string `json:"copy"`
	Host string `json:"host"`
	Pid  int    `json:"pid"`
}

// runWorkload serves /healthz on the port that the copy was given, until it is
// told to end.
func runWorkload(errs io.Writer) int {
	if why := os.Getenv(breakVariable); why != "" {
		fmt.Fprintln(errs, why)
		return exitFailed
	}
	reply, err := json.Marshal(copyReply{os.Getenv("GANGLION_COPY"), os.Getenv("GANGLION_HOST"), os.Getpid()})
	if err != nil {
		fmt.Fprintln(errs, err)
		return exitFailed
	}
	port := os.Getenv("PORT_HTTP")
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", port))
	if err != nil {
		fmt.Fprintf(errs, "listen on PORT_HTTP=%s: %v\n", port, err)
		return exitFailed
	}
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		<-end
		os.Exit(0)
	}()
	err = http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Write(reply) //nolint:errcheck // the caller has gone
	}))
	fmt.Fprintln(errs, err)
	return exitFailed
}
