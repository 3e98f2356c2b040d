# What can't be started, and how it is told.
pod nocommand <<X
containers: [{name: one, image: IMAGE, command: [no-such-program]}]
X
pod noexec <<X
containers: [{name: one, image: IMAGE, command: [/etc/passwd]}]
X
pod isdir <<X
containers: [{name: one, image: IMAGE, command: [/etc]}]
X
pod workdir <<X
containers: [{name: one, image: IMAGE, workingDir: /made/on/demand, command: [sh, -c, "pwd; sleep 1000"]}]
X
pod workfile <<X
containers: [{name: one, image: IMAGE, workingDir: /etc/passwd, command: [pwd]}]
X
pod noimage <<X
containers: [{name: one, image: "127.0.0.1:5000/nothing:1"}]
X
pod baduser <<X
containers: [{name: one, image: "127.0.0.1:5000/busybox:baduser"}]
X
pod overfile <<X
volumes: [{name: v, emptyDir: {}}]
containers: [{name: one, image: IMAGE, command: [sleep, "1000"], volumeMounts: [{name: v, mountPath: /etc/passwd}]}]
X
pod noconfig <<X
containers: [{name: one, image: IMAGE, envFrom: [{configMapRef: {name: none}}]}]
X
pod noprofile <<X
containers: [{name: one, image: IMAGE, command: [sleep, "1000"], securityContext: {seccompProfile: {type: Localhost, localhostProfile: none.json}}}]
X
pod badsysctl <<X
securityContext: {sysctls: [{name: net.core.somaxconn, value: "many"}]}
containers: [{name: one, image: IMAGE, command: [sleep, "1000"]}]
X
for pod in nocommand noexec isdir workfile overfile; do
	until_get pod/$pod '{.status.containerStatuses[0].lastState.terminated.reason}' Error
	echo $pod "$(get pod/$pod '{.status.containerStatuses[0].lastState.terminated.exitCode} {.status.containerStatuses[0].lastState.terminated.reason}')"
	# The words are each runtime's own; what they come to isn't.
	get pod/$pod '{.status.containerStatuses[0].lastState.terminated.message}' | grep -oE 'permission denied|not a directory|is a directory|executable file not found in .PATH|a file can be mounted on a file only' | tail -1 | sed 's/a file can be.*/not a directory/'
done
ready workdir
k logs workdir
for pod in noimage baduser noconfig noprofile; do
	until_get pod/$pod '{.status.containerStatuses[0].state.waiting.reason}' '..'
	echo $pod "$(get pod/$pod '{.status.containerStatuses[0].state.waiting.reason}' | sed 's/ImagePullBackOff/ErrImagePull/')"
done
event badsysctl 'FailedCreatePodSandBox: .*(somaxconn).*[iI]nvalid argument'
k delete pods --all --now --wait=false >/dev/null 2>&1
