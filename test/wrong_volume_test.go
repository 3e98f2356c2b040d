package test

import (
	"testing"
)

// wrongVolumeLines are wrong command lines about volumes and files, each with its exit code and what is said. ccc is a container that runs
// with the volume used at /data, which has the file /data/f; sss one that has stopped.
var wrongVolumeLines = []wrongLine{
	{"volume nope", 1, "unknown command: glassbox volume nope"},
	{"volume create a b", 1, "requires at most 1 argument"},
	{"volume create x", 1, "name is too short"},
	{"volume create ''", 1, "name is empty"},
	{"volume create /etc", 1, "invalid characters for a local volume name"},
	{"volume create ../x", 1, "invalid characters"},
	{"volume create a/b", 1, "invalid characters"},
	{"volume create 'a b'", 1, "invalid characters"},
	{"volume create .hidden", 1, "invalid characters"},
	{"volume create -- -dash", 1, "invalid characters"},
	{"volume create $(printf %300s | tr ' ' x)", 1, "300 characters"},
	{"volume create --driver nfs data", 1, "plugin \"nfs\" not found"},
	{"volume create --opt size=1g data", 1, "quota"},
	{"volume create --opt taste=sweet data", 1, "invalid option: \"taste\""},
	{"volume create --opt type=tmpfs data", 1, "missing required option: \"device\""},
	{"volume create --opt device=/srv data", 1, "missing required option: \"type\""},
	{"volume create --opt o=bind data", 1, "missing required option"},
	{"volume create --opt type data", 1, "want KEY=VALUE"},
	{"volume create --opt =x data", 1, "want KEY=VALUE"},
	{"volume create --nope data", 125, "unknown flag: --nope"},
	{"volume create --name xx yy", 1, "cannot specify a volume-name"},
	{"volume ls x", 1, "accepts no arguments"},
	{"volume ls --filter x", 125, "bad format of filter"},
	{"volume ls --filter size=1", 1, "invalid filter 'size'"},
	{"volume ls --filter dangling=perhaps", 1, "want true or false"},
	{"volume ls --format '{{.Nope}}'", 1, "Nope"},
	{"volume ls --format '{{'", 1, "template"},
	{"volume inspect", 1, "requires at least 1 argument"},
	{"volume inspect nobody", 1, "no such volume: nobody"},
	{"volume inspect ../volumes", 1, "no such volume"},
	{"volume inspect -f '{{.Nope}}' used", 1, "Nope"},
	{"volume rm", 1, "requires at least 1 argument"},
	{"volume rm nobody", 1, "get nobody: no such volume"},
	{"volume rm used", 1, "remove used: volume is in use - \\[[0-9a-f]{64}"},
	{"volume rm -f used", 1, "volume is in use"},
	{"volume rm ../containers", 1, "no such volume"},
	{"volume rm .", 1, "no such volume"},
	{"volume prune x", 1, "accepts no arguments"},
	{"volume prune -f --filter name=x", 1, "invalid filter 'name'"},
	{"volume prune -f --filter label", 125, "bad format of filter"},
	{"run -v used busybox true", 125, "must be an absolute path"},
	{"run -v used:rel busybox true", 125, "must be an absolute path"},
	{"run -v used:/ busybox true", 125, "not /"},
	{"run -v used:/x:sideways busybox true", 125, "unknown option \"sideways\""},
	{"run -v used:/x:rslave busybox true", 125, "invalid mode: rslave"},
	{"run -v :/x busybox true", 125, "source before the colon is missing"},
	{"run -v no/slash:/x busybox true", 125, "invalid characters for a local volume name"},
	{"run -v used:/x:ro,rw busybox true", 125, "contradict"},
	{"run -v used:/x -v other:/x busybox true", 125, "duplicate mount point /x"},
	{"run --mount source=used busybox true", 125, "target is required"},
	{"run --mount target=/x,volume-subpath=/abs busybox true", 125, "relative path within the volume"},
	{"run --mount source=used,target=/x,volume-subpath=../.. busybox true", 125, "relative path within the volume"},
	{"run --rm --mount source=used,target=/x,volume-subpath=nothing busybox true", 125, "subpath \"nothing\".*no such file"},
	{"run --rm --mount source=used,target=/x,volume-subpath=out busybox true", 125, "leads out of the volume"},
	{"run --mount source=used,target=/x,bind-recursive=disabled busybox true", 125, "cannot mix 'bind-\\*' options with mount type 'volume'"},
	{"run --mount type=bind,source=/srv,target=/x,volume-nocopy busybox true", 125, "cannot mix 'volume-\\*'"},
	{"run --mount source=used,target=/x,volume-nocopy=perhaps busybox true", 125, "want true or false"},
	{"run --mount source=used,target=/x,volume-driver=nfs busybox true", 125, "plugin \"nfs\" not found"},
	{"run --mount source=newone,target=/x,volume-opt=taste=sweet busybox true", 125, "invalid option: \"taste\""},
	{"run --mount type=tmpfs,target=/x,idmap busybox true", 125, "idmap is for"},
	{"run --mount type=image,target=/x busybox true", 125, "source is required"},
	{"run --volumes-from nobody busybox true", 125, "no such container: nobody"},
	{"run --volumes-from ccc:often busybox true", 125, "invalid mode: \"often\""},
	{"run --volumes-from '' busybox true", 125, "container is missing"},
	{"run --volume-driver nfs -v newone:/x busybox true", 125, "plugin \"nfs\" not found"},
	{"cp", 1, "requires 2 arguments"},
	{"cp a", 1, "requires 2 arguments"},
	{"cp a b", 1, "must specify at least one container source"},
	{"cp - -", 1, "must specify at least one container source"},
	{"cp ccc:/x sss:/x", 1, "copying between containers is not supported"},
	{"cp nobody:/x .", 1, "no such container: nobody"},
	{"cp ccc:/nothing .", 1, "Could not find the file /nothing in container ccc"},
	{"cp sss:/nothing/at/all .", 1, "Could not find the file"},
	{"cp ccc:/etc/passwd/x .", 1, "passwd/x.*not a directory"},
	{"cp ccc:/etc/passwd/ .", 1, "not a directory"},
	{"cp ccc:/etc /nothing/here", 1, "invalid output path: directory \"/nothing\" does not exist"},
	{"cp ccc:/etc /etc/passwd", 1, "cannot copy directory"},
	{"cp ccc:/etc/passwd /dev/null", 1, "is a device"},
	{"cp /nothing ccc:/x", 1, "/nothing: no such file or directory"},
	{"cp /etc/passwd/ ccc:/x", 1, "not a directory"},
	{"cp /etc/passwd ccc:/nothing/x", 1, "Could not find the file /nothing in container ccc"},
	{"cp /etc/passwd ccc:/nothing/", 1, "no such directory"},
	{"cp /etc/passwd ccc:/etc/passwd/x", 1, "not a directory"},
	{"cp /etc/apt ccc:/etc/passwd", 1, "cannot copy directory"},
	{"cp /etc/passwd ccc:", 1, "destination path is empty"},
	{"cp ccc: .", 1, "source path is empty"},
	{"cp /etc/passwd ccc:/ro", 1, "marked read-only"},
	{"cp - ccc:/nothing </dev/null", 1, "must be a directory"},
	{"cp - ccc:/etc/passwd </dev/null", 1, "must be a directory"},
	{"cp - ccc:/etc </etc/passwd", 1, "archive can't be read"},
	{"cp --nope a b", 125, "unknown flag"},
	{"diff", 1, "requires 1 argument"},
	{"diff nobody", 1, "no such container: nobody"},
	{"diff ccc sss", 1, "requires 1 argument"},
	{"inspect --type volume nobody", 1, "no such volume: nobody"},
}

// TestWrongVolumeLines: each gets one clear sentence and the right code, and changes nothing.
func TestWrongVolumeLines(t *testing.T) {
	s := besiege(t)
	s.furnish()
	s.ok(s.on("glassbox", "run", "-d", "--name", "ccc", "--network", "none", "-v", "used:/data", "-v", "used:/ro:ro", "busybox", "sleep",
		"10000"))
	s.ok(s.on("glassbox", "exec", "ccc", "sh", "-c", "echo x >/data/f && ln -s /etc /data/out"))
	s.ok(s.on("glassbox", "create", "--name", "sss", "--network", "none", "busybox", "true"))
	state := func() string {
		res := s.on("sh", "-c", "glassbox ps -aq | sort; glassbox volume ls -q; glassbox diff ccc; glassbox diff sss")
		s.ok(res)
		return res.Stdout
	}
	s.typeWrong(t, wrongVolumeLines, "", state)
}
