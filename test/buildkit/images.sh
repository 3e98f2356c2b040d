#!/bin/bash
# Fills the mirror of BuildKit's own tests with images of the names that they want, all of them made of this machine's busybox:
# images.sh DIR. Needs glassbox and docker-registry; in a network namespace of its own.
set -euo pipefail
dir=$1
ip link set lo up
mkdir -p "$dir/mirror"
for port in 0 5077; do
	printf 'version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: %s\nhttp:\n  addr: 127.0.0.1:%s\n' "$dir/mirror/data" $port >"$dir/$port.yaml"
done
cp "$dir/0.yaml" "$dir/mirror/config.yaml"
docker-registry serve "$dir/5077.yaml" 2>/dev/null &
registry=$!
export GLASSBOX_ROOT=$dir/images GLASSBOX_STATE=$dir/state
r=$dir/context/r
rm -rf "$dir/context"
mkdir -p "$r"/{bin,etc,home,lib,root,sbin,tmp,usr/bin,usr/sbin,var,dev,proc,sys}
chmod 1777 "$r/tmp"
chmod 700 "$r/root"
cp "$(command -v busybox)" "$r/bin/busybox"
for applet in $(busybox --list); do
	[[ $applet == busybox ]] || ln -s busybox "$r/bin/$applet"
done
ln -s ../../bin/env "$r/usr/bin/env"
printf 'root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1::/usr/sbin:/bin/false\nnobody:x:65534:65534::/home:/bin/false\n' >"$r/etc/passwd"
printf 'root:x:0:\ndaemon:x:1:\nwheel:x:10:root\nnobody:x:65534:\n' >"$r/etc/group"
echo 3.18.0 >"$r/etc/alpine-release"
# Debian's busybox hasn't these two.
cat >"$r/bin/addgroup" <<'X'
#!/bin/sh
gid=1000
while [ $# -gt 1 ]; do case $1 in -g) gid=$2; shift ;; esac; shift; done
echo "$1:x:$gid:" >>/etc/group
X
cat >"$r/bin/adduser" <<'X'
#!/bin/sh
uid=1000
while [ $# -gt 1 ]; do case $1 in -u) uid=$2; shift ;; -G) group=$2; shift ;; esac; shift; done
if [ "$group" ]; then gid=$(grep "^$group:" /etc/group | cut -d: -f3); else gid=$uid; echo "$1:x:$gid:" >>/etc/group; fi
echo "$1:x:$uid:$gid::/home/$1:/bin/sh" >>/etc/passwd; mkdir -p "/home/$1"; chown "$uid:$gid" "/home/$1"
X
chmod 755 "$r/bin/addgroup" "$r/bin/adduser"
printf 'FROM scratch\nADD r /\nENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\nCMD ["sh"]\n' >"$dir/context/Dockerfile"
for name in library/busybox:latest library/alpine:latest library/busybox:stable-musl amd64/debian:bullseye-20230109-slim tonistiigi/hellofs:latest; do
	glassbox build -q -t "localhost:5077/$name" "$dir/context" && glassbox push -q "localhost:5077/$name"
done
kill $registry
