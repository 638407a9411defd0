#!/bin/sh
# deb calls it with purge to remove everything; rpm has no such step.
set -e
[ -d /run/systemd/system ] && systemctl daemon-reload || true
case "$1" in
purge)
	rm -rf /var/lib/ganglion /run/ganglion /etc/ganglion
	;;
esac
