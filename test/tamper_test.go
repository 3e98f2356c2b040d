package test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"glassbox/verify"
)

// What is done to containers behind glassbox's back, and what they do to themselves.

// tampering is something done to a container behind glassbox's back.
type tampering struct {
	name  string
	do    string   // a script: $P is the process, $ID the container, $IP its address, $SHARED and $DIR directories
	undo  string   // for what is the host's
	want  []string // beginnings of what is found: "op: what", and a part of the rest after " | "
	flags string   // beside the usual ones
	cmd   string   // instead of sleep
	need  string   // what the host must have, as a test of the shell
	more  bool     // so much goes with it that not all is listed
	own   bool     // the container can have done it itself: all of it
}

// TestVerifyTampered: what is changed behind glassbox's back is found, and nothing else.
func TestVerifyTampered(t *testing.T) {
	s := besiege(t)
	s.furnish()
	lib := filepath.Join(s.dir, "lib.sh")
	must(t, os.WriteFile(lib, []byte(`set -e
SHARED=`+s.dir+`/shared
settle() { sleep `+fmt.Sprint(scaled(400*time.Millisecond).Seconds())+`; }
in_mounts() { nsenter -t $P -m -p "$@"; }
in_net() { nsenter -t $P -n "$@"; }
# group CONTROLLER: the container's directory; v1's, or the one of v2.
group() {
	for d in /sys/fs/cgroup/$1/glassbox/$ID /sys/fs/cgroup/glassbox/$ID /sys/fs/cgroup/unified/glassbox/$ID; do
		[ ! -d $d ] || { echo $d; return; }
	done
}
v1() { [ -d /sys/fs/cgroup/$1/glassbox/$ID ]; }
`), 0o644))
	const usual = "-m 64m --pids-limit 50 --cpus 0.5 -p 8080:80 -v SHARED:/data:ro --tmpfs /run:size=1m --ulimit nofile=100:200 " +
		"--oom-score-adj 300 --sysctl net.ipv4.ip_forward=1 "
	for i, x := range tamperings {
		if testing.Short() && i%4 != 0 && !strings.Contains(x.do, "$(group") && !strings.Contains(x.do, "/sys/fs/cgroup") {
			continue // an emulated processor takes minutes for all
		}
		if x.need != "" && s.sh(x.need).Code != 0 {
			continue
		}
		id := s.id("tampered")
		command := x.cmd
		if command == "" {
			command = "sleep 1000"
		}
		s.shell("rm -rf shared && mkdir -p shared/sub && echo x >shared/file")
		s.ok(s.sh("glassbox run -d --name " + id + " " + strings.ReplaceAll(usual+x.flags, "SHARED", s.dir+"/shared") + " busybox " + command))
		if x.cmd == "" {
			if r, code := s.verified(id); code != 0 {
				t.Errorf("%s, before: %s", x.name, strings.Join(faults(r), "\n"))
			}
		}
		id64 := strings.TrimSpace(s.ok(s.on("glassbox", "inspect", "-f", "{{.Id}}", id)))
		ip := strings.TrimSpace(s.ok(s.on("glassbox", "inspect", "-f", "{{.NetworkSettings.IPAddress}}", id)))
		vars := fmt.Sprintf(". %s\nNAME=%s P=%d ID=%s IP=%s VETH=gb%s\n", lib, id, s.pid(engineFace, id), id64, ip, id64[:12])
		if res := s.sh(vars + x.do); res.Code != 0 {
			t.Errorf("%s: the tampering itself: %s%s", x.name, res.Stdout, res.Stderr)
		}
		r, code := s.verified(id)
		got := faults(r)
		left := slices.Clone(got)
		for _, w := range x.want {
			begin, part, _ := strings.Cut(w, " | ")
			k := slices.IndexFunc(left, func(f string) bool { return strings.HasPrefix(f, begin) && strings.Contains(f[len(begin):], part) })
			if k < 0 {
				t.Errorf("%s: not found: %q among\n%s", x.name, w, strings.Join(got, "\n"))
				continue
			}
			left = slices.Delete(left, k, k+1)
		}
		wantCode := 1
		if x.own {
			wantCode = 0
		}
		if code != wantCode || len(left) > 0 && !x.more || x.own && r.Own != len(got) {
			t.Errorf("%s: exit code %d, want %d, and this was not tampered with:\n%s", x.name, code, wantCode, strings.Join(left, "\n"))
		}
		for _, f := range append(slices.Clone(r.Steps), r.Unexpected...) {
			if (f.Verdict == verify.Differs || f.Verdict == verify.Unlisted) && (f.Where == "" || f.Why == "") {
				t.Errorf("%s: %q says not where it was read, or who may have done it", x.name, f.What)
			}
		}
		s.ok(s.on("glassbox", "rm", "-f", id))
		if x.undo != "" {
			s.ok(s.sh(x.undo))
		}
	}
}

const legacy = "[ -d /sys/fs/cgroup/memory ]"

var tamperings = []tampering{
	// Limits.
	{
		name: "memory limit", do: `if v1 memory; then echo 268435456 >$(group memory)/memory.memsw.limit_in_bytes; echo 134217728 ` +
			`>$(group memory)/memory.limit_in_bytes; fi`, need: legacy,
		want: []string{
			`cgroup-write: write "67108864" to | memory.limit_in_bytes | 134217728`,
			`cgroup-write: write "134217728" to | memory.memsw.limit_in_bytes | 268435456`,
		},
	},
	{
		name: "memory limit (v2)", do: `echo 134217728 >$(group memory)/memory.max`, need: "! " + legacy,
		want: []string{`cgroup-write: write "67108864" to | memory.max | 134217728`},
	},
	{name: "pids limit", do: `echo 60 >$(group pids)/pids.max`, want: []string{`cgroup-write: write "50" to | pids.max | 60`}},
	{name: "no pids limit", do: `echo max >$(group pids)/pids.max`, want: []string{`cgroup-write: write "50" to | pids.max | max`}},
	{name: "processor time", do: `if v1 cpu; then echo 80000 >$(group cpu)/cpu.cfs_quota_us; else echo '80000 100000' >$(group ` +
		`cpu)/cpu.max; fi`, want: []string{`cgroup-write: write "50000 | | 80000`}},
	{
		name: "another device", do: `echo 'c 10:200 rwm' >$(group devices)/devices.allow`, need: legacy,
		want: []string{`cgroup-write: write "a *:* rwm" to | also c 10:200 rwm`},
	},
	{
		name: "all devices", do: `echo a >$(group devices)/devices.allow`, need: legacy,
		want: []string{`cgroup-write: write "a *:* rwm" to | also a *:* rwm`},
	},
	{
		name: "a device less", do: `echo 'c 1:5 rw' >$(group devices)/devices.deny`, need: legacy,
		want: []string{`cgroup-write: write "c 1:5 rwm" to | c 1:5 m`},
	},
	{
		name: "the process to another cgroup", do: `if v1 pids; then echo $P >/sys/fs/cgroup/pids/cgroup.procs; else echo $P ` +
			`>/sys/fs/cgroup/init/cgroup.procs; fi`, need: legacy,
		want: []string{"cgroup-join: join cgroup cgroup:pids | in /sys/fs/cgroup/pids"},
	},
	{
		name: "the process to another cgroup (v2)", do: `mkdir -p /sys/fs/cgroup/other; echo $P >/sys/fs/cgroup/other/cgroup.procs`,
		undo: `rmdir /sys/fs/cgroup/other`, need: "! " + legacy, want: []string{"clone3: | in /sys/fs/cgroup/other"},
	},
	{
		name: "a second process to another cgroup", do: `glassbox exec -d $NAME sleep 999; settle
		for p in $(cat $(group pids)/cgroup.procs); do [ $p = $P ] || break; done
		if v1 pids; then echo $p >/sys/fs/cgroup/pids/cgroup.procs; else echo $p >/sys/fs/cgroup/init/cgroup.procs; fi`,
		want: []string{"unlisted: process | (sleep) of the container is in cgroup"},
	},
	{
		name: "a stranger in its cgroup", do: `sleep 988 >/dev/null 2>&1 & echo $! >$(group pids)/cgroup.procs`,
		want: []string{"unlisted: process | (sleep) is in its cgroup, and not in its PID namespace"},
	},
	{name: "oom score", own: true, do: `echo 500 >/proc/$P/oom_score_adj`, want: []string{`write-proc: write "300" | 500`}},
	{
		name: "open files", own: true, do: `prlimit --pid $P --nofile=50:200`,
		want: []string{"prlimit: set RLIMIT_NOFILE to 100 | 50, hard 200"},
	},

	// Mounts.
	{
		name: "another mount", do: `in_mounts mount -t tmpfs none /mnt 2>/dev/null || in_mounts mount -t tmpfs none /home`,
		want: []string{"unlisted: mount tmpfs on /"},
	},
	{name: "writable again", do: `in_mounts mount -o remount,bind,rw /data`, want: []string{"move_mount: | /data is writable"}},
	{
		name: "writable sysfs", do: `in_mounts mount -o remount,bind,rw,nosuid,nodev,noexec /sys`,
		want: []string{"fsmount: mount sysfs on /sys | /sys is writable"},
	},
	{
		name: "suid", do: `in_mounts mount -o remount,bind,suid /dev/shm`,
		want: []string{"fsmount: mount tmpfs on /dev/shm | /dev/shm is not nosuid"},
	},
	{name: "read-only root", do: `in_mounts mount -o remount,ro,bind /`, want: []string{"overlay: | / is ro"}},
	{name: "a masked file", do: `in_mounts umount /proc/interrupts`, want: []string{"mask-path: hide /proc/interrupts"}},
	{name: "a masked directory", do: `in_mounts umount /sys/firmware`, want: []string{"mask-path: hide /sys/firmware"}},
	{
		name: "a masked file by another file", do: `in_mounts umount /proc/keys; in_mounts mount --bind /etc/hostname /proc/keys`,
		want: []string{"mask-path: hide /proc/keys", "unlisted: mount | on /proc/keys"},
	},
	{
		name: "a masked directory made writable", do: `in_mounts mount -o remount,rw /sys/firmware`,
		want: []string{"mask-path: hide /sys/firmware | isn't empty and read-only"},
	},
	{name: "read-only settings", do: `in_mounts umount /proc/sys`, want: []string{"readonly-path: make /proc/sys read-only"}},
	{
		name: "writable settings", do: `in_mounts mount -o remount,bind,rw /proc/sys`,
		want: []string{"readonly-path: make /proc/sys read-only | writable"},
	},
	{name: "shared memory", do: `in_mounts umount /dev/shm`, want: []string{"fsmount: mount tmpfs on /dev/shm"}},
	{
		name: "shared memory covered", do: `in_mounts mount -t tmpfs none /dev/shm`,
		want: []string{"fsmount: mount tmpfs on /dev/shm | it is covered", "unlisted: mount tmpfs on /dev/shm"},
	},
	{
		name: "shared memory without its limit", do: `in_mounts mount -o remount,size=1g /dev/shm`,
		want: []string{"fsmount: mount tmpfs on /dev/shm | 1048576k"},
	},
	{name: "a tmpfs", do: `in_mounts mount -o remount,size=2m /run`, want: []string{"fsmount: mount tmpfs on /run | 2048k"}},
	{
		name: "a tmpfs in the place of another",
		do:   `in_mounts umount /run; in_mounts mount -t tmpfs -o nosuid,nodev,noexec,size=9m tmpfs /run`,
		want: []string{"fsmount: mount tmpfs on /run | 9216k"},
	},
	{
		name: "/dev as a whole", do: `in_mounts mount -t tmpfs none /dev`,
		want: []string{
			"unlisted: mount tmpfs on /dev", "fsmount: mount tmpfs on /dev | it is covered",
			"fsmount: mount devpts on /dev/pts | it is covered", "mknod: make device /dev/null | it isn't there",
		}, more: true,
	},
	{name: "/etc/passwd", do: `in_mounts mount --bind /etc/hosts /etc/passwd`, want: []string{"unlisted: mount | on /etc/passwd"}},
	{
		name: "resolv.conf by another file", do: `in_mounts umount /etc/resolv.conf; in_mounts mount --bind /etc/passwd /etc/resolv.conf`,
		want: []string{"move_mount: | in its place is overlay", "unlisted: mount overlay | on /etc/resolv.conf"},
	},
	{name: "no resolv.conf", do: `in_mounts umount /etc/resolv.conf`, want: []string{"move_mount: | /etc/resolv.conf"}},
	{name: "a bind mount by another", do: `in_mounts umount /data; in_mounts mount --bind /etc /data; in_mounts mount -o ` +
		`remount,bind,ro /data`, want: []string{"move_mount: | in its place is overlay", "unlisted: mount overlay | on /data"}},
	{
		name: "a bind mount by another of the same file system", flags: "-v SHARED/sub:/sub",
		do:   `in_mounts umount /data; in_mounts mount --bind /sub /data; in_mounts mount -o remount,bind,ro /data`,
		want: []string{"move_mount: | /data shows"},
	},
	{
		name: "the source of a bind mount", flags: "-v SHARED/file:/file", do: `echo y >$SHARED/new; mv $SHARED/new $SHARED/file`,
		want: []string{"move_mount: | deleted or replaced on the host"},
	},
	{name: "propagation", do: `in_mounts mount --make-shared /data`, want: []string{"move_mount: | /data is shared"}},
	{
		name: "propagation of the root", do: `in_mounts mount --make-rshared /; in_mounts mount --make-rprivate /dev; in_mounts mount ` +
			`--make-rprivate /proc; in_mounts mount --make-rprivate /sys; for d in data run etc/hosts etc/hostname etc/resolv.conf; do ` +
			`in_mounts mount --make-private /$d; done`,
		want: []string{"mount: mount on / (rec,private) | / is shared"},
	},

	{
		name: "a file system that never answers", need: "[ -c /dev/fuse ]", more: true, want: []string{"unlisted: mount fuse on /dev"},
		do: `(exec 3<>/dev/fuse; in_mounts mount -t fuse -o fd=3,rootmode=40000,user_id=0,group_id=0 none /dev && exec sleep 20) ` +
			`>/dev/null 2>&1 & settle`,
	},

	// Names and settings.
	{name: "host name", do: `nsenter -t $P -u hostname evil`, want: []string{"sethostname: | evil"}},
	{name: "sysctl", do: `in_net sh -c 'echo 0 >/proc/sys/net/ipv4/ip_forward'`, want: []string{"sysctl: set sysctl net.ipv4.ip_forward | 0"}},
	{name: "device node", own: true, do: `in_mounts mknod /dev/evil c 10 200`, want: []string{"unlisted: device /dev/evil, c 10:200"}},
	{
		name: "device node below a directory", own: true, do: `in_mounts mkdir /dev/x; in_mounts mknod /dev/x/evil b 8 0`,
		want: []string{"unlisted: device /dev/x/evil, b 8:0"},
	},
	{
		name: "another device", own: true, do: `in_mounts rm /dev/zero; in_mounts mknod /dev/zero c 1 3`,
		want: []string{"mknod: make device /dev/zero | c 1:3"},
	},
	{name: "no device", own: true, do: `in_mounts rm /dev/full`, want: []string{"mknod: make device /dev/full | it isn't there"}},
	{name: "mode of a device", own: true, do: `in_mounts chmod 600 /dev/full`, want: []string{"mknod: make device /dev/full | mode 0600"}},
	{
		name: "a link", own: true, do: `in_mounts ln -sf /etc/passwd /dev/stdin`,
		want: []string{"symlink: link /dev/stdin | a link to /etc/passwd"},
	},

	// The same where the plan leaves no right to it.
	{
		name: "hard limit", need: "prlimit --pid $$ --core=0:0 && prlimit --pid $$ --core=0:1 2>/dev/null",
		do: `prlimit --pid $P --nofile=150:300`, want: []string{"prlimit: set RLIMIT_NOFILE to 100 | hard 300"},
	},
	{
		name: "device node without CAP_MKNOD", flags: "--cap-drop MKNOD", do: `in_mounts mknod /dev/evil c 10 200`,
		want: []string{"unlisted: device /dev/evil, c 10:200"},
	},
	{
		name: "no device, without root", flags: "-u 1000 --cap-drop ALL --security-opt no-new-privileges", do: `in_mounts rm /dev/full`,
		want: []string{"mknod: make device /dev/full | it isn't there"},
	},

	// Network.
	{
		name: "no address", do: `in_net ip addr flush dev eth0`,
		want: []string{"link-address: set eth0 up with | eth0 has", "route-default: | no default route"},
	},
	{name: "another address", do: `in_net ip addr add 192.0.2.7/24 dev eth0`, want: []string{"unlisted: address 192.0.2.7/24 on eth0"}},
	{name: "an address on lo", do: `in_net ip addr add 192.0.2.8/32 dev lo`, want: []string{"unlisted: address 192.0.2.8/32 on lo"}},
	{name: "no route", do: `in_net ip route del default`, want: []string{"route-default: | no default route"}},
	{
		name: "another default route", do: `in_net ip route replace default via 172.30.0.9`,
		want: []string{"route-default: | default via 172.30.0.9 on eth0", "unlisted: route default via 172.30.0.9"},
	},
	{
		name: "another route", do: `in_net ip route add 192.0.2.0/24 via 172.30.0.1`,
		want: []string{"unlisted: route 192.0.2.0/24 via 172.30.0.1 on eth0"},
	},
	{
		name: "a route in another table", do: `in_net ip route add 192.0.2.0/24 via 172.30.0.1 table 77`,
		want: []string{"unlisted: route 192.0.2.0/24 | in table 77"},
	},
	{
		name: "eth0 down", do: `in_net ip link set eth0 down`,
		want: []string{"link-address: set eth0 up with | eth0 down", "route-default: | no default route"},
	},
	{name: "lo down", do: `in_net ip link set lo down`, want: []string{"link-address: set lo up | lo down"}},
	{name: "hardware address", do: `in_net ip link set eth0 address 02:00:00:00:00:09`, want: []string{"link-veth: | 02:00:00:00:00:09"}},
	{
		name: "IPv6 switched on", do: `in_net sh -c 'echo 0 >/proc/sys/net/ipv6/conf/eth0/disable_ipv6'`,
		want: []string{"link-veth: | eth0 has IPv6"},
	},
	{
		name: "another link", do: `ip link add x1 type veth peer name x2 netns $P`, undo: `ip link del x1 2>/dev/null; :`,
		want: []string{"unlisted: link x2"},
	},
	{name: "out of the bridge", do: `ip link set $VETH nomaster`, want: []string{"link-veth: | it is in no bridge"}},
	{name: "the host's end down", do: `ip link set $VETH down`, want: []string{"link-veth: | it is down"}},
	{name: "bridge down", do: `ip link set glassbox0 down`, undo: `ip link set glassbox0 up`, want: []string{"link-bridge: | it is down"}},
	{
		name: "bridge without its address", do: `ip addr flush dev glassbox0`, undo: `ip addr add 172.30.0.1/16 dev glassbox0`,
		want: []string{"link-bridge: | no address 172.30.0.1/16"},
	},
	{
		name: "a setting of the bridge", do: `echo 0 >/proc/sys/net/ipv4/conf/glassbox0/route_localnet`,
		undo: `echo 1 >/proc/sys/net/ipv4/conf/glassbox0/route_localnet`, want: []string{"link-bridge: | route_localnet is 0"},
	},

	// Firewall.
	{name: "unpublished", do: `nft delete element ip glassbox0 published '{ tcp . 8080 }'`, want: []string{"nft-publish: | *:8080/tcp"}},
	{
		name: "published elsewhere", do: `nft delete element ip glassbox0 published '{ tcp . 8080 }'; nft add element ip glassbox0 ` +
			`published "{ tcp . 8080 : $IP . 22 }"`, undo: `nft delete table ip glassbox0`,
		want: []string{"nft-publish: | *:8080/tcp", "unlisted: published port *:8080/tcp | :22"},
	},
	{
		name: "another port", do: `nft add element ip glassbox0 published "{ tcp . 9999 : $IP . 22 }"`,
		undo: `nft delete table ip glassbox0`, want: []string{"unlisted: published port *:9999/tcp | :22"},
	},
	{
		name: "another port on one address", do: `nft add element ip glassbox0 published_on "{ 127.0.0.1 . udp . 9998 : $IP . 22 }"`,
		undo: `nft delete table ip glassbox0`, want: []string{"unlisted: published port 127.0.0.1:9998/udp | :22"},
	},
	{
		name: "a rule that publishes", do: `nft add rule ip glassbox0 prerouting tcp dport 9999 dnat to $IP:22`,
		undo: `nft delete table ip glassbox0`, want: []string{"unlisted: in the firewall of its bridge: rule | of chain prerouting"},
	},
	{
		name: "a rule in another table", do: `nft add table ip other; nft add chain ip other pre '{ type nat hook prerouting priority ` +
			`-101 ; }'; nft add rule ip other pre tcp dport 9999 dnat to $IP:22`, undo: `nft delete table ip other`,
		want: []string{"unlisted: rule | in table ip other names its address"},
	},
	{
		name: "rules flushed", do: `nft flush table ip glassbox0`, undo: `nft delete table ip glassbox0`,
		want: []string{"nft-bridge: | lines are missing"},
	},
	{name: "a rule less", do: `nft delete rule ip glassbox0 forward handle $(nft -a list chain ip glassbox0 forward | sed -n 's/.* ` +
		`drop # handle //p' | tail -1)`, undo: `nft delete table ip glassbox0`, want: []string{"nft-bridge: | 1 of"}},
	{
		name: "rules in another order", do: `h=$(nft -a list chain ip glassbox0 loopback | sed -n 's/.*ip daddr.*handle //p'); nft add ` +
			`rule ip glassbox0 loopback iifname "glassbox0" ip daddr 127.0.0.0/8 drop; nft delete rule ip glassbox0 loopback handle $h`,
		undo: `nft delete table ip glassbox0`,
		want: []string{"nft-bridge: | 1 of", "unlisted: in the firewall of its bridge: rule | of chain loopback"},
	},
	{
		name: "policy", do: `nft 'add chain ip glassbox0 forward { policy drop ; }'`, undo: `nft delete table ip glassbox0`,
		want: []string{"nft-bridge: | 1 of"},
	},
	{
		name: "another chain", do: `nft add chain ip glassbox0 evil`, undo: `nft delete table ip glassbox0`,
		want: []string{"unlisted: in the firewall of its bridge: chain evil"},
	},
	{name: "no table", do: `nft delete table ip glassbox0`, want: []string{"nft-bridge: | lines are missing", "nft-publish: | *:8080/tcp"}},

	// What a program does itself.
	{
		name: "another user", own: true, cmd: `sh -c 'echo n:x:7:7::/:/bin/sh >>/etc/passwd; exec su n -c "exec sleep 1000"'`, do: `settle`,
		want: []string{
			"setresuid: become user 0 | Uid 7 7 7 7", "setresgid: become group 0 | Gid 7 7 7 7", "setgroups: | Groups [7]",
			"capset: | CapPrm 0000000000000000", "execve: | sleep 1000",
		},
	},
	{
		name: "working directory", own: true, cmd: "sh -c 'cd /tmp; while :; do sleep 1; done'", do: `settle`,
		want: []string{"chdir: enter / | /tmp"},
	},
	{name: "another program", own: true, cmd: "sh -c 'exec sleep 1000'", do: `settle`, want: []string{"execve: | sleep 1000"}},
	{
		name: "limits of its own", own: true, cmd: "sh -c 'ulimit -n 77; while :; do sleep 1; done'", do: `settle`,
		want: []string{"prlimit: set RLIMIT_NOFILE | 77"},
	},
	{
		name: "umask", own: true, cmd: "sh -c 'umask 077; while :; do sleep 1; done'", do: `settle`,
		want: []string{"umask: set umask 0022 | 0077"},
	},
	{
		name: "namespaces of a process", own: true, flags: "--cap-add SYS_ADMIN", do: `glassbox exec -d $NAME unshare -m sleep 998; settle`,
		want: []string{"unlisted: process | (sleep) has a mount namespace of its own"},
	},
	{
		name: "a mount of its own", own: true, flags: "--cap-add SYS_ADMIN", do: `glassbox exec $NAME mount -t tmpfs own /tmp`,
		want: []string{"unlisted: mount tmpfs own on /tmp"},
	},
}
