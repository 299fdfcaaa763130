#!/bin/bash
# The kernel laboratory: boots Debian's kernel under QEMU with the static test
# binary test/kernel/guest as init and reads its results from the console.
# Exit 0: all ok. 1: a test failed, or the guest did not come to its end.
# 77: this machine cannot run it (the reason is printed).
set -euo pipefail
cd "$(dirname "$0")/../.."

cache=build/kernel
limit=${KERNEL_LAB_SECONDS:-280}
modules=(8021q veth ifb sch_htb sch_prio sch_fq_codel sch_cake sch_netem sch_ingress
	cls_u32 cls_flower cls_matchall cls_fw act_pedit act_skbedit act_mirred act_gact act_police)

cannot() { echo "skip test-kernel: $*"; exit 77; }

[ "$(uname -m)" = x86_64 ] || cannot "the guest is amd64, this machine is $(uname -m)"
command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || cannot "needs Debian's apt-get and dpkg-deb"
if ! command -v qemu-system-x86_64 >/dev/null; then
	[ "$(id -u)" = 0 ] || cannot "qemu-system-x86_64 is missing (apt-get install qemu-system-x86)"
	apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends qemu-system-x86 >/dev/null ||
		cannot "qemu-system-x86 cannot be installed"
fi

# The kernel that linux-image-amd64 stands for, from the cache if the archive
# cannot be asked.
mkdir -p "$cache"
package() { apt-cache depends linux-image-amd64 2>/dev/null | awk '/Depends: linux-image-[0-9]/ {print $2; exit}'; }
name=$(package)
if [ -z "$name" ] && [ "$(id -u)" = 0 ]; then
	apt-get update -qq || true
	name=$(package)
fi
deb=
if [ -n "$name" ]; then
	version=$(apt-cache show --no-all-versions "$name" | awk '/^Version:/ {print $2; exit}')
	deb=$cache/${name}_${version}_amd64.deb
	if [ ! -e "$deb" ]; then
		# apt checks the archive's signatures; a broken download never gets the name.
		rm -rf "$cache/part" && mkdir "$cache/part"
		if (cd "$cache/part" && apt-get download -q "$name=$version"); then
			mv "$cache/part/"*.deb "$deb"
		else
			deb=
		fi
	fi
fi
if [ -z "$deb" ]; then
	deb=$(ls -t "$cache"/linux-image-*_amd64.deb 2>/dev/null | head -1) || true
	[ -n "$deb" ] || cannot "linux-image-amd64 can neither be downloaded nor found in $cache"
	echo "using $deb from the cache"
fi

root=${deb%.deb}
if [ ! -e "$root/.complete" ]; then
	rm -rf "$root" && mkdir -p "$root"
	# Of 400 MB, what the laboratory may need.
	dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$root" --wildcards \
		'./boot/vmlinuz-*' './lib/modules/*/modules.builtin' './lib/modules/*/kernel/net/*' \
		'./lib/modules/*/kernel/lib/*' './lib/modules/*/kernel/crypto/*' \
		'./lib/modules/*/kernel/drivers/net/veth.ko*' './lib/modules/*/kernel/drivers/net/ifb.ko*' './lib/modules/*/kernel/drivers/net/dummy.ko*'
	touch "$root/.complete"
fi

GO=${GO:-go}
CGO_ENABLED=0 GOOS=linux GOARCH=amd64 $GO build -trimpath -ldflags='-s -w' -o "$cache/guest" ./test/kernel/guest
$GO run ./test/kernel/initrd -init "$cache/guest" -modules "$root"/lib/modules/* -out "$cache/initrd.cpio" "${modules[@]}"

# Plain emulation: KVM hangs on some runners, and -icount keeps the guest's
# clock with its work, without which timer calibration may hang. panic=-1 with
# -no-reboot ends QEMU when the kernel panics.
log=$cache/console.log
status=0
timeout "$limit" qemu-system-x86_64 -accel tcg -cpu qemu64 -m 256 -icount shift=3,sleep=off \
	-nodefaults -no-reboot -display none -monitor none -serial stdio \
	-kernel "$root"/boot/vmlinuz-* -initrd "$cache/initrd.cpio" \
	-append "console=ttyS0 quiet noapic panic=-1" </dev/null 2>&1 | tr -d '\r' >"$log" || status=$?

grep -E '^(kernel|ok|FAIL|done) ' "$log" || true
if [ "$status" = 124 ]; then
	echo "FAIL test-kernel no end after $limit s"
	tail -20 "$log"
	exit 1
fi
if ! grep -qE '^done [1-9][0-9]* ok, 0 failed$' "$log" || grep -q '^FAIL' "$log"; then
	grep -q '^done' "$log" || { echo "FAIL test-kernel the guest did not come to its end (status $status)"; tail -20 "$log"; }
	exit 1
fi
