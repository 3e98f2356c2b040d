package oci

import "strings"

// mountOptions are the options of a mount that the specification knows (config.md, Linux mount options), sorted. Of a mount that
// is no bind mount, any other option is the file system's.
var mountOptions = []string{
	"async", "atime", "bind", "defaults", "dev", "diratime", "dirsync", "exec", "idmap", "iversion", "lazytime", "loud", "mand",
	"noatime", "nodev", "nodiratime", "noexec", "noiversion", "nolazytime", "nomand", "norelatime", "nostrictatime", "nosuid",
	"nosymfollow", "private", "ratime", "rbind", "rdev", "rdiratime", "relatime", "remount", "rexec", "ridmap", "rnoatime", "rnodev",
	"rnodiratime", "rnoexec", "rnorelatime", "rnostrictatime", "rnosuid", "rnosymfollow", "ro", "rprivate", "rrelatime", "rro", "rrw",
	"rshared", "rslave", "rstrictatime", "rsuid", "rsymfollow", "runbindable", "rw", "shared", "silent", "slave", "strictatime",
	"suid", "symfollow", "sync", "tmpcopyup", "unbindable",
}

// ofTable reports whether a word is for who reads /etc/fstab (fstab(5), mount(8)). Volumes that are made of such a line have it among
// their options; the kernel knows none of them, and compile leaves them out.
func ofTable(word string) bool {
	return word == "nofail" || word == "_netdev" || strings.HasPrefix(word, "x-") || strings.HasPrefix(word, "comment=")
}
