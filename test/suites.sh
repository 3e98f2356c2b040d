#!/bin/bash
# Runs moby's own API tests and docker-py's integration tests beside dockerd: what dockerd passes is what glassbox has to pass. It prints both
# figures and each test that dockerd passes and glassbox doesn't. See docs/clients.md.
#
#	test/suites.sh [moby] [docker-py]
#
# It takes hours, and goes on where it was ended: out/suites keeps what each test has said. AGAIN='glassbox' (or 'docker glassbox') forgets that,
# ENGINES=glassbox runs them with that engine alone, and ONLY=REGEX, like container/TestExec, runs those tests alone (again).
#
# Root; Debian's docker.io, python3-docker, python3-pytest, python3-paramiko. moby's come from the Go module proxy. docker-py's aren't in its
# Debian package: DOCKER_PY is a checkout of its repository at the version of that package (5.0.3). What needs a swarm or plugins is left out,
# and what starts a dockerd of its own, which would be a test of that one: it isn't found in the tests' mount namespace.
set -euo pipefail
cd "$(dirname "$0")/.."
here=$PWD build=$PWD/out/suites
moby=v28.5.2+incompatible
# Those of networks last: they take dockerd's bridge away.
packages=(container image volume system session build capabilities network networking)
suites=("$@")
[[ $# -gt 0 ]] || suites=(moby docker-py)
# The newest version that Debian's dockerd speaks.
export DOCKER_API_VERSION=1.41 DOCKER_TEST_API_VERSION=1.41

build_moby() {
	[[ -x $build/bin/${packages[-1]}.test ]] && return
	export GOFLAGS='-trimpath -buildvcs=false -mod=mod' CGO_ENABLED=0
	mkdir -p "$build/moby" "$build/bin"
	(cd "$build" && GOFLAGS='' go mod download "github.com/docker/docker@$moby")
	cp -r "$(go env GOMODCACHE)/github.com/docker/docker@$moby/." "$build/moby"
	chmod -R u+w "$build/moby"
	cd "$build/moby"
	mv vendor.mod go.mod && mv vendor.sum go.sum && rm -rf vendor
	for p in "${packages[@]}"; do go test -c -o "$build/bin/$p.test" "./integration/$p"; done
	cd "$here"
}

build_docker-py() {
	[[ -d ${DOCKER_PY:?a checkout of docker-py 5.0.3}/tests/integration ]]
	/usr/bin/python3 -c 'import docker, pytest, paramiko'
	rm -rf "$build/docker-py" && mkdir -p "$build/docker-py"
	cp -r "$DOCKER_PY/tests" "$DOCKER_PY/pytest.ini" "$build/docker-py"
	# What a newer interpreter and its libraries warn of is no failure of a server's.
	sed -i "s/warnings.simplefilter('error')/warnings.simplefilter('ignore')/" "$build/docker-py/tests/integration/conftest.py"
}

# Each line of the results: PASS, FAIL or SKIP, and the test's name; then DONE, and what ended: of moby's a test, of docker-py's a file.
results=$build/results-${ENGINE:-}

# wanted NAME - not done yet, or to be done again
wanted() {
	if [[ ${ONLY:-} ]]; then
		[[ $1 =~ $ONLY ]] || return 1
		if [[ -e $results ]]; then grep -vE "^[A-Z]+ $1([/:]|\$)" "$results" >"$results.new" || true && mv "$results.new" "$results"; fi
		return 0
	fi
	! grep -qxF "DONE $1" "$results" 2>/dev/null
}

# A test is a process of its own: one that finds no dockerd to start panics.
run_moby() {
	local p t
	for p in "${packages[@]}"; do
		for t in $("$build/bin/$p.test" -test.list . 2>/dev/null | grep '^Test'); do
			wanted "moby/$p/$t" || continue
			(cd "$build/moby/integration/$p" && timeout -s KILL 150 "$build/bin/$p.test" -test.v -test.run "^$t\$" -test.timeout 2m) \
				>"$INSIDE/log.one" 2>&1 </dev/null || true
			cat "$INSIDE/log.one" >>"$INSIDE/log.moby.$p"
			{
				sed -nE "s|^ *--- (PASS\|FAIL\|SKIP): ([^ ]+) .*|\1 moby/$p/\2|p" "$INSIDE/log.one"
				echo "DONE moby/$p/$t"
			} >>"$results"
		done
	done
}

run_docker-py() {
	local f
	cd "$build/docker-py"
	for f in tests/integration/*_test.py; do
		case $f in *swarm* | *service* | *secret* | *config* | *plugin* | *nodes* | *credentials*) continue ;; esac
		wanted "docker-py/${f##*/}" || continue
		timeout -s KILL 600 /usr/bin/python3 -m pytest -p no:cacheprovider -rA --tb=short "$f" -W ignore >"$INSIDE/log.one" 2>&1 </dev/null || true
		cat "$INSIDE/log.one" >>"$INSIDE/log.docker-py"
		{
			sed -nE 's/^(PASSED|FAILED|ERROR) tests\/integration\/([^ ]+).*/\1 docker-py\/\2/p' "$INSIDE/log.one" |
				sed 's/^PASSED/PASS/; s/^FAILED/FAIL/; s/^ERROR/FAIL/'
			echo "DONE docker-py/${f##*/}"
		} >>"$results"
	done
}

# An image of this machine's busybox, under the names that the suites know.
images() {
	local root=$INSIDE/rootfs
	mkdir -p "$root"/{bin,etc,tmp,root,home,var/run,usr/bin,usr/sbin,sbin}
	cp /bin/busybox "$root/bin/busybox"
	chroot "$root" /bin/busybox --install -s /bin
	ln -s /bin/env "$root/usr/bin/env"
	printf 'root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\nnobody:x:65534:65534:nobody:/home:/bin/false\n' >"$root/etc/passwd"
	printf 'root:x:0:\ndaemon:x:1:\nnogroup:x:65534:\n' >"$root/etc/group"
	printf '#!/bin/sh\necho Hello from Docker!\n' >"$root/hello"
	chmod 755 "$root/hello" && chmod 1777 "$root/tmp"
	tar -C "$root" -c . | docker import -c 'CMD ["sh"]' - busybox:latest >/dev/null
	tar -C "$root" -c ./hello ./bin/sh ./bin/busybox | docker import -c 'CMD ["/hello"]' - hello-world:frozen >/dev/null
	for name in busybox:glibc debian:bookworm-slim alpine:3.10 alpine:latest; do docker tag busybox:latest "$name"; done
	for name in hello-world:amd64 hello-world:arm64; do docker tag hello-world:frozen "$name"; done
}

if [[ ${INSIDE:-} ]]; then
	ip link set lo up
	export DOCKER_HOST=unix://$INSIDE/api.sock DOCKER_CONFIG=$INSIDE/docker
	mkdir -p "$DOCKER_CONFIG"
	case $ENGINE in
	glassbox)
		export GLASSBOX_ROOT=$INSIDE/root GLASSBOX_STATE=$INSIDE/state
		mkdir "$GLASSBOX_ROOT"
		bin/glassbox serve -H "$DOCKER_HOST" >"$INSIDE/log.server" 2>&1 &
		;;
	docker)
		# What it keeps is the machine's otherwise.
		mount -t tmpfs run /run && mkdir /run/lock
		dockerd -H "$DOCKER_HOST" --data-root "$INSIDE/root" --exec-root "$INSIDE/state" --pidfile "$INSIDE/pid" --group root >"$INSIDE/log.server" 2>&1 &
		;;
	esac
	server=$!
	trap 'docker ps -aq | xargs -r docker rm -f >/dev/null 2>&1; kill $server; wait $server || true' EXIT
	for _ in $(seq 600); do docker version >/dev/null 2>&1 && break; sleep 0.1; done
	mount --bind /dev/null /usr/sbin/dockerd
	images
	"run_$1"
	exit
fi

for suite in "${suites[@]}"; do "build_$suite"; done
for ENGINE in ${AGAIN:-}; do rm -f "$build/results-$ENGINE"; done
for ENGINE in ${ENGINES:-docker glassbox}; do
	export ENGINE
	for suite in "${suites[@]}"; do # with a server each: one suite leaves less than the next one needs
		dir=$build/run-$ENGINE-$suite
		rm -rf "$dir" && mkdir -p "$dir"
		INSIDE=$dir unshare --net --mount --propagation private "$0" "$suite" || echo "$ENGINE: see $dir/log.server"
		rm -rf "${dir:?}"/{root,state,rootfs}
	done
done
for ENGINE in docker glassbox; do
	touch "$build/results-$ENGINE"
	grep -v '^DONE' "$build/results-$ENGINE" | sort -u >"$build/$ENGINE" || true
done
for suite in "${suites[@]}"; do
	passed=$(grep -c "^PASS $suite/" "$build/docker" || true)
	both=$(comm -12 "$build/docker" "$build/glassbox" | grep -c "^PASS $suite/" || true)
	all=$(grep -c "^PASS $suite/" "$build/glassbox" || true)
	echo "$suite: dockerd passes $passed, glassbox $all; of dockerd's: $both ($((100 * both / (passed > 0 ? passed : 1))) %)"
done
echo "dockerd passes and glassbox doesn't:"
comm -23 <(grep '^PASS' "$build/docker") <(grep '^PASS' "$build/glassbox") | sed 's/^PASS/ /'
