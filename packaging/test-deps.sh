#!/bin/sh
# Installs what the tests use and a bare machine lacks: namespaces, firewalls,
# a bootable host for the systemd tests, and what users sign packages
# with; with the argument "bench" also the supervisors that benchmarks are set
# beside. Does nothing where it may not, or where everything is there; the tests
# that need more than there is skip by name.
set -eu

want="ip:iproute2 nft:nftables nsenter:util-linux debootstrap:debootstrap systemd-nspawn:systemd-container cc:gcc minisign:minisign ssh-keygen:openssh-client"
if [ "${1-}" = bench ]; then
	want="$want runsv:runit s6-supervise:s6 supervisord:supervisor monit:monit"
fi
missing=
for pair in $want; do
	command -v "${pair%%:*}" >/dev/null 2>&1 || missing="$missing ${pair#*:}"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
	echo "test-deps: not installed:$missing; the tests that need them will skip" >&2
	exit 0
fi
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then # what is installed here is not to be started
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod 755 "$policy"
	trap 'rm -f "$policy"' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086 # a list of words
if ! { apt-get update -qq && apt-get install -y -qq --no-install-recommends $missing >/dev/null; }; then
	echo "test-deps: could not install$missing; the tests that need them will skip" >&2
fi
