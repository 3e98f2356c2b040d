#!/bin/bash
# Runs BuildKit's own Dockerfile cases (frontend/dockerfile, integration) with glassbox's builder in the place of buildkitd, and with stock
# buildkitd: cases.sh [PATTERN]. What came of them is in out/buildkit/glassbox.log and stock.log, and what differs is printed. After
# `make build` and `test/buildkit.sh build`. Ten minutes. docs/build.md has the table.
set -euo pipefail
cd "$(dirname "$0")/../.."
dir=$PWD/out/buildkit
if [[ ${1:-} == --inside ]]; then
	ip link set lo up
	export PATH=$dir/as-$2:$dir:$PWD/bin:/usr/sbin:/usr/bin:/sbin:/bin TMPDIR=/tmp/buildkit-$2
	export BUILDKIT_REGISTRY_MIRROR_DIR=$dir/mirror FRONTEND_BUILTIN_ONLY=1
	mkdir -p "$TMPDIR"
	cd "$dir/src/frontend/dockerfile"
	"$dir/dockerfile.test" -test.v -test.timeout 60m -test.run "$3" >"$dir/$2.log" 2>&1 || true
	rm -rf "$TMPDIR"
	exit
fi
mkdir -p "$dir/as-glassbox"
ln -sf "$PWD/test/buildkit/buildkitd" "$dir/as-glassbox/buildkitd"
ln -sf "$(command -v docker-registry)" "$dir/registry"
if [[ ! -x $dir/dockerfile.test ]]; then
	version=$(cd cmd/glassbox-build && go list -m -f '{{.Version}}' github.com/moby/buildkit)
	rm -rf "$dir/src"
	cp -r "$(go env GOMODCACHE)/github.com/moby/buildkit@$version" "$dir/src"
	chmod -R u+w "$dir/src"
	(cd "$dir/src" && CGO_ENABLED=0 GOFLAGS=-mod=mod GOWORK=off go test -c -trimpath -o "$dir/dockerfile.test" ./frontend/dockerfile)
	find "$dir/src" -name '*.go' -delete # but for what the cases read
fi
PATH=$PWD/bin:$PATH unshare --net --mount test/buildkit/images.sh "$dir"
for who in glassbox stock; do
	unshare --net --mount "$0" --inside $who "${1:-TestIntegration/.*/worker=oci\$}"
done
results() { sed -nE 's|^ *--- ([A-Z]+): TestIntegration/(.*) \(.*|\2 \1|p' "$dir/$1.log" | sort; }
for who in glassbox stock; do
	echo "$who: $(results $who | grep -c ' PASS$' || true) passed, $(results $who | grep -c ' FAIL$' || true) failed"
done
diff <(results stock) <(results glassbox) || true
