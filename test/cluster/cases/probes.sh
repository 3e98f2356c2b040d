# Probes of all kinds that busybox can answer: by a command, HTTP and TCP, at start, for readiness and for life.
objects <<X
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
X
pod web <<X
containers:
- name: web
  image: IMAGE
  command: [sh, -c, "sleep 2; mkdir /www; echo served >/www/index.html; touch /up; exec httpd -f -h /www -p 8080"]
  startupProbe: {exec: {command: [test, -e, /up]}, periodSeconds: 1, failureThreshold: 60}
  readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1, failureThreshold: 1}
  livenessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1, failureThreshold: 30}
X
pod doomed <<X
containers:
- name: one
  image: IMAGE
  command: [sh, -c, "touch /alive; sleep 3; rm /alive; sleep 1000"]
  livenessProbe: {exec: {command: [cat, /alive]}, periodSeconds: 1, failureThreshold: 1}
X
pod slow <<X
containers:
- name: one
  image: IMAGE
  command: [sleep, "1000"]
  readinessProbe: {exec: {command: [sleep, "30"]}, periodSeconds: 2, timeoutSeconds: 1, failureThreshold: 1}
X
pod closed <<X
containers:
- name: one
  image: IMAGE
  command: [sleep, "1000"]
  startupProbe: {tcpSocket: {port: 9}, periodSeconds: 1, failureThreshold: 2}
X
ready web
echo ready: "$(get pod/web '{.status.containerStatuses[0].started} {.status.containerStatuses[0].ready} {.status.containerStatuses[0].restartCount}')"
until_get endpointslices '{.items[*].endpoints[*].conditions.ready}' true
run web 'mv /www/index.html /www/x'
k wait --for=condition=Ready=false --timeout=300s pod/web >/dev/null
until_get endpointslices '{.items[*].endpoints[*].conditions.ready}' false
run web 'mv /www/x /www/index.html'
ready web
until_get pod/doomed '{.status.containerStatuses[0].restartCount}' '[1-9]'
event doomed 'Unhealthy: Liveness probe failed: cat: can.t open ./alive.: No such file or directory'
event doomed 'Killing: Container one failed liveness probe, will be restarted'
echo doomed: "$(get pod/doomed '{.status.containerStatuses[0].lastState.terminated.exitCode} {.status.containerStatuses[0].lastState.terminated.reason}')"
event slow 'Unhealthy: Readiness probe .*timed? ?out'
event closed 'Startup probe failed: .*connection refused'
until_get pod/closed '{.status.containerStatuses[0].restartCount}' '[1-9]'
