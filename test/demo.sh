#!/bin/bash
# A container from nothing but this machine: an image of its own programs, limits, a look from inside, and the plan that
# made it.  Needs root and no network; leaves nothing.
set -euo pipefail
cd "$(dirname "$0")/.."

if [[ $(id -u) != 0 ]]; then
	echo 'demo: needs root, for namespaces and cgroups: sudo make demo' >&2
	exit 1
fi
# A bridge stays for the next container, as Docker's does: here in a network namespace that goes with this script.
if [[ -z ${DEMO_NAMESPACE:-} ]] && unshare --net true 2>/dev/null; then
	DEMO_NAMESPACE=1 exec unshare --net "test/demo.sh"
fi
groups_before=$(find /sys/fs/cgroup -maxdepth 2 -type d -name 'glassbox*')
work=$(mktemp -d)
glassbox=("${GLASSBOX_BIN:-bin}/glassbox" --root "$work/root" --state "$work/state")

cleanup() {
	local ids
	ids=$("${glassbox[@]}" ps -aq) || true
	[[ -z $ids ]] || xargs "${glassbox[@]}" rm -f <<<"$ids" >/dev/null || true
	rm -rf --one-file-system "$work"
	# The parent of containers' control groups, unless it was there before; rmdir takes only an empty one.
	find /sys/fs/cgroup -maxdepth 2 -type d -name 'glassbox*' | grep -vxF "${groups_before:-none}" | xargs -r rmdir 2>/dev/null || true
}
trap cleanup EXIT

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
# What is printed can be copied, words in quotes and all: there it works on the store that every command uses without --root.
show() {
	local word line='$ sudo glassbox'
	for word; do
		[[ $word =~ ^[A-Za-z0-9_./:=,@%+-]+$ ]] || word="'${word//\'/\'\\\'\'}'" # for any shell: @Q writes $'…' at times
		line+=" $word"
	done
	printf '%s\n' "$line"
	"${glassbox[@]}" "$@"
}

# Not every machine lets its firewall and links be changed: the demo then shows a container with loopback only.
network=()

say '1. An image made of programs that are on this machine, and of the libraries that their ELF headers name.'
programs=()
for name in bash cat ls hostname ps id ip; do
	if path=$(type -P "$name"); then
		programs+=("$path")
	fi
done
show image from-host demo "${programs[@]}"
show images

# A name that stays, for whoever copies a command.
look=$PWD/test/demo-look.sh

if ! "${glassbox[@]}" run --rm demo bash -c true 2>"$work/error"; then
	say 'This machine does not give a bridge network; the demo goes on without:'
	cat "$work/error"
	network=(--network none)
fi

say '2. The machine, seen from outside.'
echo "hostname:        $(</proc/sys/kernel/hostname)"
processes=(/proc/[0-9]*)
echo "processes:       ${#processes[@]}"
echo "root directory:  $(echo /*)"

say '3. The same, seen from a container with 64 MB, 20 processes and half a processor.'
limits=(--hostname inside --memory 64m --pids-limit 20 --cpus 0.5 "${network[@]}")
show run --rm "${limits[@]}" -v "$look:/look:ro" demo bash /look

say '4. A limit holds: a program that wants more than its 64 MB is ended by the kernel, with 137 = 128 + SIGKILL.'
status=0
# shellcheck disable=SC2016 # for the container's bash
show run --name hungry "${limits[@]}" demo bash -c 'x=0123456789abcdef; while :; do x=$x$x; done' || status=$?
echo "exit code $status; what the container's record says:"
"${glassbox[@]}" inspect hungry | grep -E '"(OOMKilled|ExitCode)"'
"${glassbox[@]}" rm hungry >/dev/null

say '5. No magic: every request to the kernel that made it, in order, each with where it came from.'
show run --rm --explain "${limits[@]}" demo bash -c 'echo "…and this is the container that the plan above has made."'

say 'That was all; nothing is left of it.'
