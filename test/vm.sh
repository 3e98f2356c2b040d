#!/bin/bash
# Runs the tests in a virtual machine with one cgroup hierarchy: vm.sh v1|v2 [FLAG...], flags as of go test binaries.
# Everything is compiled here; the machine's processor may be emulated.
set -euo pipefail
cd "$(dirname "$0")/.."
hierarchy=$1
shift
vm=${VM:-../shared/vm/vm}
dir=build/vm

rm -rf "$dir"
mkdir -p "$dir"
fixtures=$(cd test && go run ./fixture/make)
export CGO_ENABLED=0
go build -o "$dir/" cmd/test2json
cp bin/glassbox bin/glassbox-runtime "$(command -v docker-registry)" "$dir/"
# The packages whose tests ask the kernel. The rest gives the same answer everywhere.
packages=(./test)
for name in cgroup fork host network supervise engine; do
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
cp build/vm/{glassbox,glassbox-runtime,docker-registry,test2json,*.test} /tmp/bin/
export PATH=/tmp/bin:$PATH GLASSBOX_BIN=/tmp/bin GLASSBOX_TEST_VM=1 GLASSBOX_TEST_SCALE=${SCALE:-5} TMPDIR=/tmp
# A processor that the kernel has lost for a minute never comes back: better a dead machine, whose console tells where.
sysctl -q kernel.watchdog_thresh=30 kernel.softlockup_panic=1
dmesg -n 5
echo "$(uname -r), cgroup $(stat -fc %T /sys/fs/cgroup)" >&2
status=0
for file in /tmp/bin/*.test; do
	name=$(basename "$file" .test)
	cd "$here/$name" || exit
	test2json -t -p "vm-$HIERARCHY/$name" "$file" -test.v=test2json -test.timeout=20m "$@" || status=1
done
exit $status
EOF

go build -o "$dir/report" ./test/report
# An emulated machine can die of itself (125). That says nothing of the tests, so they get a second one.
for _ in 1 2; do
	status=0
	"$dir/report" "$vm" run --cgroup "$hierarchy" --mem 3072 --ro-share "$fixtures" -- \
		env GLASSBOX_TEST_FIXTURES="$fixtures" HIERARCHY="$hierarchy" SCALE="${SCALE:-5}" bash "$dir/inside" "$@" || status=$?
	[[ $status == 125 ]] || break
done
exit "$status"
