//go:build !linux

package vip

import (
	"errors"
	"net/netip"
	"time"
)

// Kernel stands for one that cannot do it: only Linux can.
type Kernel struct{}

var errLinux = errors.New("addresses are taken over on Linux alone")

// List returns no addresses.
func (Kernel) List() ([]Present, error) { return nil, errLinux }

// Put puts no address anywhere.
func (Kernel) Put(string, netip.Prefix, time.Duration) error { return errLinux }

// Remove has nothing to remove.
func (Kernel) Remove(string, netip.Prefix) error { return nil }

// Announce announces nothing.
func (Kernel) Announce(string, netip.Addr) error { return errLinux }
