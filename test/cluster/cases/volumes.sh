# Volumes: empty ones on disk and in memory, files of the cluster, parts, host directories, propagation, images.
mkdir -p "/run/host-$ns/sub"; echo of the host >"/run/host-$ns/file"
objects <<X
apiVersion: v1
kind: ConfigMap
metadata: {name: config}
data: {color: blue, "app.conf": "key = value\n"}
---
apiVersion: v1
kind: Secret
metadata: {name: secret}
stringData: {password: open sesame}
X
pod one <<X
securityContext: {fsGroup: 2345}
volumes:
- {name: disk, emptyDir: {}}
- {name: memory, emptyDir: {medium: Memory, sizeLimit: 8Mi}}
- {name: config, configMap: {name: config, defaultMode: 0440}}
- {name: secret, secret: {secretName: secret, items: [{key: password, path: deep/er/password, mode: 0400}]}}
- {name: about, downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}, {path: cpu, resourceFieldRef: {containerName: one, resource: limits.cpu, divisor: 1m}}]}}
- {name: all, projected: {sources: [{configMap: {name: config}}, {secret: {name: secret}}, {serviceAccountToken: {path: token, expirationSeconds: 3600}}]}}
- {name: host, hostPath: {path: /run/host-$ns, type: Directory}}
- {name: made, hostPath: {path: /run/made-$ns/new, type: DirectoryOrCreate}}
- {name: file, hostPath: {path: /run/host-$ns/file, type: File}}
- {name: device, hostPath: {path: /dev/full, type: CharDevice}}
- {name: picture, image: {reference: IMAGE}}
containers:
- name: one
  image: IMAGE
  command: [sleep, "1000"]
  resources: {limits: {cpu: 250m, memory: 64Mi}}
  env:
  - {name: COLOR, valueFrom: {configMapKeyRef: {name: config, key: color}}}
  - {name: PASSWORD, valueFrom: {secretKeyRef: {name: secret, key: password}}}
  - {name: NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
  - {name: MEMORY, valueFrom: {resourceFieldRef: {resource: limits.memory}}}
  envFrom: [{prefix: C_, configMapRef: {name: config}}]
  volumeMounts:
  - {name: disk, mountPath: /disk}
  - {name: disk, mountPath: /part, subPath: a/b}
  - {name: disk, mountPath: /expanded, subPathExpr: \$(NAME)}
  - {name: memory, mountPath: /memory}
  - {name: config, mountPath: /config}
  - {name: config, mountPath: /etc/app.conf, subPath: app.conf}
  - {name: secret, mountPath: /secret, readOnly: true}
  - {name: about, mountPath: /about}
  - {name: all, mountPath: /all}
  - {name: host, mountPath: /host, readOnly: true, mountPropagation: HostToContainer}
  - {name: host, mountPath: /strict, readOnly: true, recursiveReadOnly: IfPossible}
  - {name: made, mountPath: /made}
  - {name: file, mountPath: /home/app/mine}
  - {name: device, mountPath: /dev/filled}
  - {name: picture, mountPath: /picture}
X
ready one
run one 'ls -ldn /disk /memory /part /expanded /made | cut -c1-40 | sed "s/ [0-9]* *$//" ; stat -c "%a %u:%g" /disk /memory /part /config /secret/deep/er/password /config/color'
run one 'grep -E " /(memory|disk|part|config|etc/app.conf|secret|about|host|strict|made|home/app/mine|picture|dev/shm|dev/mqueue|etc/hosts|etc/resolv.conf|etc/hostname|dev/termination-log|var/run/secrets/kubernetes.io/serviceaccount) " /proc/self/mountinfo | sed -E "s/^[0-9]+ [0-9]+ [0-9]+:[0-9]+ [^ ]+ //; s/(shared|master|propagate_from):[0-9]+/\1/g; s/ - .*//"'
run one 'df -k /memory /dev/shm | awk "{print \$2}"; echo x >/memory/x && cat /memory/x; head -c 9000000 /dev/zero >/memory/big; rm -f /memory/big'
echo programs in /dev/shm:
run one 'cp /bin/busybox /dev/shm/echo && /dev/shm/echo runs; cp /bin/busybox /memory/echo && /memory/echo too'
run one 'cat /config/color /config/app.conf /etc/app.conf /secret/deep/er/password; echo; cat /about/labels; echo; cat /about/cpu; echo; ls -A /all | grep -v "^\.\."; wc -c </all/token | grep -cE "^[0-9]{3,}"'
run one 'echo "$COLOR $PASSWORD $NAME $MEMORY $C_color"; cat /host/file /home/app/mine; echo y >/host/y; echo y >/strict/y; echo y >/made/y; echo y >/dev/filled; ls /picture | tr "\n" " "; echo z >/picture/z'
run one 'touch /part/here /expanded/there; find /disk | sort'
run one 'cat /var/run/secrets/kubernetes.io/serviceaccount/namespace | wc -w; ls /var/run/secrets/kubernetes.io/serviceaccount'
# What is mounted later, at the host, in the pod and by the pod.
mount -t tmpfs later "/run/host-$ns/sub" && touch "/run/host-$ns/sub/late"
run one 'ls /host/sub; echo w >/host/sub/w; echo w >/strict/sub/w'
pod mounter <<X
volumes: [{name: host, hostPath: {path: /run/host-$ns}}]
containers:
- {name: one, image: IMAGE, command: [sleep, "1000"], securityContext: {privileged: true}, volumeMounts: [{name: host, mountPath: /host, mountPropagation: Bidirectional}]}
X
ready mounter
run mounter 'mkdir -p /host/of-pod; mount -t tmpfs pod /host/of-pod; touch /host/of-pod/seen'
ls "/run/host-$ns/of-pod"
umount "/run/host-$ns/of-pod" "/run/host-$ns/sub"
k delete pod mounter --now >/dev/null 2>&1
# A changed configuration arrives.
k patch configmap config --patch '{"data": {"color": "green"}}' >/dev/null
until_ok 240 bash -c "kubectl -n $ns exec one -- grep green /config/color"
pod nofile <<X
volumes: [{name: x, hostPath: {path: /run/no-such, type: Directory}}]
containers: [{name: one, image: IMAGE, volumeMounts: [{name: x, mountPath: /x}]}]
X
event nofile 'hostPath type check failed: /run/no-such is not a directory'
rm -rf "/run/host-$ns" "/run/made-$ns"
