# Limits, what the cgroups say of them, changes while it runs, overhead, figures.
limits='cd /sys/fs/cgroup; if [ -e memory ]; then cat memory/memory.limit_in_bytes cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us cpu/cpu.shares; else cat memory.max cpu.max cpu.weight; fi'
pod one <<X
restartPolicy: OnFailure
containers:
- {name: one, image: IMAGE, command: [sleep, "1000"], resources: {requests: {cpu: 100m, memory: 32Mi}, limits: {cpu: 500m, memory: 64Mi}}, resizePolicy: [{resourceName: cpu, restartPolicy: NotRequired}, {resourceName: memory, restartPolicy: NotRequired}]}
- {name: restarts, image: IMAGE, command: [sh, -c, "trap 'exit 1' TERM; while :; do sleep 0.1; done"], resources: {limits: {cpu: 100m, memory: 32Mi}}, resizePolicy: [{resourceName: memory, restartPolicy: RestartContainer}]}
- {name: free, image: IMAGE, command: [sleep, "1000"]}
X
class=$class-overhead pod overhead <<X
containers: [{name: one, image: IMAGE, command: [sleep, "1000"], resources: {limits: {cpu: 100m, memory: 40Mi}}}]
X
pod whole <<X
resources: {limits: {cpu: 300m, memory: 80Mi}}
containers: [{name: one, image: IMAGE, command: [sleep, "1000"]}, {name: two, image: IMAGE, command: [sleep, "1000"]}]
X
ready one overhead whole
for container in one restarts free; do
	echo "== $container"
	run one -c $container "$limits"
done
of_pod() { # POD FILE: a value of the pod's cgroup
	local uid
	uid=$(get "pod/$1" '{.metadata.uid}')
	find /sys/fs/cgroup -path "*pod$uid/$2" -exec cat {} + 2>/dev/null
}
of_pod overhead memory.limit_in_bytes; of_pod overhead memory.max; of_pod overhead cpu.cfs_quota_us; of_pod overhead cpu.max
run whole -c one "$limits"; of_pod whole memory.limit_in_bytes; of_pod whole memory.max
k patch pod one --subresource resize --patch '{"spec": {"containers": [{"name": "one", "resources": {"requests": {"cpu": "200m"}, "limits": {"cpu": "700m", "memory": "96Mi"}}}]}}' >/dev/null
until_get pod/one '{.status.containerStatuses[?(@.name=="one")].resources.limits}' '"cpu":"700m","memory":"96Mi"'
run one -c one "$limits"
k patch pod one --subresource resize --patch '{"spec": {"containers": [{"name": "restarts", "resources": {"requests": {"memory": "48Mi"}, "limits": {"memory": "48Mi"}}}]}}' >/dev/null
until_get pod/one '{.status.containerStatuses[?(@.name=="restarts")].restartCount}' 1
until_get pod/one '{.status.containerStatuses[?(@.name=="restarts")].resources.limits}' '"memory":"48Mi"'
run one -c restarts "$limits"
get pod/one '{range .status.containerStatuses[*]}{.name} {.restartCount}{"\n"}{end}'
until_ok 240 bash -c "kubectl get --raw /api/v1/nodes/node/proxy/stats/summary | jq -e '.pods[] | select(.podRef.name == \"one\" and .podRef.namespace == \"$ns\") | .containers | length == 3 and all(.memory.workingSetBytes > 0 and .cpu.usageCoreNanoSeconds > 0)'"
echo figures
