# Services: an address of the cluster, a port of the node, a headless one, and the way of a pod to itself.
# ask ADDRESS:PORT - a command that prints the page there. Debian's static wget ends with a segmentation fault in a container.
ask() { printf '/t/echoclient tcp %s "$(printf "GET / HTTP/1.0\\r\\n\\r\\n")" | tail -1' "$1"; }
for n in 1 2; do
	pod web$n <<X
containers: [{name: one, image: IMAGE, command: [sh, -c, "mkdir /www; echo web$n >/www/index.html; exec httpd -f -h /www -p 8080"], ports: [{name: http, containerPort: 8080}], readinessProbe: {tcpSocket: {port: http}, periodSeconds: 1}}]
X
	k label pod web$n role=web >/dev/null
done
objects <<X
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: NodePort, selector: {role: web}, ports: [{port: 80, targetPort: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: headless}
spec: {clusterIP: None, selector: {role: web}, ports: [{port: 8080}]}
X
ready web1 web2
until_get endpointslices '{range .items[*].endpoints[*]}{.conditions.ready}{end}' truetruetruetrue
pod client <<X
containers: [{name: one, image: IMAGE, command: [sleep, "1000"]}]
X
ready client
address=$(get service/web '{.spec.clusterIP}') port=$(get service/web '{.spec.ports[0].nodePort}')
run client "env | grep -E '^WEB_SERVICE_(HOST|PORT)=' | sed 's/HOST=.*/HOST/'"
run client "for i in \$(seq 30); do $(ask "$address:80"); done | sort -u"
run web1 "for i in \$(seq 30); do $(ask "$address:80"); done | sort -u"
for _ in $(seq 30); do curl -sS -m 3 "http://198.51.100.1:$port/"; done | sort -u
run client "$(ask "$(get pod/web2 '{.status.podIP}'):8080")"
k delete pod web2 --now >/dev/null 2>&1
until_get endpointslices '{range .items[*].endpoints[*]}{.conditions.ready}{end}' '^truetrue$'
sleep 1
run client "for i in \$(seq 30); do $(ask "$address:80"); done | sort -u"
