#!/bin/sh
# rpm: 1 for an installation, 2 for an upgrade, which restarts the agent; the
# copies do not notice.
if command -v systemd-sysusers >/dev/null; then
	systemd-sysusers ganglion.conf || :
fi
if command -v systemd-tmpfiles >/dev/null; then
	systemd-tmpfiles --create ganglion.conf || :
fi
running() { [ -d /run/systemd/system ]; }
! running || systemctl daemon-reload || :
if [ "$1" -eq 1 ]; then
	systemctl enable ganglion.service >/dev/null 2>&1 || :
	! running || systemctl start ganglion.service ||
		echo "ganglion: the agent does not run; see journalctl -u ganglion" >&2
elif running; then
	systemctl try-restart ganglion.service || :
fi
exit 0
