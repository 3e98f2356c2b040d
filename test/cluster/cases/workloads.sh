# Jobs, cron jobs, deployments, sets.
spec="runtimeClassName: $class, terminationGracePeriodSeconds: 1"
objects <<X
apiVersion: batch/v1
kind: Job
metadata: {name: three}
spec: {completions: 3, parallelism: 2, completionMode: Indexed, template: {spec: {$spec, restartPolicy: Never, containers: [{name: one, image: IMAGE, command: [sh, -c, "echo index \$JOB_COMPLETION_INDEX"]}]}}}
---
apiVersion: batch/v1
kind: Job
metadata: {name: fails}
spec: {backoffLimit: 5, podFailurePolicy: {rules: [{action: FailJob, onExitCodes: {operator: In, values: [42]}}]}, template: {spec: {$spec, restartPolicy: Never, containers: [{name: one, image: IMAGE, command: [sh, -c, "exit 42"]}]}}}
---
apiVersion: batch/v1
kind: Job
metadata: {name: late}
spec: {activeDeadlineSeconds: 3, template: {spec: {$spec, restartPolicy: Never, containers: [{name: one, image: IMAGE, command: [sleep, "1000"]}]}}}
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: cron}
spec: {schedule: "0 0 1 1 *", jobTemplate: {spec: {template: {spec: {$spec, restartPolicy: Never, containers: [{name: one, image: IMAGE, command: [echo, by hand]}]}}}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  strategy: {rollingUpdate: {maxUnavailable: 0, maxSurge: 1}}
  template:
    metadata: {labels: {app: web}}
    spec:
      runtimeClassName: CLASS
      terminationGracePeriodSeconds: 10
      containers: [{name: one, image: IMAGE, env: [{name: RELEASE, value: "1"}], command: [sh, -c, "mkdir /www; echo release \$RELEASE >/www/index.html; trap 'exit 0' TERM; httpd -h /www -p 80; while :; do sleep 0.1; done"], readinessProbe: {httpGet: {port: 80}, periodSeconds: 1}, lifecycle: {preStop: {sleep: {seconds: 5}}}}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: set}
spec: {replicas: 2, serviceName: set, selector: {matchLabels: {app: set}}, template: {metadata: {labels: {app: set}}, spec: {$spec, containers: [{name: one, image: IMAGE, command: [sleep, "1000"]}]}}}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: each}
spec: {selector: {matchLabels: {app: each}}, template: {metadata: {labels: {app: each}}, spec: {$spec, containers: [{name: one, image: IMAGE, command: [sleep, "1000"]}]}}}
X
k create job --from=cronjob/cron by-hand >/dev/null
k wait --for=condition=Complete --timeout=300s job/three job/by-hand >/dev/null
k logs -l job-name=three --tail=-1 | sort
k logs job/by-hand
k wait --for=condition=Failed --timeout=300s job/fails job/late >/dev/null
get job/fails '{.status.failed} {.status.conditions[?(@.type=="Failed")].reason}'
get job/late '{.status.conditions[?(@.type=="Failed")].reason}'
k rollout status deployment/web --timeout=300s | tail -1
address=$(get service/web '{.spec.clusterIP}')
until_ok 240 curl -sSf -m 2 "http://$address/"
# An update, under requests, none of which may fail.
(while [[ ! -e stop ]]; do curl -sS -m 3 "http://$address/" >>answers 2>&1 || echo failed >>answers; sleep 0.1; done) & asking=$!
k set env deployment/web RELEASE=2 >/dev/null
k rollout status deployment/web --timeout=300s | tail -1
sleep 1; touch stop; wait $asking
sort -u answers
k rollout undo deployment/web >/dev/null
k rollout status deployment/web --timeout=300s | tail -1
until_ok 240 bash -c "curl -sS http://$address/ | grep 'release 1'"
k scale deployment/web --replicas=1 >/dev/null
until_get deployment/web '{.status.replicas}' '^1$'
k rollout status statefulset/set --timeout=300s | tail -1
k get pods -l app=set -o 'jsonpath={range .items[*]}{.metadata.name} {end}'
k rollout status daemonset/each --timeout=300s | tail -1
k delete deployment/web statefulset/set daemonset/each --wait=false >/dev/null
