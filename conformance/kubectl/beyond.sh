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

# A pod that reads, speaks on both outputs, is restarted once, and answers on its own localhost alone.
cat >"${TMPDIR:-/tmp}/beyond-$$.yaml" <<'END'
apiVersion: v1
kind: Pod
metadata: {name: streams}
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - name: main
      image: stead.dev/host
      stdin: true
      command: [/bin/sh, -c, "echo up; while read line; do echo heard $line; [ $line = die ] && exit 3; done; sleep 3600"]
    - name: echo
      image: stead.dev/host
      command: [python3, -c, "import socketserver\nclass E(socketserver.StreamRequestHandler):\n    def handle(self):\n        for line in self.rfile: self.wfile.write(line)\nclass S(socketserver.ThreadingTCPServer): allow_reuse_address = True\nserver = S(('127.0.0.1', 7000), E)\nprint('listening', flush=True)\nserver.serve_forever()"]
END
scratch=$(mktemp -d)
trap 'rm -rf "$scratch" "${TMPDIR:-/tmp}/beyond-$$.yaml"' EXIT

# forwarded: a line through a forwarded port comes back, also behind the end of what is sent.
forwarded() {
    local port said
    coproc FORWARD { exec "$kubectl" port-forward pod/streams :7000 2>"$scratch/forward"; }
    read -r -t 30 said <&"${FORWARD[0]}"
    port=$(sed -E 's/.*127.0.0.1:([0-9]+) .*/\1/' <<<"$said")
    python3 -c "
import socket, sys
s = socket.create_connection(('127.0.0.1', int(sys.argv[1])))
s.sendall(b'through the port\n'); s.shutdown(socket.SHUT_WR)
print(s.makefile().read())" "$port"
    kill "$FORWARD_PID"
    wait "$FORWARD_PID" 2>/dev/null
    return 0
}

# joined LINE: what an attached container says to a line.
joined() {
    (echo "$1"; sleep 30) | says "heard $1" "$kubectl" attach -i streams -c main
}

check "a pod with streams" 'created' k apply -f "${TMPDIR:-/tmp}/beyond-$$.yaml"
check "it listens" 'listening' says 'listening' "$kubectl" logs -f streams -c echo --pod-running-timeout=30s
check "logs that are not there" 'previous terminated container "main" in pod "streams" not found' bash -c "! '$kubectl' logs streams -c main --previous 2>&1"
check "attach" 'heard hello' joined hello
check "logs --tail" '^heard hello$' k logs streams -c main --tail=1
check "logs --timestamps" '^[0-9-]+T[0-9:.]+Z heard hello$' k logs streams -c main --timestamps --tail=1
check "logs --limit-bytes" '^up$' k logs streams -c main --limit-bytes=2
check "logs --since" 'heard hello' k logs streams -c main --since=1h
check "logs --since-time" '^$' k logs streams -c main --since-time=2099-01-01T00:00:00Z
check "logs --all-containers --prefix" '\[pod/streams/echo\] listening' k logs streams --all-containers --prefix
check "cp to a container" '^$' bash -c "echo carried >'$scratch/there' && '$kubectl' cp '$scratch/there' streams:/tmp/beyond-there -c main"
check "cp from a container" '^carried$' bash -c "'$kubectl' cp streams:/tmp/beyond-there '$scratch/back' -c main >/dev/null && cat '$scratch/back'"
check "exec with a terminal" 'a terminal' python3 -c 'import pty, sys; sys.exit(pty.spawn(sys.argv[1:]))' "$kubectl" exec -it streams -c main -- sh -c 'test -t 0 && test -t 1 && echo a terminal'
check "exec of what is not there" 'no/such' bash -c "! '$kubectl' exec streams -c main -- /no/such 2>&1"
check "port-forward" '^through the port$' forwarded
export KUBECTL_REMOTE_COMMAND_WEBSOCKETS=false KUBECTL_PORT_FORWARD_WEBSOCKETS=false
check "exec over SPDY" '^7 hello$' bash -c "said=\$(echo hello | '$kubectl' exec -i streams -c main -- sh -c 'cat; exit 7' 2>/dev/null); echo \$? \$said"
check "attach over SPDY" 'heard again' joined again
check "cp over SPDY" '^carried$' bash -c "'$kubectl' cp streams:/tmp/beyond-there '$scratch/back2' -c main >/dev/null && cat '$scratch/back2'"
check "port-forward over SPDY" '^through the port$' forwarded
unset KUBECTL_REMOTE_COMMAND_WEBSOCKETS KUBECTL_PORT_FORWARD_WEBSOCKETS
check "its end" 'heard die' joined die
check "logs --previous" 'heard die' bash -c "until '$kubectl' logs streams -c main --previous 2>/dev/null | grep die; do :; done"
check "run -i --rm" 'typed by hand' bash -c "echo typed by hand | timeout 60 '$kubectl' run once --image=stead.dev/host -i --rm --restart=Never --command -- cat"
check "debug" 'from beside' timeout 60 "$kubectl" debug streams --image=stead.dev/host --target=main --attach --quiet -- sh -c 'sleep 1; echo from beside'
check "delete it" 'deleted' k delete pod streams
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
