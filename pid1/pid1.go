// Package pid1 connects to systemd as PID 1.
package pid1

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/godbus/dbus/v5"
)

// Socket is PID 1's own: no bus daemon stands between, it is there as early and as
// late as PID 1, and only root may use it.
const Socket = "/run/systemd/private"

// Names of D-Bus. Those of interfaces that are called end with a dot, for a method
// to follow.
const (
	Name       = "org.freedesktop.systemd1"
	Manager    = dbus.ObjectPath("/org/freedesktop/systemd1")
	OfManager  = Name + ".Manager."
	Unit       = Name + ".Unit"
	Service    = Name + ".Service"
	Properties = "org.freedesktop.DBus.Properties."
)

// Answers is how long a call may take where nobody else bounds it: PID 1 answers
// within milliseconds or is not well.
const Answers = 10 * time.Second

// nudge is how long PID 1 has to answer the first call before another follows.
const nudge = 50 * time.Millisecond

// Conn is a connection to PID 1.
type Conn struct {
	*dbus.Conn
	// Signals are what it has told, in the order in which it did. They are to be
	// received: what it tells waits in memory until they are.
	Signals <-chan *dbus.Signal
	// Line leads to Signals: what is delivered to it comes after all that has come.
	Line dbus.SignalHandler
}

// Dial connects to PID 1 at a socket, until ctx ends or the connection is closed.
func Dial(ctx context.Context, socket string) (Conn, error) {
	line := dbus.NewSequentialSignalHandler()
	conn, err := dbus.Dial("unix:path="+socket, dbus.WithSignalHandler(line), dbus.WithContext(ctx))
	if err != nil {
		return Conn{}, fmt.Errorf("connect to PID 1: %w", err)
	}
	if err := conn.Auth([]dbus.Auth{dbus.AuthExternal(strconv.Itoa(os.Getuid()))}); err != nil {
		return Conn{}, errors.Join(fmt.Errorf("connect to PID 1: %w", err), conn.Close())
	}
	signals := make(chan *dbus.Signal, 64)
	conn.Signal(signals)
	return Conn{conn, signals, line}, nil
}

// Greet waits until PID 1 answers. A short message that comes in one piece with the
// end of the authentication it leaves lying until the next one comes.
func (c Conn) Greet(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, Answers)
	defer cancel()
	answers := make(chan *dbus.Call, Answers/nudge+2)
	again := time.NewTicker(nudge)
	defer again.Stop()
	for {
		c.Object(Name, Manager).GoWithContext(ctx, "org.freedesktop.DBus.Peer.Ping", 0, answers)
		select {
		case call := <-answers:
			if call.Err != nil {
				return fmt.Errorf("greet PID 1: %w", call.Err)
			}
			return nil
		case <-again.C:
		}
	}
}
