#!/bin/bash
# Starts a Kubernetes node inside a test's machine: start.sh, with the programs in PATH, the cluster's files in $WORK and in $GLASSBOX
# and $RUNC what the two runtime classes call. Each daemon logs to $WORK/log.
set -euo pipefail
pki=$WORK/pki conf=$WORK/conf here=$(dirname "$0")
mkdir -p "$pki" "$conf/cni" "$conf/registries/127.0.0.1:5000" "$WORK"/{log,lib,varlog,manifests}

# What programs keep on a disk is the machine's own.
mount --bind "$WORK/lib" /var/lib
mount --bind "$WORK/varlog" /var/log
mkdir -p /var/lib/kubelet /var/log/pods
# A kubelet sets the kernel up for itself. These files take what it writes.
for setting in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops kernel/keys/root_maxkeys kernel/keys/root_maxbytes; do
	file=$WORK/conf/${setting//\//_}
	cat "/proc/sys/$setting" >"$file"
	mount --bind "$file" "/proc/sys/$setting"
done
# User namespaces may mount a procfs only where one is in sight that has nothing over it (mount_too_revealing).
mkdir /run/proc
mount -t proc proc /run/proc
sysctl -qw net.ipv4.ip_forward=1

cert() { # NAME SUBJECT [SAN]
	openssl ecparam -name prime256v1 -genkey -noout -out "$pki/$1.key"
	openssl req -new -key "$pki/$1.key" -subj "$2" -out "$pki/$1.csr"
	openssl x509 -req -in "$pki/$1.csr" -CA "$pki/ca.crt" -CAkey "$pki/ca.key" -CAcreateserial -days 2 -out "$pki/$1.crt" \
		-extfile <(echo "${3:+subjectAltName=$3}") 2>/dev/null
	cat >"$pki/$1.conf" <<-X
		apiVersion: v1
		kind: Config
		clusters: [{name: c, cluster: {server: "https://127.0.0.1:6443", certificate-authority: $pki/ca.crt}}]
		users: [{name: u, user: {client-certificate: $pki/$1.crt, client-key: $pki/$1.key}}]
		contexts: [{name: x, context: {cluster: c, user: u}}]
		current-context: x
	X
}
node=198.51.100.1
openssl ecparam -name prime256v1 -genkey -noout -out "$pki/ca.key"
openssl req -x509 -new -key "$pki/ca.key" -days 2 -subj /CN=ca -out "$pki/ca.crt"
openssl ecparam -name prime256v1 -genkey -noout -out "$pki/accounts.key"
openssl ec -in "$pki/accounts.key" -pubout -out "$pki/accounts.pub" 2>/dev/null
cert apiserver /CN=kube-apiserver "IP:127.0.0.1,IP:$node,IP:10.96.0.1,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc"
cert admin /O=system:masters/CN=admin
cert controller-manager /CN=system:kube-controller-manager
cert scheduler /CN=system:kube-scheduler
cert node /O=system:nodes/CN=system:node:node
cert proxy /CN=system:kube-proxy

cat >"$conf/cni/10-pods.conflist" <<X
{"cniVersion": "1.0.0", "name": "pods", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true, "ipam": {"type": "host-local",
    "ranges": [[{"subnet": "10.244.0.0/22"}]], "routes": [{"dst": "0.0.0.0/0"}], "dataDir": "/run/ipam"}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
X
cat >"$conf/registries/127.0.0.1:5000/hosts.toml" <<X
server = "http://127.0.0.1:5000"
[host."http://127.0.0.1:5000"]
  capabilities = ["pull", "resolve"]
X
cat >"$conf/containerd.toml" <<X
version = 3
[grpc]
  address = "/run/c.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "/var/lib/opt"
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "cluster.test/pause:1"
[plugins."io.containerd.cri.v1.images".registry]
  config_path = "$conf/registries"
[plugins."io.containerd.cri.v1.runtime"]
  disable_apparmor = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["/usr/lib/cni"]
    conf_dir = "$conf/cni"
  [plugins."io.containerd.cri.v1.runtime".containerd]
    default_runtime_name = "${SUITE:-runc}"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
        BinaryName = "$RUNC"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.glassbox]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.glassbox.options]
        BinaryName = "$GLASSBOX"
X
: >"$conf/resolv.conf"
cat >"$conf/kubelet.yaml" <<X
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $pki/ca.crt}}
authorization: {mode: Webhook}
containerRuntimeEndpoint: unix:///run/c.sock
staticPodPath: $WORK/manifests
fileCheckFrequency: 2s
syncFrequency: 10s
resolvConf: $conf/resolv.conf
cgroupDriver: cgroupfs
failCgroupV1: false
failSwapOn: false
maxPods: 250
enforceNodeAllocatable: [pods]
evictionHard: {memory.available: 10Mi}
imageGCHighThresholdPercent: 100
volumePluginDir: /var/lib/kubelet/plugins
allowedUnsafeSysctls: ["net.core.somaxconn"$([[ ${SUITE:-} ]] || echo ', "kernel.msg*"')]
X
cat >"$conf/proxy.yaml" <<X
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: {kubeconfig: $pki/proxy.conf}
mode: nftables
clusterCIDR: 10.244.0.0/22
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
X

until_ok() { # SECONDS COMMAND...
	local end=$((SECONDS + $1))
	shift
	until "$@" >/dev/null 2>&1; do
		((SECONDS < end)) || { "$@"; return; }
		sleep 0.3
	done
}
for name in etcd apiserver; do "$here/daemon.sh" $name; done
until_ok 180 kubectl get --raw /readyz
for name in controller-manager scheduler containerd; do "$here/daemon.sh" $name; done
until_ok 60 ctr version
ctr -n k8s.io images import --base-name cluster.test/pause "$CLUSTER/pause.tar" >/dev/null
for name in kubelet proxy; do "$here/daemon.sh" $name; done
kubectl apply -f - <<X
apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata: {name: runc}
handler: runc
---
apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata: {name: glassbox}
handler: glassbox
---
apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata: {name: runc-overhead}
handler: runc
overhead: {podFixed: {memory: 24Mi, cpu: 50m}}
---
apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata: {name: glassbox-overhead}
handler: glassbox
overhead: {podFixed: {memory: 24Mi, cpu: 50m}}
X
until_ok 60 kubectl get node node
kubectl wait --for=condition=Ready node/node --timeout=120s
