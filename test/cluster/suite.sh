#!/bin/bash
# Kubernetes' own specifications for nodes, in the cluster and with its default class: suite.sh [FOCUS], a regular expression. Those marked
# NodeConformance are run but for the ones that want the node for themselves or the network of a whole cluster. The result goes to $WORK/suite.
set -euo pipefail
ctr -n k8s.io images import --base-name suite.test/image "$CLUSTER/suite.tar" >/dev/null
# The names are the suite's, and what is in them is our own: see suite-images.sh.
while read -r name; do
	case $name in
	*/agnhost:* | */nonewprivs:* | */nonroot:* | */nginx:*) kind=${name##*/} kind=${kind%:*} ;;
	*/busybox:* | */kitten:* | */glibc-dns-testing:*) kind=busybox ;;
	*/pause:*)
		ctr -n k8s.io images tag --force cluster.test/pause:1 "$name" >/dev/null
		continue
		;;
	*) continue ;;
	esac
	ctr -n k8s.io images tag --force "suite.test/image:$kind" "$name" >/dev/null
done < <(e2e.test --list-images 2>/dev/null)
mkdir -p "$WORK/suite"
ginkgo --procs "${PROCS:-4}" --keep-going --no-color --silence-skips --json-report suite.json --output-dir "$WORK/suite" \
	--focus "${1:-\\[NodeConformance\\]}" --skip '\[Serial\]|\[Slow\]|\[Disruptive\]|\[Flaky\]|\[sig-network\]' \
	"$(command -v e2e.test)" -- --provider skeleton --kubeconfig "$KUBECONFIG" --num-nodes 1 --report-dir "$WORK/suite" \
	--dump-logs-on-failure=false --disable-log-dump >"$WORK/suite/log" 2>&1 || :
jq -r '.[].SpecReports[] | select(.LeafNodeType == "It" and .State != "skipped") | .State + " " + (.ContainerHierarchyTexts | join(" ")) + " " + .LeafNodeText' \
	"$WORK/suite/suite.json" | sort >"$WORK/suite/said"
grep -v '^passed' "$WORK/suite/said" || :
echo "$(grep -c '^passed' "$WORK/suite/said") of $(wc -l <"$WORK/suite/said") pass"
