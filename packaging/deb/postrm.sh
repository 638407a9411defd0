#!/bin/sh
# dpkg: remove (data and configuration stay) or purge (nothing does). Others:
# upgrade, failed-upgrade, abort-install, abort-upgrade, disappear.
set -e
if [ "$1" = purge ]; then
	if command -v deb-systemd-helper >/dev/null; then
		deb-systemd-helper purge ganglion.service >/dev/null || true
	fi
	# Below ganglion-<tag> are the copies' directories if data_dir is elsewhere.
	# That data_dir itself was chosen by the administrator, and is left to him.
	tag='[0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f]'
	rm -rf /etc/ganglion \
		/var/lib/ganglion /var/lib/private/ganglion \
		/var/lib/ganglion-$tag /var/lib/private/ganglion-$tag ||
		echo "ganglion: not everything could be removed" >&2 # a mount point, say
	rm -rf /etc/systemd/system/ganglion.service.d
	if getent group ganglion >/dev/null && command -v groupdel >/dev/null; then
		groupdel ganglion || true
	fi
fi
case "$1" in
remove | purge)
	rm -rf /run/ganglion
	[ ! -d /run/systemd/system ] || systemctl --system daemon-reload >/dev/null || true
	;;
esac
