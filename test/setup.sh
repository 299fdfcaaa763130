#!/usr/bin/env bash
# Installs the Debian packages that tests use (test/packages.txt) when root.
# Without root or apt nothing is installed: the tests concerned skip and say so.
set -euo pipefail
cd "$(dirname "$0")"
mapfile -t want < packages.txt
missing=()
for p in "${want[@]}"; do
	dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing+=("$p")
done
[ ${#missing[@]} -eq 0 ] && exit 0
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
	echo "not installed, tests that need them will skip: ${missing[*]}" >&2
	command -v gcc >/dev/null || echo "without gcc the tests run without the race detector" >&2
	exit 0
fi
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
if ! { apt-get update && apt-get install -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
	tail -5 "$log" >&2
	echo "could not install: ${missing[*]}; tests that need them will skip" >&2
fi
rm -f "$log"
