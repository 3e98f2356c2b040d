#!/bin/bash
# daemon.sh NAME - starts one program of the cluster; its number goes to $WORK/run/NAME.
set -euo pipefail
pki=$WORK/pki conf=$WORK/conf
case $1 in
etcd)
	set -- etcd etcd --data-dir /var/lib/etcd --unsafe-no-fsync --log-level warn --listen-client-urls http://127.0.0.1:2379 \
		--advertise-client-urls http://127.0.0.1:2379 --listen-peer-urls http://127.0.0.1:2380
	;;
apiserver)
	set -- apiserver kube-apiserver --etcd-servers http://127.0.0.1:2379 --advertise-address 198.51.100.1 --allow-privileged \
		--service-cluster-ip-range 10.96.0.0/16 --tls-cert-file "$pki/apiserver.crt" --tls-private-key-file "$pki/apiserver.key" \
		--client-ca-file "$pki/ca.crt" --service-account-key-file "$pki/accounts.pub" --service-account-signing-key-file "$pki/accounts.key" \
		--service-account-issuer https://kubernetes.default.svc --authorization-mode Node,RBAC --enable-admission-plugins NodeRestriction \
		--kubelet-client-certificate "$pki/admin.crt" --kubelet-client-key "$pki/admin.key" --kubelet-preferred-address-types InternalIP
	;;
controller-manager)
	set -- "$1" kube-controller-manager --kubeconfig "$pki/$1.conf" --authentication-kubeconfig "$pki/$1.conf" --leader-elect=false \
		--authorization-kubeconfig "$pki/$1.conf" --service-account-private-key-file "$pki/accounts.key" --root-ca-file "$pki/ca.crt" \
		--use-service-account-credentials
	;;
scheduler)
	set -- "$1" kube-scheduler --kubeconfig "$pki/$1.conf" --authentication-kubeconfig "$pki/$1.conf" --leader-elect=false \
		--authorization-kubeconfig "$pki/$1.conf"
	;;
containerd) set -- "$1" containerd --log-level info --config "$conf/containerd.toml" ;;
kubelet)
	set -- "$1" kubelet --config "$conf/kubelet.yaml" --kubeconfig "$pki/node.conf" --cert-dir /var/lib/kubelet/pki \
		--hostname-override node --node-ip 198.51.100.1 --v 2
	;;
proxy) set -- "$1" kube-proxy --config "$conf/proxy.yaml" --hostname-override node ;;
esac
mkdir -p "$WORK/run"
name=$1
shift
setsid "$@" >>"$WORK/log/$name" 2>&1 </dev/null &
echo $! >"$WORK/run/$name"
