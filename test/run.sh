#!/usr/bin/env bash
# Starts edged and the simulated other side (branchsim), both without root.
#
#   test/run.sh live   until Ctrl-C, with a text view of calls
#   test/run.sh once   places the standard calls, prints a table and JSON
#
# Where the kernel grants a user and network namespace, the two run in network
# namespaces of their own, joined by a LAN link and a WAN link. Elsewhere they
# share the loopback interface. Nothing leaves this machine either way.
#
# LOOPBACK=1 asks for loopback even where namespaces are granted.
set -euo pipefail
cd "$(dirname "$0")/.."
mode=${1:-live}
dir=$PWD/.run
edged=$PWD/build/edged branchsim=$PWD/build/branchsim
http=127.0.0.1:8080

enter=(unshare --user --map-root-user --net --mount --pid --fork --kill-child --mount-proc)
if [ -z "${INSIDE:-}" ]; then
	if [ -z "${LOOPBACK:-}" ] && command -v ip >/dev/null && "${enter[@]}" true 2>/dev/null; then
		exec env INSIDE=namespaces "${enter[@]}" "$0" "$mode"
	fi
	INSIDE=loopback
fi

rm -rf "$dir"
mkdir -p "$dir"
other=() box=()
if [ "$INSIDE" = namespaces ]; then
	# This namespace is the box's; "other" is everything outside the box.
	mount -t tmpfs tmpfs /run
	mkdir -p /run/netns
	ip netns add other
	ip link set lo up
	ip -n other link set lo up
	ip link add lan0 type veth peer name branch0 netns other
	ip link add wan0 type veth peer name internet0 netns other
	ip addr add 192.168.77.5/24 dev lan0
	ip addr add 198.51.100.20/24 dev wan0
	ip -n other addr add 192.168.77.31/24 dev branch0
	ip -n other addr add 198.51.100.40/24 dev internet0
	for dev in lan0 wan0; do ip link set "$dev" up; done
	for dev in branch0 internet0; do ip -n other link set "$dev" up; done
	other=(ip netns exec other)
	box=(--lan 192.168.77.5 --wan 198.51.100.20 --client 192.168.77.31 --cloud 198.51.100.40
		--lan-if branch0 --wan-if internet0 --box-lan-if lan0 --box-wan-if wan0)
	echo "box: lan0 192.168.77.5, wan0 198.51.100.20; other side: branch0 192.168.77.31, internet0 198.51.100.40" >&2
else
	echo "on loopback addresses (this kernel grants no user and network namespace, or LOOPBACK was set)" >&2
fi

"$branchsim" --dir "$dir" --http "$http" "${box[@]}" prepare >/dev/null
"$edged" -c "$dir/edged.toml" run 2>"$dir/edged.log" &
pid=$!
stop() {
	kill -TERM "$pid" 2>/dev/null || true
	wait "$pid" 2>/dev/null || true
}
trap stop EXIT
trap 'exit 130' INT TERM

echo "edged's log: $dir/edged.log   configuration: $dir/edged.toml" >&2
if [ "$INSIDE" = loopback ]; then
	echo "status page: http://$http/" >&2
	box+=(--status "http://$http/status.json")
else
	echo "status: edged runs in a namespace; its page as text is in the view below" >&2
fi
if ! "${other[@]}" "$branchsim" --dir "$dir" --http "$http" "${box[@]}" "$mode"; then
	echo "edged said last:" >&2
	tail -15 "$dir/edged.log" >&2
	exit 1
fi
