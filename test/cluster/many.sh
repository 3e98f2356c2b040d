# How long 60 pods take until they are ready, and until they are gone, in milliseconds; and, for what else the host does is in these, how much
# the whole machine, Kubernetes and all, has used of processors meanwhile.
used() { echo $(($(cat /sys/fs/cgroup/cpuacct/cpuacct.usage) / 1000000)); } # the machine's own cgroup
count=60
for n in $(seq $count); do
	printf -- '---\napiVersion: v1\nkind: Pod\nmetadata: {name: pod-%s}\nspec: {runtimeClassName: %s, terminationGracePeriodSeconds: 0, automountServiceAccountToken: false, enableServiceLinks: false, containers: [{name: one, image: "%s", command: [sleep, "100000"]}]}\n' \
		"$n" "$class" "$image"
done >pods.yaml
begin=$(date +%s%3N) used=$(used)
k apply -f pods.yaml >/dev/null
k wait --for=condition=Ready --timeout=300s pods --all >/dev/null
ready=$(date +%s%3N) used_ready=$(used)
k delete pods --all --wait=false >/dev/null
k wait --for=delete --timeout=300s pods --all >/dev/null
until_ok 120 bash -c "! ls /run/containerd/io.containerd.runtime.v2.task/k8s.io | grep ."
echo "$((ready - begin)) $(($(date +%s%3N) - ready)) $((used_ready - used)) $(($(used) - used_ready))"
