// Package install tests the packages: on booted hosts with a real systemd, the deb
// and the rpm are installed, used, upgraded, removed and installed again. It has
// no code of its own beside its tests.
//
// The tests need what package nspawn needs, and skip by name elsewhere.
package install
