# exec, attach, logs, cp and port-forward.
pod one <<X
restartPolicy: OnFailure
containers:
- name: one
  image: IMAGE
  command: [sh, -c, "echo to stdout; echo to stderr >&2; mkdir /www; echo served >/www/index.html; httpd -h /www -p 8080; if [ ! -e /keep/x ]; then touch /keep/x; exit 4; fi; exec sleep 1000"]
  volumeMounts: [{name: keep, mountPath: /keep}]
- {name: cat, image: IMAGE, stdin: true, command: [sh, -c, 'while read line; do echo "got \$line"; done; sleep 1000']}
- {name: tty, image: IMAGE, stdin: true, tty: true, command: [sh]}
volumes: [{name: keep, emptyDir: {}}]
X
until_get pod/one '{.status.containerStatuses[?(@.name=="one")].restartCount}' 1
ready one
k logs one -c one | sort
echo previous:
k logs one -c one --previous | sort
k logs one -c one --tail=1 --timestamps | grep -cE '^[0-9]{4}-[0-9-]+T'
k exec one -c one -- sh -c 'echo out; echo err >&2; exit 7' 2>errors || echo "code $?"
grep -v 'command terminated' errors
echo piped | k exec -i one -c one -- cat
head -c 3000000 /dev/zero | k exec -i one -c one -- wc -c
k exec one -c one -- head -c 3000000 /dev/zero | wc -c
# terminal COMMAND - what it says on a terminal of 33 rows and 111 columns.
terminal() { script -qec "stty rows 33 cols 111; $1" /dev/null < <(sleep 30) | tr -d '\r'; }
terminal "kubectl -n $ns exec -it one -c one -- sh -c 'tty; echo in a terminal; test -t 0 && test -t 2 && sleep 1 && stty size'"
{ k exec one -c one -- /no/such/program 2>&1 || :; } | grep -oE 'no such file or directory|exit code [0-9]+' | sort -u
{ k exec one -c one -- /etc 2>&1 || :; } | grep -oE 'permission denied|is a directory' | tail -1
k exec one -c one -- sh -c 'kill -9 $$' || echo "killed: $?"
# A command that stays behind doesn't hold the call.
timeout 20 kubectl -n "$ns" exec one -c one -- sh -c 'sleep 1000 >/dev/null 2>&1 & echo left'
head -1 < <(echo attached | timeout 60 kubectl -n "$ns" attach -q -i one -c cat 2>/dev/null) # it doesn't end by itself
until_ok 240 bash -c "kubectl -n $ns logs one -c cat | grep 'got attached'"
script -qec "stty rows 22 cols 99; kubectl -n $ns attach -q -it one -c tty" /dev/null < <(sleep 5; echo 'stty size; echo ty""ped; tty; exit'; sleep 20) >typescript 2>&1
tr -d '\r' <typescript | grep -E '^(typed|22 99|/dev/)' || :
# Files there and back, with their kinds and modes.
mkdir -p tree/sub && echo text >tree/sub/file && chmod 750 tree/sub/file && ln -s sub/file tree/link
head -c 2000000 /dev/urandom >tree/big
k cp tree one:/tmp/tree -c one >/dev/null
run one -c one 'cd /tmp/tree; find . | sort; stat -c "%a %n" sub/file; cat sub/file'
k cp one:/tmp/tree back -c one >/dev/null 2>&1
cmp tree/big back/big && echo the same
k port-forward pod/one :8080 >forward 2>&1 & forward=$!
until_ok 240 grep -q Forwarding forward
port=$(sed -nE '1s/.*:([0-9]+) ->.*/\1/p' forward)
curl -sS "http://127.0.0.1:$port/"
kill $forward
