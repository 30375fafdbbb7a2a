#!/usr/bin/env bash
# Lives every recorded life of a pod (oracle/README.md) on the containers tier of a Stead of its own, in an image made for it.
#   conformance/pods/lives.sh STEAD [AT_ONCE]      needs root; STEAD_ORACLE names the folder of recordings
# Prints what differs and "N passed, M failed"; ends with 1 where something does.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
stead=$(realpath "${1:?the stead binary}")
at_once=${2:-12}
oracle=${STEAD_ORACLE:-$here/../../../shared/oracle}
image=docker.io/library/busybox:1.35
work=$(mktemp -d)
export STEAD_DATA_DIR=$work/data
trap '"$stead" down --delete-volumes --yes --timeout 60s >/dev/null 2>&1 || true; rm -rf "$work"' EXIT

"$here/../images/busybox.sh" "$work/image" "$image"
"$stead" image load "$work/image"
"$stead" up -d --listen 127.0.0.1:0 --tier containers
url=$(sed -n 's/^ *server: *//p' "$("$stead" kubeconfig)")
node=$("$stead" get nodes -o json | python3 -c 'import json, sys; print(json.load(sys.stdin)["items"][0]["metadata"]["name"])')
python3 "$oracle/tools/lives.py" "$oracle/pod-lives.jsonl.gz" "$url" --cert "$STEAD_DATA_DIR/pki/admin.crt" \
    --key "$STEAD_DATA_DIR/pki/admin.key" --image "$image" --node "$node" -j "$at_once"
