# shellcheck shell=bash disable=SC2154
# Sourced by newer.sh and cluster.sh: what they build of others, from the Go module proxy, into $dir. Needs jq.
containerd=v2.4.2 kubernetes=1.36.3 runc=v1.5.3
mkdir -p "$dir/src"
# Kubernetes' module has a go.work that names directories which it doesn't have.
export CGO_ENABLED=0 GOFLAGS=-mod=mod GOWORK=off
flags=(-p "${JOBS:-1}" -trimpath -ldflags '-s -w')
version=(-ldflags "-s -w -X k8s.io/component-base/version.gitVersion=v$kubernetes") # Kubernetes'

# source_of MODULE@VERSION NAME - a copy of a module's files that can be changed.
source_of() {
	rm -rf "$dir/src/$2"
	cp -r "$(go mod download -json "$1" | jq -r .Dir)" "$dir/src/$2"
	chmod -R u+w "$dir/src/$2"
}

containerd() {
	local program
	for program in containerd-shim-runc-v2 ctr containerd; do
		[[ -x $dir/$program ]] || GOBIN=$dir go install "${flags[@]}" "github.com/containerd/containerd/v2/cmd/$program@$containerd"
	done
}

# runc with libseccomp, as everybody has it: it needs gcc, pkg-config and libseccomp-dev.
runc() {
	[[ ! -x $dir/runc ]] || return 0
	source_of github.com/opencontainers/runc@$runc runc
	(cd "$dir/src/runc" && CGO_ENABLED=1 go build "${flags[@]}" -tags seccomp -ldflags "-s -w -X main.version=${runc#v}" -o "$dir/" .)
}

# kubernetes_source - Kubernetes' files, changed so that they build by themselves.
kubernetes_source() {
	local module
	[[ ! -d $dir/src/kubernetes ]] || return 0
	source_of k8s.io/kubernetes@v$kubernetes kubernetes
	# Its own modules lie beside it there, and on the proxy have versions of their own, but for two samples, which nothing needs.
	for module in $(cd "$dir/src/kubernetes" && go mod edit -json | jq -r '.Replace[].Old.Path'); do
		case $module in
		*/sample-cli-plugin | */sample-controller) set -- -droprequire "$module" ;;
		*) set -- -require "$module@v0.${kubernetes#1.}" ;;
		esac
		(cd "$dir/src/kubernetes" && go mod edit -dropreplace "$module" "$@")
	done
}

# kubernetes PROGRAM...
kubernetes() {
	local program
	for program; do
		[[ ! -x $dir/$program ]] || continue
		kubernetes_source
		(cd "$dir/src/kubernetes" && go build "${flags[@]}" "${version[@]}" -o "$dir/" "./cmd/$program")
	done
}

# suite - Kubernetes' own specifications, what runs them, and programs of the images that they need.
suite() {
	if [[ ! -x $dir/e2e.test ]]; then
		kubernetes_source
		(
			cd "$dir/src/kubernetes" &&
				go build "${flags[@]}" -o "$dir/" ./test/images/agnhost github.com/onsi/ginkgo/v2/ginkgo &&
				go build "${flags[@]}" -o "$dir/nnp" ./test/images/nonewprivs &&
				cp test/images/agnhost/porter/localhost.{crt,key} "$dir/" &&
				go test -c -vet=off "${flags[@]}" "${version[@]}" -o "$dir/e2e.test" ./test/e2e
		)
	fi
	[[ -e $dir/suite.tar ]] || test/cluster/suite-images.sh "$dir"
}
