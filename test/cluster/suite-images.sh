#!/bin/bash
# Makes the images that Kubernetes' specifications for nodes need, from what is there: suite-images.sh DIR, in which agnhost, its certificate
# and nnp are. They are busybox with bash and curl, and two programs of the suite; the result is DIR/suite.tar.
set -euo pipefail
dir=$1 work=$1/src/suite oci=$1/src/suite/oci
rm -rf "$work"
mkdir -p "$work"
umoci init --layout "$oci"
umoci new --image "$oci:busybox"
umoci unpack --image "$oci:busybox" "$work/busybox"
root=$work/busybox/rootfs
mkdir -p "$root"/{bin,dev,etc,home,proc,root,run,sys,tmp,usr/bin,usr/local/bin,var}
chmod 1777 "$root/tmp"
cp "$(command -v busybox)" "$root/bin/busybox"
for applet in $(busybox --list); do [[ $applet == busybox ]] || ln -sf busybox "$root/bin/$applet"; done
ln -s /bin/env "$root/usr/bin/env"
for program in curl bash; do
	cp --parents "$(command -v $program)" "$root"
	ldd "$(command -v $program)" | grep -oE '/[^ ]+' | xargs cp -L --parents -t "$root"
done
# Busybox' own shell drops variables with names such as data-1.
ln -sf "$(command -v bash)" "$root/bin/sh"
ln -sf "$(command -v bash)" "$root/bin/bash"
printf '%s\n' root:x:0:0:root:/root:/bin/sh user-defined-in-image:x:1000:1000::/home:/bin/sh nobody:x:65534:65534::/:/bin/false >"$root/etc/passwd"
printf '%s\n' root:x:0: user-defined-in-image:x:1000: group-defined-in-image:x:50000:user-defined-in-image >"$root/etc/group"
umoci repack --image "$oci:busybox" "$work/busybox"
umoci config --image "$oci:busybox" --config.cmd sh --config.env PATH=/usr/local/bin:/usr/bin:/bin
umoci config --image "$oci:busybox" --tag nonroot --config.user 1234
umoci config --image "$oci:busybox" --tag nginx --clear=config.cmd --config.cmd httpd --config.cmd=-f --config.cmd=-p --config.cmd=80
# add TAG - an image of what was added to the files since.
add() {
	umoci unpack --image "$oci:busybox" "$work/$1"
	root=$work/$1/rootfs
	"$1"
	umoci repack --image "$oci:$1" "$work/$1"
}
agnhost() {
	cp "$dir"/{agnhost,localhost.crt,localhost.key} "$root/"
	ln -s agnhost "$root/agnhost-2"
	mkdir "$root/uploads"
}
nonewprivs() { install -m 6755 "$dir/nnp" "$root/usr/local/bin/nnp"; }
add agnhost
umoci config --image "$oci:agnhost" --config.entrypoint /agnhost --clear=config.cmd --config.cmd pause
add nonewprivs
umoci config --image "$oci:nonewprivs" --clear=config.cmd --config.cmd nnp
tar -C "$oci" -cf "$dir/suite.tar" .
