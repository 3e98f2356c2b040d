#!/bin/bash
# A Kubernetes node on which runc and glassbox-runtime are compared: cluster.sh [DIR [COMMAND...]], where DIR keeps the programs. It builds
# Kubernetes, containerd and runc from the Go module proxy (half an hour of two processors and 8 GB of disk the first time, Go's caches
# among it, which are in DIR, too), takes etcd from Debian, starts them in a machine of the tests and runs TestCluster; or COMMAND in the
# cluster, such as `kubectl get nodes`, or `sleep 10000` to look into it from another terminal. Without DIR nothing stays. As root, on Debian.
# What they set of the kernel, the network and the cgroups stays in the machine. CASES=probes/volumes chooses (go test -run). SUITE=CLASS runs
# Kubernetes' own specifications for nodes instead (NodeConformance: half an hour, besides ten minutes to build them) with that class, runc or
# glassbox, as the default one; COMMAND is then a regular expression that chooses.
set -euo pipefail
cd "$(dirname "$0")/.."
test/setup.sh test
test/setup.sh cluster
make build
if [[ -n ${1:-} ]]; then
	dir=$(realpath -m "$1")
	shift
else
	dir=$(mktemp -d)
	trap 'chmod -R u+w "$dir" && rm -rf "$dir"' EXIT
fi
mkdir -p "$dir"
(
	export GOMODCACHE=$dir/modules GOCACHE=$dir/cache JOBS=${JOBS:-2}
	# shellcheck source=test/callers.sh
	. test/callers.sh
	containerd
	runc
	kubernetes kube-apiserver kube-controller-manager kube-scheduler kubelet kubectl kube-proxy
	[[ -z ${SUITE:-} ]] || suite
)
if [[ ! -x $dir/etcd ]]; then
	mkdir -p "$dir/src/etcd"
	(cd "$dir/src/etcd" && apt-get -q download etcd-server && dpkg -x etcd-server_*.deb .)
	cp "$dir/src/etcd/usr/bin/etcd" "$dir/etcd"
fi
if [[ ! -e $dir/pause.tar ]]; then
	pause=$dir/src/pause
	rm -rf "$pause"
	mkdir -p "$pause"
	umoci init --layout "$pause/oci"
	umoci new --image "$pause/oci:1"
	umoci unpack --image "$pause/oci:1" "$pause/bundle"
	gcc -Os -static -s -o "$pause/bundle/rootfs/pause" test/cluster/pause.c
	umoci repack --image "$pause/oci:1" "$pause/bundle"
	umoci config --image "$pause/oci:1" --config.entrypoint /pause --config.user 65535:65535
	tar -C "$pause/oci" -cf "$dir/pause.tar" .
fi
rm -rf "$dir/src"
[[ -z ${SUITE:-} ]] || set -- "$PWD/test/cluster/suite.sh" ${1:+"$(printf %q "$1")"}
CLUSTER=$dir CLUSTER_COMMAND="$*" GLASSBOX_BIN=$PWD/bin go test -count=1 -timeout 0 -v ./test -run "^TestCluster\$${CASES:+/$CASES}"
