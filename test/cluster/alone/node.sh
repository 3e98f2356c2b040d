# What happens on a node: static pods, daemons that are started again, a drain. Alone, for it concerns all pods.
again() { # NAME - ends a daemon, and starts it again a while later
	kill "$(cat "$WORK/run/$1")"
	until_ok 240 bash -c "! kill -0 $(cat "$WORK/run/$1")"
	sleep "${2:-1}"
	"$cluster/daemon.sh" "$1"
}
cat >"$WORK/manifests/static.yaml" <<X
apiVersion: v1
kind: Pod
metadata: {name: static, namespace: $ns}
spec:
  runtimeClassName: $class
  terminationGracePeriodSeconds: 1
  containers: [{name: one, image: $image, command: [sleep, "1000"]}]
X
pod kept <<X
containers:
- {name: one, image: IMAGE, stdin: true, command: [sh, -c, "trap 'echo ended; exit 0' TERM; echo started; while :; do sleep 0.1; done"], livenessProbe: {exec: {command: ["true"]}, periodSeconds: 1}}
X
pod ends <<X
restartPolicy: OnFailure
containers: [{name: one, image: IMAGE, command: [sh, -c, "until [ -e /now/\$(cat /now/count | wc -c) ]; do sleep 0.2; done; printf x >>/now/count; exit 3"], volumeMounts: [{name: now, mountPath: /now}]}]
volumes: [{name: now, hostPath: {path: /run/now-$ns, type: DirectoryOrCreate}}]
X
rm -rf "/run/now-$ns" && mkdir "/run/now-$ns"
touch "/run/now-$ns/count"
until_ok 240 kubectl -n "$ns" get pod static-node
ready static-node kept ends
run static-node 'hostname'
id=$(get pod/kept '{.status.containerStatuses[0].containerID}')
again kubelet 2
sleep 3
ready kept static-node
again containerd 2
until_ok 240 bash -c "ctr version 2>/dev/null"
k wait --for=condition=Ready --timeout=300s node/node >/dev/null
until_ok 240 kubectl -n "$ns" exec kept -- true # it answers before it has found what runs
run kept 'echo exec after it'
# One whose container ends while the daemons are away.
touch "/run/now-$ns/0"
until_get pod/ends '{.status.containerStatuses[0].restartCount}' 1
kill "$(cat "$WORK/run/kubelet")" "$(cat "$WORK/run/containerd")"
sleep 1
touch "/run/now-$ns/1"
sleep 2
"$cluster/daemon.sh" containerd
until_ok 240 bash -c "ctr version 2>/dev/null"
"$cluster/daemon.sh" kubelet
until_get pod/ends '{.status.containerStatuses[0].restartCount}' 2
get pod/ends '{.status.containerStatuses[0].lastState.terminated.exitCode} {.status.containerStatuses[0].lastState.terminated.reason}'
[[ $id == "$(get pod/kept '{.status.containerStatuses[0].containerID}')" ]] && echo the same container
get pod/kept '{.status.containerStatuses[0].restartCount}'
k logs kept
# The shim is killed: its container ends, and another comes.
kill -9 "$(ps -o ppid= -p "$(cat "/run/containerd/io.containerd.runtime.v2.task/k8s.io/${id#containerd://}/init.pid")" | tr -d ' ')"
until_get pod/kept '{.status.containerStatuses[0].restartCount}' '[1-9]'
ready kept
echo another after the shim is killed
rm "$WORK/manifests/static.yaml"
until_ok 240 bash -c "! kubectl -n $ns get pod static-node"
k delete pods --all --now >/dev/null 2>&1
objects <<X
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template: {metadata: {labels: {app: web}}, spec: {runtimeClassName: CLASS, terminationGracePeriodSeconds: 1, containers: [{name: one, image: IMAGE, command: [sleep, "1000"]}]}}
X
k rollout status deployment/web --timeout=300s | tail -1
kubectl drain node --ignore-daemonsets --delete-emptydir-data --timeout=300s --force --pod-selector=app=web 2>&1 | grep -c evicted
until_get pods '{.items[*].status.phase}' '^Pending Pending$'
kubectl uncordon node
k rollout status deployment/web --timeout=300s | tail -1
k delete deployment web >/dev/null
rm -rf "/run/now-$ns"
