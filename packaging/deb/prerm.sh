#!/bin/sh
# dpkg: remove, or upgrade NEW-VERSION (the agent and the copies go on).
set -e
[ "$1" = remove ] || exit 0
if [ -d /run/systemd/system ]; then
	deb-systemd-invoke stop ganglion.service >/dev/null || true
fi
# The package goes, so what it ran goes too.
/usr/lib/ganglion/stop-copies
