// Package reflexes decides what a host does by itself when something happens
// on it: rules over facts, and the brakes that keep them from doing harm.
//
// It is pure. Facts come in with the time at which they were seen, on the boot
// clock; what should be done goes out; nothing here looks, waits or acts. So a
// recorded story can be run through the very engine that ran on the host.
// See DESIGN.md.
package reflexes
