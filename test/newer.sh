#!/bin/bash
# Builds newer callers than Debian has, from the Go module proxy, and runs the scripts for them: newer.sh [DIR], where DIR keeps the
# programs. The first time takes half an hour of two processors and 4 GB of disk, besides Go's caches. As root, after `make` and
# `test/setup.sh test`; with jq and gcc. What they set of the kernel stays in the scripts' machines.
set -euo pipefail
cd "$(dirname "$0")/.."
dir=$(realpath -m "${1:-out/newer}")
buildkit=v0.25.2 nerdctl=v2.1.2 crio=v1.34.0 critools=v1.34.0
# shellcheck source=test/callers.sh
. test/callers.sh
containerd
if [[ ! -x $dir/buildkitd ]]; then
	source_of github.com/moby/buildkit@$buildkit buildkit
	(cd "$dir/src/buildkit" && go build "${flags[@]}" -tags seccomp -o "$dir/" ./cmd/buildkitd ./cmd/buildctl)
fi
kubernetes kubelet
if [[ ! -x $dir/nerdctl ]]; then
	source_of github.com/containerd/nerdctl/v2@$nerdctl nerdctl
	(
		cd "$dir/src/nerdctl"
		tests=github.com/containerd/nerdctl/mod/tigron
		go mod edit -dropreplace $tests@v0.0.0 -droprequire $tests
		go build "${flags[@]}" -o "$dir/" ./cmd/nerdctl
	)
fi
if [[ ! -x $dir/crio ]]; then
	source_of github.com/cri-o/cri-o@$crio crio
	(
		cd "$dir/src/crio"
		gcc -std=c99 -Os -static -DVERSION="\"$crio\"" -o "$dir/pinns" pinns/src/*.c
		# Without libseccomp, which needs C.
		go build "${flags[@]}" -tags 'containers_image_openpgp exclude_graphdriver_btrfs' -o "$dir/" ./cmd/crio
	)
fi
if [[ ! -x $dir/critest ]]; then
	export GONOSUMDB=sigs.k8s.io/cri-tools # on the proxy, and not in the database of checksums
	source_of sigs.k8s.io/cri-tools@$critools cri-tools
	(cd "$dir/src/cri-tools" && go build "${flags[@]}" -o "$dir/" ./cmd/crictl && go test -c "${flags[@]}" -o "$dir/critest" ./cmd/critest)
fi
rm -rf "$dir/src"
unset GOFLAGS GOWORK
CALLERS=$dir GLASSBOX_BIN=$PWD/bin go test -count=1 -timeout 60m -v ./test -run '^TestCallers$'
