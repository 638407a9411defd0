#!/bin/sh
# deb calls it with remove or upgrade, rpm with 0 (remove) or 1 (upgrade).
set -e
case "$1" in
remove | 0) ;;
*) exit 0 ;;
esac
[ -d /run/systemd/system ] || exit 0
systemctl disable --now ganglion.service >/dev/null 2>&1 || true
# The package goes, so what it ran goes too. Data stays until purge.
for unit in $(systemctl list-units --plain --no-legend 'ganglion-*.service' | cut -d' ' -f1); do
	systemctl stop "$unit" || true
done
systemctl stop ganglion.slice 2>/dev/null || true
