#!/bin/sh
# rpm: 0 after a removal, 1 after an upgrade (of the version that went).
[ "$1" -ne 0 ] || rm -rf /run/ganglion
[ ! -d /run/systemd/system ] || systemctl daemon-reload || :
exit 0
