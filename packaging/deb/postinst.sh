#!/bin/sh
# dpkg: configure [OLD-VERSION], or abort-… when a removal or upgrade was called
# off. An upgrade restarts the agent; the copies do not notice.
set -e
case "$1" in
configure | abort-upgrade | abort-remove | abort-deconfigure) ;;
*) exit 0 ;;
esac
if command -v systemd-sysusers >/dev/null; then
	systemd-sysusers ganglion.conf || true
fi
if command -v systemd-tmpfiles >/dev/null; then
	systemd-tmpfiles --create ganglion.conf || true
fi
# Debian's helpers remember what the administrator has decided: a unit that was
# disabled or masked stays so, and policy-rc.d is asked before anything starts.
deb-systemd-helper unmask ganglion.service >/dev/null || true
if deb-systemd-helper --quiet was-enabled ganglion.service; then
	deb-systemd-helper enable ganglion.service >/dev/null || true
else
	deb-systemd-helper update-state ganglion.service >/dev/null || true
fi
if [ -d /run/systemd/system ]; then
	systemctl --system daemon-reload >/dev/null || true
	deb-systemd-invoke restart ganglion.service >/dev/null ||
		echo "ganglion: the agent does not run; see journalctl -u ganglion" >&2
fi
