#!/usr/bin/env bash
# Starts edged and the simulated other side (branchsim), both without root.
#
#   test/run.sh live   until Ctrl-C, with a text view of calls
#   test/run.sh once   places the standard calls, prints a table and JSON
#   test/run.sh cuts   cuts the LAN path of CUTS calls (20), prints how long voice
#                      was away; further words go to branchsim cuts: --silence
#
# Where the kernel grants a user and network namespace, they run in three network
# namespaces: the box; the branch LAN with the Teams client in the building; and
# everything beyond the WAN link. Elsewhere they share the loopback interface.
# Nothing leaves this machine either way.
#
# LOOPBACK=1 asks for loopback even where namespaces are granted.
set -euo pipefail
cd "$(dirname "$0")/.."
mode=${1:-live}
edged=$PWD/build/edged branchsim=$PWD/build/branchsim
http=127.0.0.1:8080

# No process namespace: signals then reach this script as they reach any other.
enter=(unshare --user --map-root-user --net --mount)
# Whatever becomes of this script, what it started ends.
bound=()
if setpriv --pdeathsig TERM true 2>/dev/null; then bound=(setpriv --pdeathsig TERM); fi
if [ -z "${INSIDE:-}" ]; then
	dir=$PWD/.run
	# Made anew; what another user left there may not be ours to remove.
	if ! { rm -rf "$dir" && mkdir "$dir"; } 2>/dev/null; then
		dir=$(mktemp -d "${TMPDIR:-/tmp}/localloop-run.XXXXXX")
		export RUN_DIR_IS_OURS=1
	fi
	export RUN_DIR=$dir
	if [ -z "${LOOPBACK:-}" ] && command -v ip >/dev/null &&
		"${enter[@]}" sh -c 'mount -t tmpfs tmpfs /run && mkdir /run/netns && ip netns add probe && ip netns exec probe true' 2>/dev/null; then
		exec env INSIDE=namespaces "${enter[@]}" "$0" "$@"
	fi
	INSIDE=loopback
fi
dir=$RUN_DIR

other=() box=()
if [ "$INSIDE" = namespaces ]; then
	# This namespace is the box's.
	mount -t tmpfs tmpfs /run
	mkdir -p /run/netns
	ip link set lo up
	for ns in branch beyond; do
		ip netns add "$ns"
		ip -n "$ns" link set lo up
	done
	ip link add lan0 type veth peer name branch0 netns branch
	ip link add wan0 type veth peer name internet0 netns beyond
	ip addr add 192.168.77.5/24 dev lan0
	ip addr add 198.51.100.20/24 dev wan0
	ip -n branch addr add 192.168.77.31/24 dev branch0
	ip -n beyond addr add 198.51.100.40/24 dev internet0
	for dev in lan0 wan0; do ip link set "$dev" up; done
	ip -n branch link set branch0 up
	ip -n beyond link set internet0 up
	other=(ip netns exec beyond)
	box=(--lan 192.168.77.5 --wan 198.51.100.20 --client 192.168.77.31 --cloud 198.51.100.40
		--lan-netns /run/netns/branch --lan-if branch0 --wan-if internet0 --box-lan-if lan0 --box-wan-if wan0)
	echo "box: lan0 192.168.77.5, wan0 198.51.100.20; branch: branch0 192.168.77.31; beyond the WAN: internet0 198.51.100.40" >&2
else
	echo "on loopback addresses (this kernel grants no user and network namespace, or LOOPBACK was set)" >&2
fi
if [ "$mode" = cuts ]; then
	# The call after a cut must not be refused for the sake of the call before it.
	box+=(--refuse-for 100ms)
	shift
	set -- cuts -n "${CUTS:-20}" "$@"
fi

"$branchsim" --dir "$dir" --http "$http" "${box[@]}" prepare >/dev/null

started=()
stop() {
	trap '' INT TERM HUP
	for pid in "${started[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
	for pid in "${started[@]}"; do wait "$pid" 2>/dev/null || true; done
	if [ -n "${RUN_DIR_IS_OURS:-}" ]; then rm -rf "$dir"; fi
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP # the terminal was closed

echo "edged's log: $dir/edged.log   configuration: $dir/edged.toml" >&2
box+=(--status "http://$http/status.json")
look="$edged -c $dir/edged.toml status"
if [ "$INSIDE" = loopback ]; then
	echo "status page: http://$http/   as text: $look" >&2
else
	box+=(--status-netns "/proc/$$/ns/net")
	in="nsenter --preserve-credentials -t $$ -U -n"
	echo "edged is in a network namespace. From another terminal:" >&2
	echo "  $in $look" >&2
	echo "  $in curl http://$http/" >&2
fi

"${other[@]}" "${bound[@]}" "$branchsim" --dir "$dir" --http "$http" "${box[@]}" "${@:-live}" &
sim=$!
started+=("$sim")
# The card appears when the proxies listen: edged, which asks them once a minute,
# is not started before.
until [ -e "$dir/tty-card" ] || ! kill -0 "$sim" 2>/dev/null; do sleep 0.05; done
"${bound[@]}" "$edged" -c "$dir/edged.toml" run 2>"$dir/edged.log" &
started+=("$!")
if ! wait "$sim"; then
	echo "edged said last:" >&2
	tail -15 "$dir/edged.log" >&2
	exit 1
fi
