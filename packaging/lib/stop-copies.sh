#!/bin/sh
# Ends every copy on this host, because the package is being removed. The agent
# has been stopped. Data stays.
set -u
[ -d /run/systemd/system ] || exit 0

# Copies of the systemd driver, all at once; PID 1 kills what does not end.
systemctl stop ganglion.slice 2>/dev/null
# What ran once and failed is kept by systemd until an agent has read how.
systemctl reset-failed 'ganglion-*.service' 2>/dev/null
rm -rf /run/systemd/system/ganglion-*.service.d

# Copies of the process driver live in the service's own group, which is there
# as long as they are.
left() {
	for group in /sys/fs/cgroup /sys/fs/cgroup/unified /sys/fs/cgroup/systemd; do
		procs=$(find "$group/system.slice/ganglion.service" -name cgroup.procs -exec cat {} + 2>/dev/null)
		[ -z "$procs" ] || return 0
	done
	return 1
}
left || exit 0
systemctl kill --signal=TERM ganglion.service 2>/dev/null
tries=0
while left && [ $tries -lt 100 ]; do # ten seconds, as is the default grace of a stop
	sleep 0.1
	tries=$((tries + 1))
done
tries=0
while left && [ $tries -lt 50 ]; do
	systemctl kill --signal=KILL ganglion.service 2>/dev/null
	sleep 0.1
	tries=$((tries + 1))
done
if left; then
	echo "ganglion: some copies did not end; see systemd-cgls" >&2
fi
