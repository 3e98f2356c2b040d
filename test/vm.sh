#!/bin/bash
# Runs the tests in a virtual machine with one cgroup hierarchy: vm.sh v1|v2 [FLAG...], flags as of go test binaries. In v1-alone and
# v2-alone, with two processors, it runs those that measure. Everything is compiled here; the machine's processor may be emulated.
# With QUICK=1 the tests are those that this hierarchy or the machine's kernel can make a difference to. Without it the machine has
# other engines, too, whose scripts run twice: with cgroups that they make themselves, and with systemd's.
set -euo pipefail
cd "$(dirname "$0")/.."
hierarchy=${1%-alone} alone=${1#v?}
vm=${VM:-../shared/vm/vm}
dir=out/vm-$1
shift
if [[ -z ${QUICK:-} && ($# == 0 || $* == *Callers*) ]]; then
	export VM_CACHE=${VM_CACHE:-$HOME/.cache/vm-callers}
	export VM_PACKAGES='docker.io containerd podman netavark containernetworking-plugins tini apparmor slirp4netns fuse-overlayfs'
fi
"$vm" build

rm -rf "$dir"
mkdir -p "$dir"
fixtures=$(cd test && go run ./fixture/make)
export CGO_ENABLED=0
go build -o "$dir/" cmd/test2json
# The quick part neither builds nor serves.
if [[ -n ${QUICK:-} ]]; then programs=(bin/glassbox bin/glassbox-runtime); else programs=(bin/glassbox*); fi
cp "${programs[@]}" "$(command -v docker-registry)" "$dir/"
# Criu works on the machine's kernel, even where it doesn't here.
if criu=$(command -v criu); then
	mkdir "$dir/criu"
	cp "$criu" "$dir/criu/"
	ldd "$criu" | awk '$3 ~ "^/" { print $3 }' | xargs cp -Lt "$dir/criu/"
fi
# The genuine systemd-resolved, whose package would take over this host's resolv.conf, and a server that stands for the world's.
if [[ -z ${QUICK:-} ]] && dnsmasq=$(command -v dnsmasq); then
	mkdir "$dir/resolved"
	(cd "$dir/resolved" && apt-get -q download systemd-resolved && dpkg-deb -x systemd-resolved_*.deb .) >/dev/null 2>&1
	cp "$dnsmasq" "$dir/resolved/"
	ldd "$dnsmasq" | awk '$3 ~ "^/" { print $3 }' | xargs cp -Lt "$dir/resolved/"
fi
# Nothing in the machine compiles it.
apparmor_parser --stdout --skip-cache --quiet test/apparmor.profile >"$dir/apparmor"
checkpolicy -M -U allow -c 33 -o "$dir/selinux" test/selinux.conf &>"$dir/checkpolicy" || { cat "$dir/checkpolicy" >&2 && exit 1; }
# The packages whose tests ask the kernel. The rest gives the same answer everywhere.
packages=(./test)
kernel=(cgroup host engine)
# These don't care which hierarchy it is; v2's own tests take longer.
if [[ $hierarchy == v1 ]]; then kernel+=(network); else kernel+=(fork supervise); fi
[[ -z $alone ]] || kernel=()
for name in "${kernel[@]}"; do
	[[ -z $(compgen -G "$name/*_test.go") ]] || packages+=("./$name")
done
for package in "${packages[@]}"; do
	go test -c -trimpath -o "$dir/${package#./}.test" "$package"
done

cat >"$dir/inside" <<'EOF'
#!/bin/bash
# 9p is no place for programs that are started often, nor for containers.
here=$PWD
mkdir /tmp/bin
cp "$DIR"/{glassbox*,docker-registry,test2json,*.test} /tmp/bin/
if [[ -e $DIR/criu ]]; then
	cp "$DIR/criu/criu" /usr/local/sbin/
	cp -n "$DIR"/criu/*.so* /usr/lib/x86_64-linux-gnu/
	ldconfig
fi
if [[ -e $DIR/resolved ]]; then
	cp "$DIR/resolved/dnsmasq" /usr/local/sbin/
	cp -n "$DIR"/resolved/*.so* /usr/lib/x86_64-linux-gnu/
	ldconfig
	export GLASSBOX_TEST_RESOLVED=$PWD/$DIR/resolved/lib/systemd/systemd-resolved
fi
export PATH=/tmp/bin:$PATH GLASSBOX_BIN=/tmp/bin GLASSBOX_TEST_VM=1 GLASSBOX_TEST_APPARMOR=$PWD/$DIR/apparmor GLASSBOX_TEST_SELINUX=$PWD/$DIR/selinux GLASSBOX_TEST_SCALE=${SCALE:-5} TMPDIR=/tmp
# A processor that the kernel has lost for a minute never comes back: better a dead machine, whose console tells where.
sysctl -q kernel.watchdog_thresh=30 kernel.softlockup_panic=1
dmesg -n 5
echo "$(uname -r), cgroup $(stat -fc %T /sys/fs/cgroup)" >&2
systemctl stop docker.socket docker containerd 2>/dev/null # each script has its own
status=0
# On v1 what cgroups are for. The rest asks the kernel, which is the same on v2.
scripts='0[568]-|1[35]-|cleanliness|device|io-limits|limits|oom-neighbour|stats|vlan'
[[ $HIERARCHY == v1 ]] || scripts+='|0[1-4]-|1[0-2]-|apparmor|readonly-tmpfs|ulimit|verify'
quick="^TestScripts$/^($scripts)|^TestRuntime(Life|Systemd)$"
# Of the validation suite what a kernel, AppArmor, or all capabilities make a difference to. What it says of cgroups fails on v2.
suite='default|linux_(devices|ns_nopath|process_apparmor_profile|rootfs_propagation|seccomp|sysctl|uid_mappings)|mounts|process_capabilities|state'
[[ $HIERARCHY == v1 ]] || quick+="|^TestRuntimeAppArmor$|^TestConformance$/^($suite)$|^TestKill$"
for file in /tmp/bin/*.test; do
	name=$(basename "$file" .test)
	cd "$here/$name" || exit
	flags=("$@")
	[[ -z $QUICK || $name != test || $# != 0 ]] || flags=(-test.run "$quick")
	# All of it takes an hour and a half on an emulated processor that nobody else wants.
	limit=$([[ $QUICK ]] && echo 60m || echo 240m)
	test2json -t -p "vm-$HIERARCHY/$name" "$file" -test.v=test2json -test.short -test.timeout="$limit" "${flags[@]}" || status=1
done
exit $status
EOF

# What KERNEL says is appended to the words that the machine's kernel is started with, whatever the program is that starts it.
mkdir "$dir/qemu"
cat >"$dir/qemu/qemu-system-x86_64" <<'EOF'
#!/bin/bash
words=("$@")
for i in "${!words[@]}"; do
	[[ ${words[i]} != -append ]] || words[i + 1]+=" ${KERNEL:-}"
done
PATH=${PATH#*:} exec qemu-system-x86_64 "${words[@]}"
EOF
chmod +x "$dir/qemu/qemu-system-x86_64"

go build -o "$dir/report" ./test/report
quick=${QUICK:-}
# inside CPUS [FLAG...] - runs the tests in a machine. An emulated machine can die of itself (125). That says nothing of the
# tests, so they get a second one.
inside() {
	local cpus=$1 status
	shift
	for _ in 1 2; do
		status=0
		PATH=$PWD/$dir/qemu:$PATH "$dir/report" "$vm" run --cgroup "$hierarchy" --cpus "$cpus" --mem 3072 --ro-share "$fixtures" -- \
			env GLASSBOX_TEST_FIXTURES="$fixtures" HIERARCHY="$hierarchy" DIR="$dir" SCALE="${SCALE:-5}" \
				RUNTIME="${RUNTIME:-}" QUICK="$quick" bash "$dir/inside" "$@" || status=$?
		[[ $status == 125 ]] || break
	done
	return "$status"
}

# One processor: emulated ones lose each other under load (a thread never returns from the kernel, or the kernel waits for a
# processor forever), about every second time. What needs two gets them for half a minute.
if [[ -n $alone ]]; then
	inside 2 -test.run '^TestScriptsAlone$'
	exit
fi
# Attacks and broken configurations meet the same code on every hierarchy, and the host's are of both kinds as a rule.
chosen=("$@")
skip='^(TestThreat|TestRuntimeErrors|TestScriptsAlone$)'
[[ $hierarchy != v1 ]] || skip+='|^TestCallers$/^cgroupfs$'
[[ $# != 0 || -n $quick ]] || chosen=(-test.skip "$skip")
failed=0
inside 1 "${chosen[@]}" || failed=$?
# A kernel has SELinux or AppArmor, as it is told at its start. By hand: KERNEL=security=selinux test/vm.sh v2 -test.run SELinux
if [[ $# == 0 && -z $quick && $hierarchy == v2 ]]; then
	KERNEL=security=selinux inside 1 -test.run '^TestRuntimeSELinux$' || failed=$?
fi
exit "$failed"
