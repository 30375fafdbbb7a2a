#!/usr/bin/env bash
# Makes an image of Debian's busybox-static as an OCI layout folder: no registry, no container engine.
#   conformance/images/busybox.sh DIR [NAME]      then: stead image load DIR
# NAME is docker.io/library/busybox:latest when not given. DEBS names a folder that keeps the packages.
set -euo pipefail
source "$(dirname "$0")/layout.sh"
out=${1:?the folder to make}
name=${2:-docker.io/library/busybox:latest}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

dpkg -x "$(packages "${DEBS:-$work/debs}" busybox-static)" "$work/package"
root=$work/root
mkdir -p "$root"/{bin,sbin,usr/bin,usr/sbin,etc,dev,proc,sys,run,root,home,var/run,var/spool,var/www}
install -d -m 1777 "$root/tmp" "$root/var/tmp"
install -m 755 "$work/package/bin/busybox" "$root/bin/busybox"
"$root/bin/busybox" --list-full | while read -r applet; do
    [ -e "$root/$applet" ] || ln -s /bin/busybox "$root/$applet"
done
cat > "$root/etc/passwd" <<'USERS'
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
nobody:x:65534:65534:nobody:/home:/bin/false
USERS
cat > "$root/etc/group" <<'GROUPS'
root:x:0:
daemon:x:1:
www-data:x:33:
nobody:x:65534:
GROUPS
[ "$(id -u)" != 0 ] || chown -R 0:0 "$root"
layout "$out" "$name" '{"Cmd":["sh"],"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]}' "$root"
echo "$name in $out"
