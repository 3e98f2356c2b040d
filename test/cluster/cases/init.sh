# Init containers, one of which fails once, and sidecars: their order at the start, at the end, and with a job.
pod ordered <<X
volumes: [{name: notes, emptyDir: {}}]
initContainers:
- {name: first, image: IMAGE, command: [sh, -c, "echo first >>/notes/x"], volumeMounts: [{name: notes, mountPath: /notes}]}
- {name: second, image: IMAGE, command: [sh, -c, "if [ -e /notes/tried ]; then echo second >>/notes/x; else touch /notes/tried; exit 3; fi"], volumeMounts: [{name: notes, mountPath: /notes}]}
- name: side
  image: IMAGE
  restartPolicy: Always
  command: [sh, -c, "trap 'exit 0' TERM; echo side >>/notes/x; touch /up; while :; do sleep 0.2; done"]
  startupProbe: {exec: {command: [test, -e, /up]}, periodSeconds: 1}
  volumeMounts: [{name: notes, mountPath: /notes}]
containers:
- {name: main, image: IMAGE, command: [sh, -c, "echo main >>/notes/x; exec sleep 1000"], volumeMounts: [{name: notes, mountPath: /notes}]}
X
ready ordered
run ordered -c main 'cat /notes/x'
get pod/ordered '{range .status.initContainerStatuses[*]}{.name} {.ready} {.started} {.restartCount} {.state.terminated.reason}{"\n"}{end}'
run ordered -c side 'kill 1; sleep 10' >/dev/null
until_get pod/ordered '{.status.initContainerStatuses[2].restartCount}' 1
until_get pod/ordered '{.status.initContainerStatuses[2].ready}' true
run ordered -c main 'cat /notes/x'
pod stuck <<X
restartPolicy: Never
initContainers: [{name: first, image: IMAGE, command: [sh, -c, "echo no; exit 5"]}]
containers: [{name: main, image: IMAGE, command: [sleep, "1000"]}]
X
phase stuck Failed
get pod/stuck '{.status.initContainerStatuses[0].state.terminated.exitCode} {.status.containerStatuses[0].state.waiting.reason}'
k logs stuck -c first
objects <<X
apiVersion: batch/v1
kind: Job
metadata: {name: aside}
spec:
  template:
    spec:
      runtimeClassName: CLASS
      restartPolicy: Never
      terminationGracePeriodSeconds: 2
      initContainers: [{name: side, image: IMAGE, restartPolicy: Always, command: [sh, -c, "trap 'echo side ends; exit 0' TERM; while :; do sleep 0.2; done"]}]
      containers: [{name: main, image: IMAGE, command: [echo, done]}]
X
k wait --for=condition=Complete --timeout=300s job/aside >/dev/null
k logs job/aside -c main
k logs job/aside -c side
