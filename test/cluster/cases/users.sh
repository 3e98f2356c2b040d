# Pods with users of their own (hostUsers: false).
pod one <<X
hostUsers: false
securityContext: {fsGroup: 3000}
volumes: [{name: v, emptyDir: {}}, {name: m, emptyDir: {medium: Memory}}]
containers:
- {name: one, image: IMAGE, command: [sleep, "1000"], volumeMounts: [{name: v, mountPath: /v}, {name: m, mountPath: /m}], resources: {limits: {memory: 48Mi}}}
- {name: user, image: IMAGE, command: [sleep, "1000"], securityContext: {runAsUser: 1000}}
- {name: unmasked, image: IMAGE, command: [sleep, "1000"], securityContext: {procMount: Unmasked}}
- {name: added, image: IMAGE, command: [sleep, "1000"], securityContext: {capabilities: {add: [SYS_ADMIN]}}}
- {name: privileged, image: IMAGE, command: [sleep, "1000"], securityContext: {privileged: true}}
X
ready one
run one -c one 'awk "{print \$1, \$3, (\$2 >= 65536)}" /proc/self/uid_map; id; touch /v/x /m/x /tmp/x; stat -c "%a %u:%g %n" /v /v/x /m /m/x /tmp/x /etc/passwd /home/app; cat /proc/self/setgroups'
echo cgroups:
run one -c one 'sed -E "s,^[0-9]+:,,; s,/kubepods/.*,POD," /proc/self/cgroup | sort; ls /sys/fs/cgroup; cat /sys/fs/cgroup/memory/memory.limit_in_bytes; ls /sys/fs/cgroup/memory | grep -c kubepods; grep -E " /sys/fs/cgroup/" /proc/self/mountinfo | cut -d" " -f4-6 | sed "s,/kubepods[^ ]*,POD," | sort; ls /sys/fs/cgroup/unified'
for container in one user unmasked added privileged; do
	echo "== $container"
	run one -c $container 'id -u; grep -E "^(Cap|NoNewPrivs|Seccomp:)" /proc/self/status; grep -cE " /proc/" /proc/self/mountinfo; mkdir -p /tmp/p; mount -t proc p /tmp/p 2>&1 && echo proc; mount -t tmpfs t /tmp 2>&1 && echo tmpfs; mknod /tmp/null c 1 3 2>&1; ls -ln /dev/null | cut -c1-24; hostname x; ls /proc/sys/kernel | wc -l >/dev/null; cat /proc/sys/kernel/hostname; cat /dev/kmsg 2>&1 | head -c 30; ip link add d0 type dummy 2>&1'
	run one -c $container 'sed -E "s/^[0-9]+ [0-9]+ [0-9]+:[0-9]+ //; s/ (master|shared):[0-9]+//; s/[ug]id=[0-9]+/id=N/g; s/ext4 [^ ]+/ext4/; s,/kubepods[^ ]*,POD,; s/size=[0-9]+k,|,inode64|nr_inodes=[0-9]+,?//g; s,( /proc/acpi| /sys/firmware) ro.*,\1 masked," /proc/self/mountinfo | grep -vE "overlay| /sys/fs/cgroup r|/pods/|/sandboxes/" | sort'
done
