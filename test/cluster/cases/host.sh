# Namespaces shared with the host and between containers; names and ports.
pod net <<X
hostNetwork: true
containers: [{name: one, image: IMAGE, command: [sleep, "1000"]}]
X
pod pids <<X
hostPID: true
hostIPC: true
containers: [{name: one, image: IMAGE, command: [sleep, "1000"]}]
X
pod shared <<X
shareProcessNamespace: true
containers:
- {name: one, image: IMAGE, command: [sh, -c, "sleep 1 & exec sleep 1111"]}
- {name: two, image: IMAGE, command: [sleep, "2222"], securityContext: {runAsUser: 1000}}
X
pod port <<X
hostname: named
subdomain: sub
hostAliases: [{ip: 10.1.2.3, hostnames: [alias.test, other]}]
dnsPolicy: None
dnsConfig: {nameservers: [198.51.100.2], searches: [a.test, b.test], options: [{name: ndots, value: "3"}]}
containers: [{name: one, image: IMAGE, command: [sh, -c, "mkdir /www; echo by its port >/www/index.html; exec httpd -f -h /www -p 80"], ports: [{containerPort: 80, hostPort: $([[ $class == runc ]] && echo 18080 || echo 18081)}]}]
X
pod fqdn <<X
hostname: named
subdomain: sub
setHostnameAsFQDN: true
containers: [{name: one, image: IMAGE, command: [sleep, "1000"]}]
X
ready net pids shared port fqdn
run net 'hostname; ip -o addr show eth0 | grep -o "inet [0-9./]*"; cat /etc/hosts | wc -l; cat /proc/sys/net/ipv4/ip_forward'
[[ $(run net 'readlink /proc/self/ns/net') == "$(readlink /proc/self/ns/net)" ]] && echo the network of the host
run pids 'ps -o pid,args | grep -cE "kubele[t]|containerd .*confi[g]"; ls -d /proc/1/root; cat /proc/1/comm; ps | wc -l | grep -cE "[1-9]."'
for kind in ipc pid; do
	[[ $(run pids "readlink /proc/self/ns/$kind") == "$(readlink "/proc/self/ns/$kind")" ]] && echo "the $kind of the host"
done
sleep 2
run shared -c one 'ps -o pid,user,args | grep -vE " (ps|sed|sort|grep) " | sort -k3 | sed "s/^ *[0-9]* //"; cat /proc/1/comm; ls -d /proc/1/root/ 2>&1'
run shared -c two 'kill $(pidof sleep) 2>&1; kill -0 1 2>&1' | sed 's/pid [0-9]*/pid N/'
two='$(ps -o pid,args | grep "[s]leep 2222" | sed "s/^ *//; s/ .*//")'
until_get pod/shared '{.status.containerStatuses[?(@.name=="two")].restartCount}' 1 # its own process it may kill
run shared -c one "ls /proc/$two/root/ | head -3; kill $two" | sed 's,/proc/[0-9]*/,/proc/N/,'
until_get pod/shared '{.status.containerStatuses[?(@.name=="two")].restartCount}' 2
run port 'hostname; hostname -f; grep -v "^#" /etc/hosts | sed "s/10\.244[0-9.]*/IP/"; cat /etc/resolv.conf'
curl -sS "http://198.51.100.1:$([[ $class == runc ]] && echo 18080 || echo 18081)/"
run fqdn 'hostname'
run fqdn 'ip -o link | cut -d: -f2 | cut -d@ -f1; ip route | sed "s/10\.244[0-9.]*/IP/g"; cat /proc/sys/net/ipv6/conf/eth0/accept_ra'
