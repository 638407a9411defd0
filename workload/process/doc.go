// Package process is the workload driver that runs copies by fork and exec, for
// Linux hosts whose PID 1 is not systemd and for unprivileged agents. Its design
// is in DESIGN.md. On other systems the package is empty.
package process
