#!/bin/bash
# Builds newer callers than Debian has, from the Go module proxy, and runs the scripts for them: newer.sh [DIR], where DIR keeps the
# programs. The first time takes half an hour of two processors and 4 GB of disk, besides Go's caches. As root, after `make` and
# `test/setup.sh test`; with jq and gcc. What they set of the kernel stays in the scripts' machines.
set -euo pipefail
cd "$(dirname "$0")/.."
dir=$(realpath -m "${1:-build/newer}")
containerd=v2.4.2 buildkit=v0.25.2 kubernetes=1.36.3 nerdctl=v2.1.2 crio=v1.34.0 critools=v1.34.0
mkdir -p "$dir/src"
export CGO_ENABLED=0 GOFLAGS=-mod=mod
flags=(-p 1 -trimpath -ldflags '-s -w')

# source_of MODULE@VERSION NAME - a copy of a module's files that can be changed.
source_of() {
	rm -rf "$dir/src/$2"
	cp -r "$(go mod download -json "$1" | jq -r .Dir)" "$dir/src/$2"
	chmod -R u+w "$dir/src/$2"
}

if [[ ! -x $dir/containerd ]]; then
	for program in containerd-shim-runc-v2 ctr containerd; do
		GOBIN=$dir go install "${flags[@]}" "github.com/containerd/containerd/v2/cmd/$program@$containerd"
	done
fi
if [[ ! -x $dir/buildkitd ]]; then
	source_of github.com/moby/buildkit@$buildkit buildkit
	(cd "$dir/src/buildkit" && go build "${flags[@]}" -tags seccomp -o "$dir/" ./cmd/buildkitd ./cmd/buildctl)
fi
if [[ ! -x $dir/kubelet ]]; then
	source_of k8s.io/kubernetes@v$kubernetes kubernetes
	(
		cd "$dir/src/kubernetes"
		# Its own modules lie beside it there, and on the proxy have versions of their own.
		for module in $(go mod edit -json | jq -r '.Replace[].Old.Path'); do
			go mod edit -dropreplace "$module" -require "$module@v0.${kubernetes#1.}"
		done
		go build "${flags[@]}" -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=v$kubernetes" -o "$dir/" ./cmd/kubelet
	)
fi
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
if [[ ! -x $dir/crictl ]]; then
	export GONOSUMDB=sigs.k8s.io/cri-tools # on the proxy, and not in the database of checksums
	source_of sigs.k8s.io/cri-tools@$critools cri-tools
	(cd "$dir/src/cri-tools" && go build "${flags[@]}" -o "$dir/" ./cmd/crictl)
fi
rm -rf "$dir/src"
unset GOFLAGS
CALLERS=$dir GLASSBOX_BIN=$PWD/bin go test -count=1 -v ./test -run '^TestCallers$'
