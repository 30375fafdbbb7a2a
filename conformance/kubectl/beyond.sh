#!/usr/bin/env bash
# What people do with kubectl beyond the recorded stories: beyond.sh KUBECTL KUBECONFIG. Closes with a count, fails where something does.
set -uo pipefail
cd "$(dirname "$0")/../.."
kubectl=$1
export KUBECONFIG=$2
passed=0 failed=0

# check NAME PATTERN COMMAND...: what the command says matches.
check() {
    local name=$1 pattern=$2 said; shift 2
    if said=$("$@" 2>&1) && grep -qE -- "$pattern" <<<"$said"; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        printf 'FAILED %s: wanted /%s/ of: %s\n%s\n' "$name" "$pattern" "$*" "$said"
    fi
}

# says PATTERN COMMAND...: an endless command says a line that matches; then it is ended.
says() {
    local pattern=$1; shift
    grep -m1 -E -- "$pattern" < <(exec timeout 30 "$@" 2>/dev/null)
}

k() { "$kubectl" "$@"; }

check "apply" 'statefulset.apps/first created' k apply -f examples/first.yaml
check "rollout status" 'statefulset rolling update complete|3 pods at revision|partitioned roll out complete' k rollout status statefulset/first --timeout=30s
check "describe a set" 'SuccessfulCreate .*[Cc]reate Pod first-2' k describe statefulset first
check "describe a pod" 'Normal +Started' k describe pod first-0
check "describe a claim" 'Status: +Bound' k describe pvc data-first-0
check "logs" 'first-0 is ready' k logs first-0
check "logs -f" 'first-1 found its neighbour' says 'found its neighbour' "$kubectl" logs -f first-1
check "exec" 'start of first-2' k exec first-2 -- cat /data/ledger
check "exec with input" '^hello$' bash -c "echo hello | '$kubectl' exec -i first-0 -- cat"
check "exec ends with the program's code" '^7$' bash -c "'$kubectl' exec first-0 -- sh -c 'exit 7' 2>/dev/null; echo \$?"
check "get -w sees a pod go" 'first-2 .*Terminating' bash -c "(sleep 0.2; '$kubectl' delete pod first-2 --wait=false >/dev/null) & grep -m1 Terminating < <(exec timeout 30 '$kubectl' get pods -w 2>/dev/null)"
check "the pod comes back" 'rolling update complete|3 pods at revision|partitioned roll out complete' k rollout status statefulset/first --timeout=30s
check "wait" 'condition met' k wait --for=condition=Ready pod/first-2 --timeout=30s
check "on the same claim" '^2$' k exec first-2 -- sh -c 'wc -l < /data/ledger'
check "get all" 'statefulset.apps/first +3/3' k get all
check "events" 'SuccessfulCreate' k get events
check "explain" 'podManagementPolicy' k explain statefulset.spec
check "scale down in order" 'scaled' k scale statefulset first --replicas 1
check "the highest ordinal goes" 'condition met|^$' k wait --for=delete pod/first-1 --timeout=30s
check "delete" 'deleted' k delete -f examples/first.yaml
check "the pods are collected" '^$' bash -c "'$kubectl' wait --for=delete pod/first-0 --timeout=30s >/dev/null 2>&1; '$kubectl' get pods -l app=first -o name"
check "the claims stay" 'data-first-2' k get pvc
check "until they are deleted" 'deleted' k delete pvc data-first-0 data-first-1 data-first-2
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
