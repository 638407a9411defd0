#!/bin/sh
# rpm: 0 for a removal, 1 for an upgrade (of the version that goes).
[ "$1" -eq 0 ] || exit 0
if [ -d /run/systemd/system ]; then
	systemctl disable --now ganglion.service >/dev/null 2>&1 || :
else
	systemctl disable ganglion.service >/dev/null 2>&1 || :
fi
# The package goes, so what it ran goes too. Data stays: rpm knows no purge.
/usr/lib/ganglion/stop-copies || :
exit 0
