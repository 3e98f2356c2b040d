#!/bin/bash
# What the demo runs in its container: a look around, with what bash itself can do where a program is missing.
echo "hostname:        $(</proc/sys/kernel/hostname)"
echo "my process ID:   $$"
echo "processes:"
if type -P ps >/dev/null; then
	ps -e -o pid,user,args >/tmp/list; while read -r line; do echo "    $line"; done </tmp/list
else
	for dir in /proc/[0-9]*; do echo "    ${dir#/proc/} $(tr '\0' ' ' 2>/dev/null <"$dir/cmdline")"; done
fi
echo "root directory:  $(echo /*)"
echo "addresses:"
if type -P ip >/dev/null; then
	ip -brief address | while read -r line; do echo "    $line"; done
else
	while read -r line; do echo "    $line"; done </proc/net/fib_trie
fi
echo "limits:"
for file in /sys/fs/cgroup/{memory.max,pids.max,cpu.max} \
	/sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/pids/pids.max \
	/sys/fs/cgroup/cpu/cpu.cfs_quota_us; do
	[[ -r $file ]] && echo "    ${file#/sys/fs/cgroup/} = $(<"$file")"
done
while read -r name value; do
	case $name in CapEff: | Seccomp:) echo "    $name $value" ;; esac
done </proc/self/status
