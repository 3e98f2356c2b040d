#!/bin/bash
# Builds stock BuildKit (buildkitd and buildctl, of the version that glassbox-build is made with) from the Go module proxy, and compares what
# it makes of the Dockerfiles in dockerfiles/ with what glassbox makes of them: buildkit.sh [-update], which writes the golden files that
# `make test` compares with. As root, after `make build` and `test/setup.sh test`; runc is Debian's.
set -euo pipefail
cd "$(dirname "$0")/.."
dir=$PWD/out/buildkit
mkdir -p "$dir"
version=$(cd cmd/glassbox-build && go list -m -f '{{.Version}}' github.com/moby/buildkit)
if [[ ! -x $dir/buildctl ]]; then
	# As newer.sh does: the module is built as what it is, with its own go.mod.
	rm -rf "$dir/src"
	cp -r "$(go mod download -json "github.com/moby/buildkit@$version" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')" "$dir/src"
	chmod -R u+w "$dir/src"
	(cd "$dir/src" && CGO_ENABLED=0 GOFLAGS=-mod=mod GOWORK=off go build -trimpath -ldflags '-s -w' -o "$dir/" ./cmd/buildkitd ./cmd/buildctl)
	rm -rf "$dir/src"
fi
[[ ${1:-} != build ]] || exit 0
BUILDKIT=$dir GLASSBOX_BIN=$PWD/bin go test -count=1 -v -timeout 30m -run '^TestDockerfiles$' ./test "$@"
