#!/usr/bin/env bash
# Starts edged and the simulated other side (branchsim) without root.
#
#   test/run.sh live   until Ctrl-C, with a text view of calls
#   test/run.sh once   places the standard calls, prints a table and JSON
#
# Where the kernel grants a user and network namespace, the two run in network
# namespaces of their own, joined by a LAN and a WAN link. Elsewhere they share
# the loopback interface. No traffic leaves this machine either way.
set -euo pipefail
cd "$(dirname "$0")/.."
mode=${1:-live}
root=$PWD
export BRANCH_RUN_DIR=${BRANCH_RUN_DIR:-$root/.run}
mkdir -p "$BRANCH_RUN_DIR"

if [ "${BRANCH_INSIDE:-}" = "" ]; then
	if [ "${BRANCH_LOOPBACK:-}" = "" ] && unshare --user --map-root-user --net --mount true 2>/dev/null && command -v ip >/dev/null; then
		exec env BRANCH_INSIDE=namespaces unshare --user --map-root-user --net --mount --fork --pid --mount-proc --kill-child \
			"$0" "$mode"
	fi
	echo "this kernel grants no user and network namespace: using loopback addresses" >&2
	exec env BRANCH_INSIDE=loopback "$0" "$mode"
fi
