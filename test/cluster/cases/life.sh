# Hooks, the end with its grace, messages, restart policies, codes.
pod hooks <<X
volumes: [{name: notes, hostPath: {path: /run/notes-$ns, type: DirectoryOrCreate}}]
containers:
- name: one
  image: IMAGE
  command: [sh, -c, "trap 'echo term >>/notes/x; exit 0' TERM; echo main >>/notes/main; while :; do sleep 0.1; done"]
  lifecycle: {postStart: {exec: {command: [sh, -c, "echo post >>/notes/x"]}}, preStop: {exec: {command: [sh, -c, "sleep 1; echo pre >>/notes/x"]}}}
  volumeMounts: [{name: notes, mountPath: /notes}]
X
pod badhook <<X
containers: [{name: one, image: IMAGE, command: [sleep, "1000"], lifecycle: {postStart: {exec: {command: [sh, -c, "echo broken; exit 3"]}}}}]
X
grace=3 pod stubborn <<X
restartPolicy: Never
containers: [{name: one, image: IMAGE, command: [/t/ignoreterm]}]
X
pod message <<X
restartPolicy: Never
containers: [{name: one, image: IMAGE, command: [sh, -c, "echo my last words >/dev/termination-log; exit 9"]}, {name: log, image: IMAGE, terminationMessagePolicy: FallbackToLogsOnError, command: [sh, -c, "echo only logged; exit 8"]}, {name: own, image: IMAGE, terminationMessagePath: /tmp/deep/words, command: [sh, -c, "echo in a file >/tmp/deep/words"]}]
X
for policy in Always OnFailure Never; do
	pod "zero-${policy,,}" <<X
restartPolicy: $policy
containers: [{name: one, image: IMAGE, command: ["true"]}]
X
	pod "three-${policy,,}" <<X
restartPolicy: $policy
containers: [{name: one, image: IMAGE, command: [sh, -c, "exit 3"]}]
X
done
pod killed <<X
restartPolicy: Never
containers: [{name: one, image: IMAGE, command: [sh, -c, "sleep 1 & wait; kill -9 \$\$; exec /t/kill1"]}, {name: segv, image: IMAGE, command: [sh, -c, "sh -c 'kill -SEGV \$\$'"]}]
X
pod deadline <<X
activeDeadlineSeconds: 3
containers: [{name: one, image: IMAGE, command: [sleep, "1000"]}]
X
ready hooks
until_ok 240 test -s "/run/notes-$ns/main"
k delete pod hooks --grace-period=10 >/dev/null 2>&1
cat "/run/notes-$ns/x"; rm -rf "/run/notes-$ns"
event badhook 'FailedPostStartHook'
until_get pod/badhook '{.status.containerStatuses[0].restartCount}' '[1-9]'
phase message Failed
get pod/message '{range .status.containerStatuses[*]}{.name} {.state.terminated.exitCode} {.state.terminated.reason} {.state.terminated.message}{"\n"}{end}'
for pod in zero-never three-never zero-onfailure; do
	until_get pod/$pod '{.status.phase}' 'Succeeded|Failed'
	echo $pod "$(get pod/$pod '{.status.phase} {.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].state.terminated.exitCode}')"
done
for pod in zero-always three-always three-onfailure; do
	until_get pod/$pod '{.status.containerStatuses[0].restartCount}' '[1-9]'
	echo $pod "$(get pod/$pod '{.status.phase} {.status.containerStatuses[0].lastState.terminated.exitCode} {.status.containerStatuses[0].lastState.terminated.reason}')"
done
until_get pod/deadline '{.status.reason}' DeadlineExceeded
ready stubborn
begin=$SECONDS
k delete pod stubborn >/dev/null 2>&1
((SECONDS - begin >= 3 && SECONDS - begin < 25)) && echo the stubborn one had its time
until_get pod/killed '{.status.phase}' 'Failed|Succeeded'
get pod/killed '{range .status.containerStatuses[*]}{.name} {.state.terminated.exitCode} {.state.terminated.reason}{"\n"}{end}'
