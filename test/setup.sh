#!/bin/bash
# Installs what the tests need: setup.sh test|cluster|lint|demo.  Quick when all is there.
set -euo pipefail
PATH+=:/usr/sbin:/sbin

# PROGRAM PACKAGE, for every purpose that needs it.
needs() {
	case $1 in
	test)
		cat <<-EOF
			mmdebstrap mmdebstrap
			docker-registry docker-registry
			busybox busybox-static
			nft nftables
			iptables-nft iptables
			ip iproute2
			strace strace
			criu criu
			newuidmap uidmap
			umoci umoci
			skopeo skopeo
			gcc gcc
			mount mount
			ps procps
			setpriv util-linux
			ldd libc-bin
			git git
			containerd containerd
			/usr/lib/cni/bridge containernetworking-plugins
			dockerd docker.io
			ufw ufw
			firewalld firewalld
			/usr/lib/python3/dist-packages/nftables python3-nftables
			docker docker.io
			/usr/lib/python3/dist-packages/docker/api python3-docker
			podman podman
			tini-static tini
			apparmor_parser apparmor
			checkpolicy checkpolicy
		EOF
		;;
	cluster)
		cat <<-EOF
			jq jq
			curl curl
			openssl openssl
			pkg-config pkg-config
			/usr/include/seccomp.h libseccomp-dev
		EOF
		;;
	lint) echo shellcheck shellcheck && echo git git ;;
	demo) ;;
	*)
		echo "usage: setup.sh test|cluster|lint|demo" >&2
		exit 2
		;;
	esac
}

programs=() packages=()
while read -r program package; do
	if ! command -v "$program" >/dev/null && [[ ! -e $program ]]; then
		programs+=("$program")
		packages+=("$package")
	fi
done < <(needs "${1:-test}")
# busybox may be there as the one with shared libraries.
if [[ ${1:-test} == test && " ${packages[*]} " != *busybox* ]] && ldd /bin/busybox >/dev/null 2>&1; then
	programs+=("a static busybox")
	packages+=(busybox-static)
fi
[[ ${#packages[@]} -gt 0 ]] || exit 0

if ! command -v apt-get >/dev/null || [[ $(id -u) != 0 ]]; then
	{
		echo "missing: ${programs[*]}"
		echo "On Debian, as root: apt-get install ${packages[*]}"
	} >&2
	exit 1
fi
# Some packages would start services.
if [[ ! -e /usr/sbin/policy-rc.d ]]; then
	printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
	chmod +x /usr/sbin/policy-rc.d
	trap 'rm -f /usr/sbin/policy-rc.d' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
apt-get -q update
apt-get -q install -y --no-install-recommends "${packages[@]}"
