package integration

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// helpers are what the test binary does instead of testing when a rig's host
// runs it with GANGLION_TEST_HELPER set: things that must be in the host's
// network.
var helpers = map[string]func(){
	"agent":     serveAgent,
	"nats":      serveNATS,
	"subscribe": subscribe,
}

// serveNATS is a NATS of somebody else's, at GANGLION_TEST_ADDR port 4333.
func serveNATS() {
	s, err := server.NewServer(&server.Options{Host: os.Getenv("GANGLION_TEST_ADDR"), Port: 4333, NoLog: true, NoSigs: true})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	s.Start()
	waitForSignal()
	s.Shutdown()
}

// subscribe is any NATS client with its default options but for trying for
// ever: it prints every event of the mesh, a line each.
func subscribe() {
	nc, err := nats.Connect(os.Getenv("GANGLION_TEST_ADDR"), nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if _, err := nc.Subscribe("ganglion.test.>", func(m *nats.Msg) { fmt.Printf("%s\n", m.Data) }); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for nc.FlushTimeout(time.Second) != nil { // until a server has the subscription
	}
	fmt.Println("subscribed")
	waitForSignal()
}

func waitForSignal() {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGTERM)
	<-c
}
