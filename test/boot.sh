#!/bin/bash
# Restart policies across a reboot, in a virtual machine: boot.sh [v1|v2]. What `make install` installs is all that the machine has of
# glassbox. It goes down in order, and the next time without a word, as in a power failure.
set -euo pipefail
cd "$(dirname "$0")/.."
hierarchy=${1:-v2}
vm=${VM:-../shared/vm/vm}
dir=out/boot-$hierarchy
"$vm" build
rm -rf "$dir"
mkdir -p "$dir/qemu"
[[ -d bin/share ]] || make man
make install DESTDIR="$PWD/$dir/root" PREFIX=/usr/local >/dev/null

# The machine keeps its disk from one boot to the next.
cp --sparse=always "${VM_CACHE:-$HOME/.cache/vm}/image/root.img" "$dir/disk"
trap 'rm -f "$dir/disk"' EXIT
cat >"$dir/qemu/qemu-system-x86_64" <<'END'
#!/bin/bash
words=("$@")
for i in "${!words[@]}"; do
	[[ ${words[i]} != file=*/root.img,* ]] || words[i]="file=$DISK,format=raw,if=virtio"
done
PATH=${PATH#*:} exec qemu-system-x86_64 "${words[@]}"
END
chmod +x "$dir/qemu/qemu-system-x86_64"

cat >"$dir/inside" <<'END'
#!/bin/bash
# Runs at each boot: what is done next stands on the disk.
set -euo pipefail
phase=$(cat /var/phase 2>/dev/null || echo 1)
say() { echo "boot $phase: $*" >>"$DIR/log"; }
trap 'say "failed in line $LINENO"; glassbox ps -a >>"$DIR/log" 2>&1; journalctl -b -u glassbox -u container-unit --no-pager >>"$DIR/log" 2>&1' ERR
state() { glassbox inspect --format '{{.State.Status}}' "$1"; }
want() { # NAME STATUS, within five minutes: an emulated machine beside others is slow
	local end=$((SECONDS + 300))
	while [[ $(state "$1") != "$2" ]]; do
		((SECONDS < end)) || { say "$1 is $(state "$1"), want $2"; return 1; }
		sleep 0.3
	done
	say "$1 $2"
}
check() {
	want always running
	want unless running
	want failed running
	want unit running
	want byhand exited
	want none exited
	want stopped running # always is stronger than a stop by hand, as with Docker
	want never created
	[[ $(systemctl is-active glassbox.service) == active && $(systemctl is-active container-unit.service) == active ]]
	[[ $(glassbox exec always cat /mark) == mine ]] # its files are kept
	glassbox verify always >/dev/null
}
box() { glassbox "$1" --network none --rootfs /:O "${@:2}"; }
case $phase in
1)
	cp -a "$DIR/root/." /
	systemctl daemon-reload
	systemctl enable --now glassbox.service
	loop='trap "exit 0" TERM; while :; do sleep 0.2; done'
	box run -d --name always --restart always sh -c "echo mine >/mark; $loop"
	box run -d --name unless --restart unless-stopped sh -c "$loop"
	box run -d --name failed --restart on-failure sh -c 'trap "exit 3" TERM; while :; do sleep 0.2; done'
	box run -d --name none sh -c "$loop"
	box run -d --name byhand --restart unless-stopped sh -c "$loop"
	box run -d --name stopped --restart always sh -c "$loop"
	glassbox stop -t 120 byhand stopped
	box create --name never --restart always sh -c "$loop"
	box create --name unit sh -c "$loop"
	cd /etc/systemd/system
	glassbox generate systemd --restart-policy always --files unit
	cd - >/dev/null
	systemctl daemon-reload
	systemctl enable --now container-unit.service
	want unit running
	# Killed in the container, systemd starts it again.
	kill -9 "$(glassbox inspect --format '{{.State.Pid}}' unit)"
	sleep 1
	want unit running
	say "installed; going down"
	echo 2 >/var/phase
	# The machine's own unit would switch it off.
	mkdir -p /run/systemd/system/vm.service.d
	printf '[Unit]\nSuccessAction=none\nFailureAction=none\n' >/run/systemd/system/vm.service.d/reboot.conf
	systemctl daemon-reload
	sync
	systemctl poweroff
	sleep infinity
	;;
2)
	check
	# Stopped in order: by a signal, and not by hand.
	glassbox logs always >/dev/null
	supervisor=$(cut -d' ' -f4 "/proc/$(glassbox inspect --format '{{.State.Pid}}' unless)/stat")
	kill -9 "$supervisor"
	want unless exited
	say "a supervisor is killed; off"
	echo 3 >/var/phase
	sync
	echo o >/proc/sysrq-trigger
	sleep infinity
	;;
3)
	check
	say "fine"
	;;
esac
END

: >"$dir/log"
export DISK=$PWD/$dir/disk
for boot in 1 2 3; do
	# A machine that went down before its command had ended is what is wanted of the first two.
	PATH=$PWD/$dir/qemu:$PATH "$vm" run --cgroup "$hierarchy" --cpus 1 -- env DIR="$dir" bash "$dir/inside" &>"$dir/console-$boot" || true
done
cat "$dir/log"
grep -q '^boot 3: fine' "$dir/log"
