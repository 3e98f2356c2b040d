#!/bin/bash
# Builds genuine clients of the API, and drives each against `glassbox serve` with a network and files of its own: see docs/clients.md.
# Root; npm and the Go module proxy. test/clients.sh [compose] [dockerode] [testcontainers] [buildx] [act] [devcontainers]
# With a policy's name (POLICY=ci) the socket has that one of policies/.
set -euo pipefail
cd "$(dirname "$0")/.."
here=$PWD build=$PWD/out/clients
export GOFLAGS=-trimpath CGO_ENABLED=0 # as in the Makefile
clients=("$@")
[[ $# -gt 0 ]] || clients=(compose dockerode testcontainers buildx act devcontainers)

build_compose() {
	build_buildx # which it builds images with, unless it is told to use the classic builder
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

build_buildx() {
	mkdir -p "$build/docker/cli-plugins"
	[[ -x $build/docker/cli-plugins/docker-buildx ]] && return
	# Compose asks it for its version.
	GOBIN=$build go install -ldflags '-X github.com/docker/buildx/version.Version=v0.38.2' github.com/docker/buildx/cmd/buildx@v0.38.2
	mv "$build/buildx" "$build/docker/cli-plugins/docker-buildx"
}

build_act() { [[ -x $build/act ]] || GOBIN=$build go install github.com/nektos/act@v0.2.89; }

# Without its scripts: they compile what speeds up connections by SSH.
build_devcontainers() {
	mkdir -p "$build/dev"
	[[ -d $build/dev/node_modules/@devcontainers ]] || (cd "$build/dev" && npm install --ignore-scripts --no-save @devcontainers/cli@0.89.0 >/dev/null)
	build_buildx # which it builds with
}

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
	for kit in 1 0; do
		DOCKER_BUILDKIT=$kit "${c[@]}" build --no-cache built
		[[ $("${c[@]}" run --rm -T built 2>/dev/null) == $'built compose\nfile' ]]
		docker rmi -f app-built
	done
	"${c[@]}" --profile tools --profile built down -v -t 0
	[[ -z $(docker ps -aq) && -z $(docker volume ls -q) ]]

	# A container that is there, as a service.
	local same='{{json .HostConfig}} {{json .Config.Cmd}} {{json .Config.Healthcheck}} {{json .Mounts}}' before
	docker network create --subnet 10.77.0.0/24 back
	docker volume create data
	# shellcheck disable=SC2016 # the container's own variable
	"$here/bin/glassbox" create --name there -h box -w /tmp -u 1:2 -e "A=it is \"\$so\"" -v data:/data:ro -v /tmp:/host --network name=back,ip=10.77.0.9 \
		--mount type=tmpfs,target=/scratch,tmpfs-size=1m,tmpfs-mode=1770 --mount type=volume,source=data,target=/more,volume-nocopy \
		--tmpfs /run:size=64k -p 127.0.0.1:8080:80 -p 53/udp --network-alias store --memory 64m --cpus 0.5 --pids-limit 20 --ulimit nofile=64:128 \
		--cap-drop ALL --cap-add CHOWN --read-only --security-opt no-new-privileges --restart on-failure:3 --health-cmd 'test -e /x && true' \
		--health-interval 5s --health-retries 4 --stop-timeout 3 --add-host a:1.2.3.4 --dns 192.0.2.1 --log-opt max-size=1m \
		--sysctl net.ipv4.ip_unprivileged_port_start=0 --entrypoint sh box -c 'echo "$A"; sleep 1000'
	before=$(docker inspect -f "$same" there)
	"$here/bin/glassbox" explain --format compose there >"$build/there.yaml"
	docker rm there
	"$build/docker-compose" -f "$build/there.yaml" create
	diff <(echo "$before") <(docker inspect -f "$same" there)
	[[ $(docker inspect -f '{{(index .NetworkSettings.Networks "back").IPAMConfig.IPv4Address}}' there) == 10.77.0.9 ]]
	"$build/docker-compose" -f "$build/there.yaml" down -t 0
	docker volume rm data && docker network rm back
}

drive_dockerode() { NODE_PATH=$build/node/node_modules node "$here/test/clients/dockerode.js"; }

drive_testcontainers() { TESTCONTAINERS_RYUK_DISABLED=true "$build/testcontainers.test" -test.v; }

drive_buildx() {
	local out=$INSIDE/out
	docker buildx ls | grep '^default.*docker' >/dev/null
	docker buildx inspect | grep 'Status: *running' >/dev/null
	(cd test/clients/buildx &&
		docker buildx build -t ci/app:1 --build-arg V=7 . &&
		[[ $(docker run --rm --network none ci/app:1) == $'built 7\nfile' ]] &&
		[[ $(docker build -q --build-arg V=7 .) == sha256:* ]] &&
		docker buildx build --output "type=local,dest=$out" . && grep -q 'built 1' "$out/made" &&
		docker buildx bake && docker run --rm --network none ci/app:bake | grep 'built bake' >/dev/null)
	if docker buildx build - <<<$'FROM box\nRUN exit 3' 2>"$INSIDE/failed"; then return 1; fi
	grep -q 'exit code: 3' "$INSIDE/failed"
	[[ ${POLICY:-} ]] && return
	docker buildx du | grep '^Total' >/dev/null && docker buildx history ls && docker buildx prune -af
}

# Its network is the host's unless it is told otherwise, and it mounts the engine's socket: neither is for a policy, or needed.
drive_act() {
	local repo=$INSIDE/repo
	mkdir -p "$repo/.github/workflows"
	cp test/clients/act/ci.yml "$repo/.github/workflows"
	echo hello >"$repo/file"
	git -C "$repo" init -q && git -C "$repo" add -A
	git -C "$repo" -c user.email=a@b -c user.name=a commit -qm x
	(cd "$repo" && HOME=$INSIDE "$build/act" push -P ubuntu-latest=box --pull=false --rm --container-daemon-socket - --network bridge \
		--artifact-server-addr 127.0.0.1 --cache-server-addr 127.0.0.1 >"$INSIDE/act.log") || { cat "$INSIDE/act.log"; return 1; }
	[[ $(grep -c 'Job succeeded' "$INSIDE/act.log") -eq 2 && -z $(docker ps -aq) ]]
}

drive_devcontainers() {
	local dev=(node "$build/dev/node_modules/@devcontainers/cli/devcontainer.js") p=$INSIDE/dev
	cp -r test/clients/devcontainer "$p" && echo hello >"$p/image/file"
	"${dev[@]}" up --workspace-folder "$p/image"
	[[ $("${dev[@]}" exec --workspace-folder "$p/image" cat file /tmp/created) == $'hello\ncreated' ]]
	"${dev[@]}" exec --workspace-folder "$p/image" env | grep -x A=b >/dev/null
	"${dev[@]}" up --workspace-folder "$p/build"
	[[ $("${dev[@]}" exec --workspace-folder "$p/build" cat /built) == built ]]
	"${dev[@]}" build --workspace-folder "$p/build" --image-name built:1
	docker ps -q | xargs docker rm -f
}

if [[ ${INSIDE:-} ]]; then
	ip link set lo up
	export GLASSBOX_ROOT=$INSIDE/root GLASSBOX_STATE=$INSIDE/state SOCKET=$INSIDE/api.sock DOCKER_HOST=unix://$INSIDE/api.sock
	mkdir "$GLASSBOX_ROOT"
	export DOCKER_CONFIG=$INSIDE/docker
	mkdir "$DOCKER_CONFIG"
	[[ ! -d $build/docker ]] || cp -r "$build/docker/." "$DOCKER_CONFIG"
	bin/glassbox image from-host box sh bash ls cat sleep echo true touch grep id uname env getent mkdir chown chmod tail stat sed awk tr \
		head cut sort dirname basename mv rm cp ln test printf date find xargs wc whoami /etc/passwd /etc/group
	bin/glassbox serve -H "$DOCKER_HOST" ${POLICY:+--policy "policies/$POLICY.json" --policy-log "$INSIDE/decisions"} &
	server=$!
	trap 'kill $server 2>/dev/null || true' EXIT
	for _ in $(seq 100); do [[ -S $SOCKET ]] && break; sleep 0.05; done
	for client in "${clients[@]}"; do
		"drive_$client" # by itself: in a condition its failures would end nothing
		echo "$client: passed"
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
