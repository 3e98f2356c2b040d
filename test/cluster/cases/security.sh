# Security contexts.
mkdir -p /var/lib/kubelet/seccomp/profiles
echo '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]}' >/var/lib/kubelet/seccomp/profiles/nomkdir.json
self='grep -E "^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp)" /proc/self/status | tr "\t" " "'
pod plain <<X
containers:
- {name: one, image: IMAGE, command: [sleep, "1000"]}
- {name: default, image: IMAGE, command: [sleep, "1000"], securityContext: {seccompProfile: {type: RuntimeDefault}}}
- {name: local, image: IMAGE, command: [sleep, "1000"], securityContext: {seccompProfile: {type: Localhost, localhostProfile: profiles/nomkdir.json}}}
- {name: readonly, image: IMAGE, command: [sleep, "1000"], securityContext: {readOnlyRootFilesystem: true}}
- {name: dropped, image: IMAGE, command: [sleep, "1000"], securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL], add: [NET_BIND_SERVICE]}}}
- {name: added, image: IMAGE, command: [sleep, "1000"], securityContext: {capabilities: {add: [SYS_ADMIN, SYS_TIME]}}}
- {name: user, image: IMAGE, command: [sleep, "1000"], securityContext: {runAsUser: 1000, runAsGroup: 29}}
- {name: nouser, image: IMAGE, command: [sleep, "1000"], securityContext: {runAsUser: 4711}}
- {name: privileged, image: IMAGE, command: [sleep, "1000"], securityContext: {privileged: true}}
X
pod groups <<X
securityContext: {runAsUser: 1000, runAsGroup: 1000, fsGroup: 3000, supplementalGroups: [4000, 5000], runAsNonRoot: true}
volumes: [{name: v, emptyDir: {}}]
containers: [{name: one, image: IMAGE, command: [sleep, "1000"], volumeMounts: [{name: v, mountPath: /v}]}]
X
pod strict <<X
securityContext: {runAsUser: 1000, runAsGroup: 1000, supplementalGroups: [4000], supplementalGroupsPolicy: Strict}
containers: [{name: one, image: IMAGE, command: [sleep, "1000"]}]
X
pod sysctls <<X
securityContext: {sysctls: [{name: net.ipv4.ip_unprivileged_port_start, value: "81"}, {name: kernel.shm_rmid_forced, value: "1"}, {name: net.core.somaxconn, value: "777"}, {name: kernel.msgmax, value: "9999"}]}
containers: [{name: one, image: IMAGE, command: [sleep, "1000"]}]
X
pod nonroot <<X
securityContext: {runAsNonRoot: true}
containers: [{name: one, image: IMAGE, command: [sleep, "1000"]}]
X
ready plain groups strict sysctls
for container in one default local readonly dropped added user nouser privileged; do
	echo "== $container"
	run plain -c $container "$self"
	run plain -c $container 'mkdir /tmp/x && echo made; unshare -m true 2>&1; mount -t tmpfs x /srv 2>&1; echo $HOME; id; ls -l /proc/1/fd/0 | sed "s/.*-> //"'
	# Of masked directories it counts that they are read-only, and the directory of v1's hierarchies is writable with runc alone.
	run plain -c $container 'sed -E "s/^[0-9]+ [0-9]+ [0-9]+:[0-9]+ //; s/ (master|shared):[0-9]+//; s/ext4 [^ ]+/ext4/; s,/kubepods[^ ]*,POD,; s/size=[0-9]+k,|,inode64|nr_inodes=[0-9]+,?//g; s,( /proc/acpi| /sys/firmware) ro.*,\1 masked," /proc/self/mountinfo | grep -vE "overlay| /sys/fs/cgroup r|/pods/|/sandboxes/" | sort'
	run plain -c $container 'ls /dev | sort | head -40 | tr "\n" " "; cat /proc/self/oom_score_adj; for f in /proc/kcore /proc/keys /proc/sysrq-trigger /proc/timer_list; do echo $f $(head -c 1 $f 2>/dev/null | wc -c); done; ls /proc/acpi /sys/firmware 2>&1 | head -5; echo 1 >/proc/sys/kernel/shm_rmid_forced; cat /proc/self/attr/current 2>/dev/null; ulimit -a | grep -E "open files|processes"'
done
run groups "$self"'; touch /v/x; stat -c "%a %u:%g" /v /v/x'
run strict "$self"
run sysctls 'cd /proc/sys; cat net/ipv4/ip_unprivileged_port_start kernel/shm_rmid_forced net/core/somaxconn kernel/msgmax'
event nonroot 'container has runAsNonRoot and image will run as root'
