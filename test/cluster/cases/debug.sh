# Ephemeral containers, a copy of a pod to look at, a pod on the node.
pod one <<X
containers: [{name: one, image: IMAGE, command: [sh, -c, "echo secret >/tmp/of-one; exec sleep 1234"]}]
X
ready one
k debug one -q --image="$image" --target=one --container=look --profile=general -- sh -c 'ps -o args | grep -v ps; cat /proc/$(ps -o pid,args | grep "[s]leep 1234" | sed "s/^ *//; s/ .*//")/root/tmp/of-one; echo looked; sleep 1000' 2>/dev/null
until_ok 240 bash -c "kubectl -n $ns logs one -c look | grep looked"
k logs one -c look | grep -v CMD
get pod/one '{.status.ephemeralContainerStatuses[0].name} {.status.ephemeralContainerStatuses[0].state.running.startedAt}' | cut -d' ' -f1
run one -c look 'grep -E "Cap(Eff|Bnd)" /proc/self/status'
k debug one -q --image="$image" --target=one --container=net --profile=netadmin -- sleep 1000 2>/dev/null
until_get pod/one '{.status.ephemeralContainerStatuses[1].state.running}' started
run one -c net 'grep -E "Cap(Eff|Bnd)" /proc/self/status'
k debug one -q --copy-to=copy --container=one --share-processes -- sh -c 'echo copied; sleep 1000' 2>/dev/null
ready copy
k logs copy -c one
run copy -c one 'cat /proc/1/comm'
k delete pod copy --now >/dev/null 2>&1
