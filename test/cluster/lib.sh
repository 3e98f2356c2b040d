# Sourced by the cases. A case is run once for each runtime class, with $class and with $ns, a namespace of its own; what it prints must
# be the same for both (the words runc and glassbox aside), and it must end with 0.
set -euo pipefail
cd "$(mktemp -d -p "$WORK")"
image=127.0.0.1:5000/busybox:nocmd

k() { kubectl -n "$ns" "$@"; }

# pod NAME [LABEL: VALUE...] - makes a pod of the specification in the input. IMAGE there is the image.
pod() {
	{
		printf 'apiVersion: v1\nkind: Pod\nmetadata: {name: %s, labels: {app: %s}}\nspec:\n' "$1" "$1"
		printf '  runtimeClassName: %s\n  terminationGracePeriodSeconds: %s\n' "$class" "${grace:-1}"
		sed "s,IMAGE,$image,g; s/^/  /"
	} | k apply -f - >/dev/null
}

# objects - makes what the input describes. CLASS there is the runtime class.
objects() { sed "s,IMAGE,$image,g; s,CLASS,$class,g" | k apply -f - >/dev/null; }

ready() { k wait --for=condition=Ready --timeout=300s "${@/#/pod/}" >/dev/null; }

# phase POD PHASE
phase() { k wait --for="jsonpath={.status.phase}=$2" --timeout=300s "pod/$1" >/dev/null; }

# get OBJECT JSONPATH
get() { k get "$1" -o "jsonpath=$2" && echo; }

# run POD [-c CONTAINER] COMMAND - what a shell in the pod says, in one stream, with its exit code if that isn't 0.
run() {
	local pod=$1 flags=()
	shift
	if [[ $1 == -c ]]; then
		flags=(-c "$2")
		shift 2
	fi
	k exec "$pod" "${flags[@]}" -- sh -c "exec 2>&1; $1" 2>/dev/null || echo "exit code $?"
}

# until_ok SECONDS COMMAND...
until_ok() {
	local end=$((SECONDS + $1))
	shift
	until "$@" >/dev/null 2>&1; do
		if ((SECONDS > end)); then
			echo "never: $*" >&2
			"$@"
			return 1
		fi
		sleep 0.5
	done
}

# until_get OBJECT JSONPATH REGEXP
until_get() { until_ok "${4:-240}" bash -c "kubectl -n $ns get $1 -o 'jsonpath=$2' | grep -qE '$3'"; }

# event POD REGEXP - waits for an event with such a message.
event() { until_ok 240 bash -c "kubectl -n $ns get events --field-selector involvedObject.name=$1 -o jsonpath='{range .items[*]}{.reason}: {.message}{\"\\n\"}{end}' | grep -qE '$2'"; }
