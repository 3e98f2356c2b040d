#!/bin/bash
# What only an arm64 kernel can tell, in a virtual machine with Debian's: arm64.sh [PACKAGE...]. The processor is emulated, all files
# are in memory, and it takes some minutes. Not part of CI: it fetches a kernel of 60 MB with apt-get and needs qemu-system-aarch64.
#
# The machine runs containers with both programs and with seccomp's default filter, and then the tests of the packages.
set -euo pipefail
cd "$(dirname "$0")/.."
packages=("$@")
[[ $# != 0 ]] || packages=(signals seccomp host cgroup fork)
dir=$PWD/out/arm64
export CGO_ENABLED=0

for program in qemu-system-aarch64:qemu-system-arm busybox:busybox-static apt-get:apt go:golang; do
	command -v "${program%:*}" >/dev/null || { echo "missing: ${program%:*}, Debian's package ${program#*:}" >&2; exit 125; }
done

# Packages of the other architecture, without a change to what this machine has installed.
if ! compgen -G "$dir/debs/linux-image-*_arm64.deb" >/dev/null; then
	mkdir -p "$dir"/{lists,cache/archives}/partial "$dir/debs"
	: >"$dir/status"
	cat >"$dir/apt.conf" <<-END
		APT::Architecture "arm64";
		APT::Architectures { "arm64"; };
		APT::Sandbox::User "";
		Dir::State::Lists "$dir/lists";
		Dir::State::status "$dir/status";
		Dir::Cache "$dir/cache";
	END
	(
		export APT_CONFIG=$dir/apt.conf
		cd "$dir/debs"
		apt-get -q update
		kernel=$(apt-cache depends linux-image-arm64 | awk '/Depends: linux-image/ { print $2; exit }')
		apt-get -q download busybox-static "$kernel"
	)
fi
rm -rf "$dir/kernel" "$dir/root"
for deb in "$dir"/debs/linux-image-*.deb; do dpkg -x "$deb" "$dir/kernel"; done
for deb in "$dir"/debs/busybox-static*.deb; do dpkg -x "$deb" "$dir/root"; done

make arm64
mkdir -p "$dir"/root/{proc,sys,dev,tmp,run,etc,root,src,usr/bin,sbin,var/lib}
mkdir -p "$dir/root/bundle/rootfs"/{bin,proc,sys,dev,tmp,etc}
cp bin/arm64/glassbox bin/arm64/glassbox-runtime "$dir/root/usr/bin/"
cp "$dir/root/bin/busybox" "$dir/root/bundle/rootfs/bin/"
for p in "${packages[@]}"; do
	mkdir -p "$dir/root/src/$p"
	GOARCH=arm64 go test -c -trimpath -o "$dir/root/src/$p.test" "./$p"
	[[ ! -d $p/testdata ]] || cp -r "$p/testdata" "$dir/root/src/$p/"
done
# Some tests read other packages' sources.
cp go.mod "$dir/root/src/"
mkdir -p "$dir/root/src/plan"
cp plan/op_*.go "$dir/root/src/plan/"
printf 'root:x:0:0:root:/root:/bin/sh\n' >"$dir/root/etc/passwd"
printf 'root:x:0:\n' >"$dir/root/etc/group"

version=$(basename "$dir"/kernel/lib/modules/*)
for part in fs/overlayfs net/bridge net/802 net/llc net/netfilter net/ipv4/netfilter net/ipv6/netfilter drivers/net/veth.ko drivers/net/dummy.ko \
	drivers/block/loop.ko fs/ext4 fs/jbd2 fs/mbcache.ko lib crypto; do
	from=kernel/$part
	[[ -e $dir/kernel/lib/modules/$version/$from ]] || continue
	mkdir -p "$dir/root/lib/modules/$version/$(dirname "$from")"
	cp -r "$dir/kernel/lib/modules/$version/$from" "$dir/root/lib/modules/$version/$from"
done
cp "$dir/kernel/lib/modules/$version"/modules.{builtin,order} "$dir/root/lib/modules/$version/"
busybox depmod -b "$dir/root" "$version"

# The first process makes a file system that is not the kernel's ramdisk, which pivot_root(2) can't leave.
cat >"$dir/root/init" <<'END'
#!/bin/busybox sh
/bin/busybox --install -s /bin
/bin/busybox --install -s /usr/bin
if [ ! -e /ready ]; then
	mkdir /new
	mount -t tmpfs -o size=90% tmpfs /new
	: >/ready
	for f in /*; do [ "$f" = /new ] || cp -a "$f" /new/; done
	exec switch_root /new /init
fi
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount --make-rshared /
ip link set lo up
rm /bin/ip /usr/bin/ip # busybox's can't make what a test makes with it, which is then skipped
for m in crc32c_generic loop ext4 overlay bridge veth nf_tables nft_chain_nat nft_ct nft_nat nft_masq nft_fib_inet nf_conntrack br_netfilter dummy; do modprobe $m || echo "no module $m"; done
export PATH=/bin:/usr/bin HOME=/root
# For mounts with ids of their own, which tmpfs can't have before Linux 6.3.
dd if=/dev/zero of=/disk bs=1M count=0 seek=512 2>/dev/null
mke2fs -F /disk >/dev/null
mount -t ext4 -o loop /disk /tmp
uname -rm
sh /inside
echo "inside ended with $?"
poweroff -f
END
chmod 755 "$dir/root/init"

cat >"$dir/root/inside" <<'END'
failed=0
# check WHAT WANT COMMAND...: the command's output has WANT in it; without WANT the command succeeds.
check() {
	what=$1 want=$2
	shift 2
	"$@" >/tmp/got 2>&1 </dev/null # a file: a container that stays has its other end, too
	code=$? got=$(cat /tmp/got)
	[ -n "$want" ] || [ $code = 0 ] || want="status 0"
	case $got in
	*"$want"*) echo "ok: $what" ;;
	*) echo "FAILED: $what: status $code, want $want, got: $got" && failed=1 ;;
	esac
}
gb() { glassbox "$@"; }

cd /bundle
for a in sh cat id ls uname sleep true grep; do ln -s busybox rootfs/bin/$a; done
glassbox-runtime spec
grep -q '"terminal": true' config.json && sed -i 's/"terminal": true/"terminal": false/' config.json
cp config.json example.json
command() { sed "s#^\([[:space:]]*\)\"sh\"#\1\"sh\", \"-c\", \"$1\"#" example.json >config.json; }
command 'uname -m; id -u; cat /proc/1/comm; grep -E ^Cap /proc/self/status; echo end'
check 'glassbox-runtime run' 'end' glassbox-runtime run one
check 'the machine' aarch64 glassbox-runtime run one
command 'sleep 1000'
check 'create' '' glassbox-runtime create two
check 'state' created glassbox-runtime state two
check 'start' '' glassbox-runtime start two
check 'its state' running glassbox-runtime state two
check 'exec' 'sleep' glassbox-runtime exec two cat /proc/1/cmdline
check 'the executable is out of reach' 'Read-only' glassbox-runtime exec two sh -c 'sleep 0.2 & for p in /proc/[0-9]*; do echo x >$p/exe; done'
check 'pause' '' glassbox-runtime pause two
check 'its state' paused glassbox-runtime state two
check 'resume' '' glassbox-runtime resume two
check 'events' memory glassbox-runtime events --stats two
check 'kill' '' glassbox-runtime kill two KILL
sleep 1
check 'its end' stopped glassbox-runtime state two
check 'delete' '' glassbox-runtime delete two
check 'nothing is left' 'nothing' sh -c 'ls -d /sys/fs/cgroup/two /run/glassbox-runtime/two 2>/dev/null || echo nothing'
command 'exit 7'
glassbox-runtime run three
check 'an exit status' '' test $? = 7

check 'an image' '' gb image from-host box /bin/busybox
check 'glassbox run' '0 aarch64' gb run --rm --network none box busybox sh -c 'echo $(busybox id -u) $(busybox uname -m)'
check 'the default filter' 'Seccomp:	2' gb run --rm --network none box busybox cat /proc/self/status
check 'the default filter refuses' 'not permitted' gb run --rm --network none box busybox unshare -m true
check 'a memory limit' '137' sh -c 'glassbox run --rm --network none --memory 8m --memory-swap 8m box busybox sh -c "busybox dd if=/dev/zero of=/dev/null bs=64M count=1"; echo $?'
check 'a bridge' 'inet ' gb run --rm box busybox ip -4 addr show eth0
check 'detached' '' gb run -d --name web --network none box busybox sleep 1000
check 'exec' 'sleep' gb exec web busybox cat /proc/1/cmdline
check 'debug' 'sleep' gb debug web busybox cat /proc/1/cmdline
check 'verify' '' gb verify web
check 'stop' '' gb stop -t 1 web
check 'rm' '' gb rm web
check 'a terminal' 'yes' gb run --rm -t --network none box busybox sh -c 'busybox tty >/dev/null && echo yes'
check 'trace' '' gb run --trace /tmp/trace.json --rm --network none box busybox true
check 'the trace' '"execve"' grep -m 1 '"execve"' /tmp/trace.json
check 'a published port' 'hello' sh -c 'glassbox run -d --name port -p 8080:80 box busybox nc -l -p 80 -e busybox echo hello >/dev/null; sleep 2; nc -w 5 127.0.0.1 8080; glassbox rm -f port >/dev/null'

for test in /src/*.test; do
	name=$(basename $test .test)
	cd /src/$name
	echo "== $name"
	run=.
	[ $name != seccomp ] || run=Kernel # the rest is arithmetic, which takes an emulated processor ten minutes
	$test -test.v -test.short -test.timeout 15m -test.run $run >/out 2>&1 || failed=1
	echo "passed: $(grep -c '^ *--- PASS' /out), skipped: $(grep -c '^ *--- SKIP' /out)"
	grep -B 4 -A 1 -E '^ *--- (FAIL|SKIP)|^(panic|fatal|FAIL)' /out | grep -v '^=== RUN' | cut -c -400 | head -n 80
done
exit $failed
END

(cd "$dir/root" && find . | busybox cpio -o -H newc 2>/dev/null >"$dir/initrd")
qemu-system-aarch64 -M virt -cpu cortex-a72 -smp 1 -m 2048 -nographic -no-reboot -net none \
	-kernel "$dir"/kernel/boot/vmlinuz-* -initrd "$dir/initrd" -append 'console=ttyAMA0 quiet panic=-1 rdinit=/init' </dev/null |
	tee "$dir/console"
grep -q '^inside ended with 0' "$dir/console"
