#!/bin/bash
# Builds genuine clients of the API, and drives each against `glassbox serve` with a network and files of its own: see docs/clients.md.
# Root; npm and the Go module proxy. test/clients.sh [compose] [dockerode] [testcontainers]
set -euo pipefail
cd "$(dirname "$0")/.."
here=$PWD build=$PWD/build/clients
export GOFLAGS=-trimpath CGO_ENABLED=0 # as in the Makefile
clients=("$@")
[[ $# -gt 0 ]] || clients=(compose dockerode testcontainers)

build_compose() {
	[[ -x $build/docker-compose ]] && return
	go mod download github.com/docker/compose/v5@v5.6.0
	mkdir -p "$build/compose"
	cp -r "$(go env GOMODCACHE)/github.com/docker/compose/v5@v5.6.0/." "$build/compose"
	chmod -R u+w "$build/compose"
	(cd "$build/compose" && go build -o "$build/docker-compose" ./cmd)
}

build_dockerode() {
	mkdir -p "$build/node"
	[[ -d $build/node/node_modules/dockerode ]] || (cd "$build/node" && npm install --no-save dockerode@5.0.1 >/dev/null)
}

build_testcontainers() { (cd test/clients/testcontainers && go test -c -o "$build/testcontainers.test" .); }

drive_compose() {
	local c=("$build/docker-compose" --ansi never --progress plain -f "$here/test/clients/compose/compose.yaml")
	"${c[@]}" up -d --wait
	[[ $("${c[@]}" ps -q | wc -l) -eq 3 ]]
	[[ $("${c[@]}" exec -T api cat /run/secrets/pw) == secret123 ]]
	"${c[@]}" logs api >"$build/logs" && grep -q 'hello=config' "$build/logs"
	[[ $("${c[@]}" run --rm -T api echo one-off 2>/dev/null) == one-off ]]
	"${c[@]}" run --rm tool 2>/dev/null | grep 'tool ran'
	"${c[@]}" cp "$here/Makefile" api:/tmp/f && "${c[@]}" exec -T api grep -q PROGRAMS /tmp/f
	"${c[@]}" up -d --scale api=2 --wait
	[[ $("${c[@]}" ps -q api | wc -l) -eq 2 ]]
	[[ $("${c[@]}" port web 80) == 127.0.0.1:18090 ]]
	"${c[@]}" top web && "${c[@]}" images && "${c[@]}" ls
	"${c[@]}" pause db && "${c[@]}" unpause db && "${c[@]}" restart -t 0 web
	"${c[@]}" stop -t 0 && "${c[@]}" start && "${c[@]}" kill web
	"${c[@]}" --profile tools down -v -t 0
	[[ -z $(docker ps -aq) && -z $(docker volume ls -q) ]]
}

drive_dockerode() { NODE_PATH=$build/node/node_modules node "$here/test/clients/dockerode.js"; }

drive_testcontainers() { TESTCONTAINERS_RYUK_DISABLED=true "$build/testcontainers.test" -test.v; }

if [[ ${INSIDE:-} ]]; then
	ip link set lo up
	export GLASSBOX_ROOT=$INSIDE/root GLASSBOX_STATE=$INSIDE/state SOCKET=$INSIDE/api.sock DOCKER_HOST=unix://$INSIDE/api.sock
	mkdir "$GLASSBOX_ROOT"
	bin/glassbox image from-host box sh ls cat sleep echo true touch grep /etc/passwd /etc/group
	bin/glassbox serve -H "$DOCKER_HOST" &
	server=$!
	for _ in $(seq 100); do [[ -S $SOCKET ]] && break; sleep 0.05; done
	for client in "${clients[@]}"; do
		"drive_$client" && echo "$client: passed"
	done
	kill $server
	wait $server
	exit
fi
mkdir -p "$build"
for client in "${clients[@]}"; do "build_$client"; done
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
INSIDE=$dir unshare --net --mount --propagation private "$0" "${clients[@]}"
