// Package image keeps container images: it names them, fetches them from registries, unpacks their layers and hands the
// engine a list of directories to stack.
//
// # One idea
//
// A layer is a directory that overlayfs can mount as it is, and it is on disk exactly once. A pull is one stream per layer,
// network → digest → decompress → diff ID → untar, into a directory that nobody can see; when both hashes are right the
// directory is renamed to its final name. Compressed blobs are not kept: everything a container needs is in the unpacked
// layer, and keeping the blob as well would pay for the same bytes twice. (Pushing an image again therefore means to
// compress it again.) The raw bytes of the manifest and of the config are kept, so digests stay provable.
//
// # On disk
//
//	ROOT/image/store.json            version and the form of overlay marks (trusted or user)
//	ROOT/image/names.json            name → image ID, repo digest → image ID
//	ROOT/image/images/HEX/           image.json (what this package knows), config.json and manifest.json (raw)
//	ROOT/image/layers/SHORT.json     a layer that is complete; the directory alone does not count
//	ROOT/image/locks/                one flock per layer being fetched
//	ROOT/image/lock                  flock around every change of the above
//	ROOT/image/pulling               shared flock held by every running pull
//	ROOT/layers/SHORT/               the unpacked layer in overlayfs form
//	ROOT/layers/in.*, ROOT/layers/rm.*   being filled (flock held by its filler), being deleted
//
// Readers take no lock: files are replaced by rename. A process may be killed at any moment: what it leaves is an in.* or
// rm.* directory, or a complete layer that no image names yet; [Store.Collect] removes the first two, and the third too when
// it is old enough, because the next pull of the same image takes such layers up again instead of fetching them.
//
// # Layers and their parents
//
// SHORT is 12 hex digits of the diff ID (more on collision), because a mount(2) option string holds 4095 bytes and overlay
// takes all lower directories in it before Linux 6.5. A tar archive may leave out parent directories ("tmp/x" without
// "tmp"). On a merged root file system those keep the mode, owner and time they have in the layers beneath; in a layer
// directory of its own overlayfs would show a fresh 0755 root directory in their place, and where the layers beneath have
// a symbolic link (/lib → usr/lib) it would hide the link. Such a layer is therefore kept in a variant, named after its
// chain ID, with the directories mended; files are shared with other variants by hard links.
//
// # Ordinary users
//
// An ordinary user's store is unpacked without chown: owner and special mode bits are noted in the extended attribute
// user.glassbox.stat ("uid:gid:mode", regular files and directories only), device nodes are left out, opaque directories
// carry user.overlay.opaque (mount with the option userxattr), whiteouts are 0:0 character devices, which Linux 5.8 lets
// everyone create. It is good enough to read images and to plan containers; [Store.UserXattr] tells.
//
// # Refuses
//
// Schema 1 manifests, artifacts that are no container images, documents that are both manifest and index (CVE-2021-41190),
// archives that reach out of their root, ambiguous whiteouts, devices that overlayfs takes for whiteouts, NUL bytes in any string,
// and everything beyond [Limits]. Attributes other than user.*, security.capability and POSIX ACLs are left out, and that is told. Plain
// HTTP is spoken to loopback and to registries listed as insecure only.
//
// # Where to start
//
// [Store.Pull] in pull.go tells the story; unpack.go is where hostile bytes meet the file system; layer.go publishes.
package image
