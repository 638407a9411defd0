// Package nspawn gives tests hosts with a real systemd as PID 1: Debian
// bookworm, booted by systemd-nspawn in a network namespace of its own, on the
// machine that runs the tests.
//
//	h := nspawn.Boot(t, nspawn.Options{})   // skips t by name where it cannot
//	h.CopyIn(t, binary, "/usr/local/bin/ganglion", 0o755)
//	out, err := h.Run(ctx, "systemctl", "is-system-running")
//
// A host takes a second or two to boot and is gone when the test ends: powered
// off, its disk, namespace and mounts removed. What a killed test run has left
// is removed by the next one.
//
// It needs root on Linux, systemd-container and debootstrap (installed with
// apt-get if they are missing and can be), and once a Debian mirror. The image
// is made once a machine, in $GANGLION_TEST_CACHE or /var/cache/ganglion-test,
// and never changed: each host writes to an overlay of its own.
//
// Where PID 1 of the machine has no cgroup v2 controllers, neither has the host:
// limits are accepted there and not enforced.
package nspawn
