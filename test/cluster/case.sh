#!/bin/bash
# case.sh FILE CLASS - runs a case with one of the two runtime classes.
# shellcheck source=/dev/null
cluster=$(dirname "$0") class=$2 ns=$2-$(basename "$1" .sh)
export ns class cluster
. "$cluster/lib.sh"
kubectl create namespace "$ns" >/dev/null
until_ok 30 kubectl -n "$ns" get serviceaccount default
. "$1"
kubectl delete namespace "$ns" --wait=false >/dev/null
