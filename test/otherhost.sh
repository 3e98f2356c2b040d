#!/bin/bash
# Runs a command, as root, on a host that is different in all that a test could take for granted: otherhost.sh COMMAND...
# Namespaces of its own (mount, network, host name, IPC) keep the real host as it is. A test that fails only here assumes what it
# should have set itself. What it needs of the network (packages, modules) is fetched before, outside.
set -euo pipefail
PATH+=:/usr/sbin:/sbin
if [[ ${1:-} != --inside ]]; then
	top=$(cd "$(dirname "$0")/.." && pwd)
	[[ $# -gt 0 ]] || { echo "usage: otherhost.sh COMMAND..." >&2; exit 2; }
	for module in "$top" "$top/test/cri" "$top/test/conformance"; do
		(cd "$module" && go mod download)
	done
	# Where things are kept follows HOME as a rule, and that will be another.
	GOPATH=$(go env GOPATH) GOMODCACHE=$(go env GOMODCACHE) GOCACHE=$(go env GOCACHE)
	GLASSBOX_TEST_FIXTURES=$(cd "$top/test" && go run ./fixture/make)
	export GOPATH GOMODCACHE GOCACHE GLASSBOX_TEST_FIXTURES
	exec unshare --mount --net --uts --ipc --propagation private "$0" --inside "$@"
fi
shift

# A router with somebody else's firewall: the state after the start of dockerd, or of a VPN.
hostname other.example
ip link set lo up
# IPv4 settings of new namespaces are those of the first one on this kernel unless net.core.devconf_inherit_init_net says otherwise,
# which is the whole host's: where this is a virtual machine, the machine's own network namespace is prepared by vm.sh.
"$(dirname "$0")/otherhost-net.sh"

# Files: somebody else's /dev/null, a /tmp and a home in odd places. Sockets' paths are at most 107 bytes long, so short ones.
files=/media
mount -t tmpfs -o mode=755 other $files
mkdir -m 1777 $files/t
mkdir -m 700 $files/h $files/h/run $files/h/data
mknod -m 666 $files/null c 1 3
chown 100007:34 $files/null
mount --bind $files/null /dev/null
# Nobody's settings are to be found by accident, and what is found is wrong.
mkdir -p $files/h/.docker $files/h/.config/containers $files/h/config/containers
echo '{ "auths": "wrong", "credsStore": "nowhere" }' >$files/h/.docker/config.json
echo 'wrong = [' | tee $files/h/.config/containers/registries.conf >$files/h/config/containers/registries.conf

export HOME=$files/h TMPDIR=$files/t XDG_RUNTIME_DIR=$files/h/run XDG_DATA_HOME=$files/h/data XDG_CONFIG_HOME=$files/h/config XDG_CACHE_HOME=$files/h/cache
export LANG=tr_TR.UTF-8 LC_ALL=tr_TR.UTF-8 LANGUAGE=tr TZ=Pacific/Chatham COLUMNS=47 LINES=7 TERM=dumb NO_COLOR=1 PAGER=false EDITOR=false
export GLASSBOX_ROOT=/proc/nowhere GLASSBOX_STATE=/proc/nowhere GLASSBOX_LOG=debug DOCKER_CONFIG=$files/h/.docker DOCKER_HOST=tcp://127.0.0.1:1
export http_proxy=http://127.0.0.1:1 https_proxy=http://127.0.0.1:1 HTTP_PROXY=http://127.0.0.1:1 HTTPS_PROXY=http://127.0.0.1:1
export SSL_CERT_FILE=/proc/nowhere SSL_CERT_DIR=/proc/nowhere REGISTRY_AUTH_FILE=/proc/nowhere CDPATH=/usr NOTIFY_SOCKET=/proc/nowhere LISTEN_FDS=1 LISTEN_PID=1
export GOTRACEBACK=all GREP_OPTIONS='' POSIXLY_CORRECT=1
# Limits: few descriptors at first, cores, little locked memory, a small stack; somebody who is nice, and not to be killed first.
ulimit -c unlimited
ulimit -S -n 512
ulimit -S -l 1024
ulimit -S -s 4096
ulimit -S -u 20000
umask 077
echo 100 >/proc/self/oom_score_adj
trap '' HUP USR2 # ignored signals stay so beyond execve
exec nice -n 3 "$@"
