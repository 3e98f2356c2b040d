package test

import "testing"

// wrongDay are wrong command lines of an ordinary day: devices, limits, logs, exec, cp, images, filters and templates. ccc runs, sss has
// ended.
var wrongDay = []wrongLine{
	{"run --gpus busybox true", 125, `--gpus busybox: "busybox" is no number of devices: want 1 or more, or all`},
	{"run --gpus 0 busybox true", 125, `--gpus 0: "0" is no number of devices: want 1 or more, or all`},
	{"run --gpus -1 busybox true", 125, `--gpus -1: "-1" is no number of devices: want 1 or more, or all`},
	{"run --gpus some busybox true", 125, `--gpus some: "some" is no number of devices: want 1 or more, or all`},
	{"run --gpus 1,2 busybox true", 125, "--gpus 1,2: count is given twice"},
	{"run --gpus all,device=1 busybox true", 125, "--gpus all,device=1: cannot set both count and device"},
	{"run --gpus device=../x busybox true", 125, `--gpus device=\.\./x: a device is an index, or a UUID`},
	{"run --gpus driver=cdi busybox true", 125, "--gpus driver=cdi: driver=cdi wants device=VENDOR/CLASS=NAME"},
	{"run --gpus all,what=1 busybox true", 125, `--gpus all,what=1: unknown key "what": want count, device, driver or capabilitie`},
	{"run --gpus all,capabilities=compute busybox true", 125, "--gpus all,capabilities=compute: capabilities=compute: what a GPU gives"},
	{"run --gpus all busybox true", 125, `--gpus all: no CDI file of /etc/cdi or /var/run/cdi describes nvidia\.com/gpu=all`},
	{"run --gpus device=0,driver=amd busybox true", 125, "--gpus device=0,driver=amd: no CDI file of /etc/cdi or /var/run/cdi describe"},
	{"run --device a.b/c=d busybox true", 125, `--device a\.b/c=d: no CDI file of /etc/cdi or /var/run/cdi describes a\.b/c=d`},
	{"run --device a/b busybox true", 125, `--device a/b: "a/b" is not an absolute path`},
	{"run --device /dev/nowhere busybox true", 125, "--device /dev/nowhere: error gathering device information: no such file or direc"},
	{"run --device /etc/passwd busybox true", 125, "--device /etc/passwd: /etc/passwd is not a device node"},
	{"run --device /dev/null:/x:q busybox true", 125, `--device /dev/null:/x:q: invalid permissions "q": want some of r, w and m`},
	{"run --device /dev/null:x busybox true", 125, `--device /dev/null:x: "x" is not an absolute path`},
	{"run --device /dev/null:/a:r:w busybox true", 125, `--device /dev/null:/a:r:w: want HOST\[:CONTAINER\[:rwm\]\]`},
	{`run --device-cgroup-rule "c 1:3" busybox true`, 125, `--device-cgroup-rule "c 1:3": want TYPE MAJOR:MINOR ACCESS, as in "c 1:3 r`},
	{`run --device-cgroup-rule "d 1:3 r" busybox true`, 125, `--device-cgroup-rule "d 1:3 r": want TYPE MAJOR:MINOR ACCESS, as in "c 1`},
	{`run --device-cgroup-rule "c x:3 r" busybox true`, 125, `--device-cgroup-rule "c x:3 r": want TYPE MAJOR:MINOR ACCESS, as in "c 1`},
	{"run --storage-opt size=1G busybox true", 125, "--storage-opt size=1G: the file system of "},
	{"run --isolation hyperv busybox true", 125, "invalid isolation 'hyperv' on linux"},
	{"run --userns auto busybox true", 125, "--userns auto: invalid USER mode"},
	{"run --cpu-count 2 busybox true", 125, `"--cpu-count" is only supported on a Docker daemon running on windows, but the D`},
	{"run --kernel-memory some busybox true", 125, `invalid argument "some" for "--kernel-memory" flag: --kernel-memory: invalid siz`},
	{"run --link ccc busybox true", 125, "links are names, which there are on user-defined networks only"},
	{"run --log-driver syslog busybox true", 125, "--log-driver syslog: there is no such log driver: want json-file, local, journal"},
	{"run --log-driver none --log-opt max-size=1m busybox true", 125, "--log-opt max-size=1m: log driver none takes no options"},
	{"run --log-opt max-size=x busybox true", 125, `--log-opt: invalid size "x": want a number of bytes with an optional unit, as in`},
	{"run --log-opt max-file=0 busybox true", 125, "--log-opt max-file=0: want a number from 1 to 100"},
	{"run --log-opt mode=perhaps busybox true", 125, "--log-opt mode=perhaps: want blocking or non-blocking"},
	{"run --log-opt compress=perhaps busybox true", 125, "--log-opt compress=perhaps: want true or false"},
	{"run --log-opt nope=1 busybox true", 125, "--log-opt nope=1: unknown option of log driver json-file: want max-size, max-fil"},
	{"run --log-opt max-size busybox true", 125, "--log-opt max-size: want max-size=VALUE"},
	{"run -m 1k busybox true", 125, "--memory 1k: minimum memory limit allowed is 512KB: less would not start a progr"},
	{"run -m 64x busybox true", 125, `--memory: invalid size "64x": want a number of bytes with an optional unit, as i`},
	{"run --memory-swap 1m busybox true", 125, "--memory-swap: you should always set the memory limit when using memory-swap: gi"},
	{"run -m 64m --memory-swap 32m busybox true", 125, "--memory-swap 32m: minimum memory-swap limit should be larger than memory limit "},
	{"run --cpus 0.0001 busybox true", 125, `--cpus 0\.0001: range of CPUs starts at 0\.01`},
	{"run --cpus 1 --cpu-quota 5000 busybox true", 125, "--cpus can't be set together with --cpu-period or --cpu-quota: it sets both"},
	{"run --blkio-weight 5 busybox true", 125, "--blkio-weight: range of blkio weight is from 10 to 1000"},
	{"run --device-read-bps /dev/null:1m busybox true", 125, "--device-read-bps /dev/null:1m: /dev/null is not a block device of this "},
	{"run --device-read-bps /nowhere:1m busybox true", 125, "--device-read-bps /nowhere:1m: want DEVICE:NUMBER, as in /dev/sda:100"},
	{"run --device-read-bps /dev/null busybox true", 125, "--device-read-bps /dev/null: want DEVICE:NUMBER, as in /dev/sda:100"},
	{"run --shm-size x busybox true", 125, `--shm-size: invalid size "x": want a number of bytes with an optional unit, as i`},
	{"run --pids-limit x busybox true", 125, `invalid argument "x" for "--pids-limit" flag: want a whole number`},
	{"run --ulimit nofile=9:5 busybox true", 125, "--ulimit nofile=9:5: the soft limit is above the hard limit"},
	{"run --oom-score-adj 2000 busybox true", 125, "--oom-score-adj: 2000 is out of range: want -1000 to 1000"},
	{"run --volumes-from nobody busybox true", 125, "no such container: nobody"},
	{"run --volumes-from ccc:zz busybox true", 125, `--volumes-from ccc:zz: invalid mode: "zz": want ro, rw, z or Z`},
	{"logs --since yesterday ccc", 1, `invalid value for "since": "yesterday" is neither a duration \(10m\), nor a time \(`},
	{"logs -n many ccc", 1, `invalid value for "tail": "many" is no number of lines`},
	{"logs nobody", 1, "no such container: nobody"},
	{"exec -u nobody:nogroup:x ccc true", 126, "unable to find (user|group) no"},
	{"exec -w relative ccc true", 126, `the working directory "relative" is invalid, it needs to be an absolute path`},
	{"exec sss true", 1, `container [0-9a-f]{64} is not running \(exited\)`},
	{"exec ccc /no/such/program", 127, `\[child\] run /no/such/program \(from command line\): no such file or directory: /no`},
	{"exec ccc /etc", 126, `\[child\] run /etc \(from command line\): permission denied: /etc is a directory`},
	{"exec nobody true", 1, "no such container: nobody"},
	{"cp ccc:/nowhere .", 1, "Could not find the file /nowhere in container ccc"},
	{"cp /nowhere ccc:/", 1, "lstat /nowhere: no such file or directory"},
	{"cp ccc:/etc/passwd /nowhere/x/y", 1, `invalid output path: directory "/nowhere/x" does not exist`},
	{"cp ccc:/etc /etc/passwd", 1, "cannot copy directory: /etc/passwd is none"},
	{"cp - ccc:/etc/passwd", 1, `destination "ccc:/etc/passwd" must be a directory`},
	{"stats --no-stream nobody", 1, "no such container: nobody"},
	{"top ccc -o what", 1, `ps -o what: error: unknown user-defined format specifier "what"`},
	{"update --memory 1k ccc", 1, "--memory 1k: minimum memory limit allowed is 512KB: less would not start a progr"},
	{"update ccc", 1, "you must provide one or more flags when using this command, such as --memory or "},
	{"update --cpus 9999 ccc", 1, `--cpus 9999: range of CPUs is from 0\.01`},
	{"rename ccc sss", 1, `the container name "sss" is already in use by container "[0-9a-f]{64}": remove \(glassbox rm sss\) or renam`},
	{"events --since tomorrow", 1, `invalid value for "since": "tomorrow" is neither a duration \(10m\), nor a time \(R`},
	{"events --filter x", 125, "bad format of filter"},
	{"events --format {{.Nope}}", 64, `template parsing error: \.Nope: there is no Nope`},
	{"wait --condition soon ccc", 1, `invalid condition "soon": want not-running, next-exit or removed`},
	{"save nobody", 1, "image nobody: no such image"},
	{"save -o /nowhere/x busybox", 1, "/nowhere/x can't be written: the directory /nowhere does not exist"},
	{"load -i /nowhere", 1, "/nowhere can't be read: no such file or directory"},
	{"load -i /etc/passwd", 1, "load: this is no archive of images: archive/tar: invalid tar header"},
	{"import /etc/passwd", 1, "layer: cannot be unpacked: read archive: archive/tar: invalid tar header"},
	{"commit nobody", 1, "no such container: nobody"},
	{"history nobody", 1, "image nobody: no such image"},
	{"inspect --type what ccc", 1, `"what" is not a valid value for --type: container, image, network or volume`},
	{"inspect --format {{.Nope}} ccc", 1, `template parsing error: \.Nope: there is no Nope`},
	{"volume create a/b", 1, `invalid volume: "a/b" includes invalid characters for a local volume name, only `},
	{"volume create -d nfs x", 1, `create x: error looking up volume plugin nfs: plugin "nfs" not found: there is o`},
	{"volume rm nobody", 1, "get nobody: no such volume"},
	{"generate systemd nobody", 1, "no such container: nobody"},
	{"generate systemd --restart-policy sometimes ccc", 125, "--restart-policy sometimes: want one of no, always, on-success, on-failu"},
	{"port ccc 80", 1, "no public port '80' published for ccc"},
	{"kill -s NOSIG ccc", 1, "invalid signal: NOSIG"},
	{"kill sss", 1, `container [0-9a-f]{64} is not running \(exited\)`},
	{"pause sss", 1, `container [0-9a-f]{64} is not running \(exited\)`},
	{"unpause ccc", 1, "container ccc is not paused"},
	{"rm ccc", 1, `cannot remove container "ccc": container is running: stop the container before r`},
}

// TestWrongDay: each line says what is wrong, with the right exit code, and changes nothing. With its siblings there are more than 200.
func TestWrongDay(t *testing.T) {
	s := besiege(t)
	s.furnish()
	for _, command := range [][]string{{"--name", "ccc", "busybox", "sleep", "10000"}, {"--name", "sss", "busybox", "true"}} {
		s.ok(s.on(append([]string{"glassbox", "run", "-d", "--network", "none"}, command...)...))
	}
	s.ok(s.on("glassbox", "wait", "sss"))
	if sum := len(wrongDay) + len(wrongLife) + len(wrongVolumeLines); sum < 200 {
		t.Errorf("only %d lines", sum)
	}
	s.typeWrong(t, wrongDay, "glassbox: ", func() string {
		return s.ok(s.on("glassbox", "ps", "-a", "--format", "{{.ID}} {{.Names}} {{.State}}")) +
			s.ok(s.on("glassbox", "inspect", "--format", "{{json .HostConfig}}{{json .Config}}", "ccc", "sss")) +
			s.ok(s.on("glassbox", "images", "--no-trunc", "-q")) + s.ok(s.on("glassbox", "volume", "ls", "-q"))
	})
}
