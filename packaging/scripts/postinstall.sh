#!/bin/sh
# deb calls it with configure, rpm with 1 (install) or 2 (upgrade).
set -e
[ -d /run/systemd/system ] || exit 0
systemd-sysusers ganglion.conf || true
systemd-tmpfiles --create ganglion.conf || true
systemctl daemon-reload
systemctl enable ganglion.service >/dev/null 2>&1 || true
# An upgrade restarts the agent; the copies do not notice.
systemctl restart ganglion.service || echo "ganglion: the agent does not run; see journalctl -u ganglion" >&2
