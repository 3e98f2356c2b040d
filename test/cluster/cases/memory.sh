# The end by memory: of a container, of a process beside its first one, of an exec, of a sandbox that is too small.
pod first <<X
restartPolicy: Never
containers: [{name: one, image: IMAGE, command: [/t/membomb], resources: {limits: {memory: 24Mi}}}]
X
pod again <<X
containers: [{name: one, image: IMAGE, command: [/t/membomb], resources: {limits: {memory: 24Mi}}}]
X
pod beside <<X
restartPolicy: Never
containers: [{name: one, image: IMAGE, command: [sh, -c, "/t/membomb; echo \"it ended with \$?\"; sleep 1000"], resources: {limits: {memory: 24Mi}}}]
X
pod exec <<X
containers: [{name: one, image: IMAGE, command: [sleep, "1000"], resources: {limits: {memory: 24Mi}}}]
X
phase first Failed
get pod/first '{.status.containerStatuses[0].state.terminated.exitCode} {.status.containerStatuses[0].state.terminated.reason}'
until_get pod/again '{.status.containerStatuses[0].restartCount}' '[1-9]'
get pod/again '{.status.containerStatuses[0].lastState.terminated.exitCode} {.status.containerStatuses[0].lastState.terminated.reason}'
until_ok 240 bash -c "kubectl -n $ns logs beside | grep ended || kubectl -n $ns get pod beside -o jsonpath='{.status.phase}' | grep Failed"
k logs beside | sort # two streams have no order
get pod/beside '{.status.phase} {.status.containerStatuses[0].state.terminated.reason}'
ready exec
run exec '/t/membomb; echo "code $?"'
pod small <<X
containers: [{name: one, image: IMAGE, command: [sleep, "1000"], resources: {limits: {memory: 16Ki}}}]
X
event small 'FailedCreatePodSandBox: .*OOM-killed'
echo the sandbox that is too small is told as one that was killed for its memory
k delete pod small --now >/dev/null 2>&1
