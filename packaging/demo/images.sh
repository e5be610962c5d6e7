#!/bin/bash
# Makes the demonstration's images from Debian's own nginx and redis packages, as OCI layouts.
# In: $1 = folder for the layouts `nginx` and `redis`. Out: the layouts. Owns: nothing else.
set -euo pipefail
out=$(realpath -m "$1")
here=$(dirname "$(realpath "$0")")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Unpacks packages with what they depend on into a tree; without what a container has no use for.
tree() { # <folder> <packages>
    mmdebstrap --mode=root --variant=extract --format=directory --quiet \
        --aptopt='APT::Install-Recommends "false"' --include="$2,busybox-static" bookworm "$1"
    (cd "$1" && rm -rf usr/bin/perl* usr/share/perl* usr/lib/x86_64-linux-gnu/perl* usr/share/doc usr/share/man \
        usr/share/locale usr/share/info usr/lib/systemd lib/systemd var/cache/apt var/lib/apt var/lib/dpkg dev)
    mkdir -p "$1/dev" "$1/run" "$1/root" "$1/etc"
    # The packages' own scripts, which make users, are not run.
    cat >"$1/etc/passwd" <<'EOF'
root:x:0:0:root:/root:/bin/sh
www-data:x:33:33:www-data:/var/www:/bin/false
redis:x:101:101:redis:/var/lib/redis:/bin/false
EOF
    printf 'root:x:0:\nadm:x:4:\nwww-data:x:33:\nredis:x:101:\n' >"$1/etc/group"
    for name in sh ls cat sleep ps nc wget id; do ln -sf busybox "$1/bin/$name"; done
}

rm -rf "$out/nginx" "$out/redis"
tree "$work/nginx" nginx-light
mkdir -p "$work/nginx/var/log/nginx" "$work/nginx/var/lib/nginx"
ln -sf /dev/stdout "$work/nginx/var/log/nginx/access.log"
ln -sf /dev/stderr "$work/nginx/var/log/nginx/error.log"
cat >"$work/nginx/etc/nginx/conf.d/site.conf" <<'EOF'
server { listen 80; root /usr/share/nginx/html; }
EOF
rm -f "$work/nginx/etc/nginx/sites-enabled/default"
"$here/oci-layout.sh" "$out/nginx" \
    '{"Env":["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],"Cmd":["nginx","-g","daemon off;"],"StopSignal":"SIGQUIT","ExposedPorts":{"80/tcp":{}}}' \
    "$work/nginx"

tree "$work/redis" redis-server
install -d -o 101 -g 101 "$work/redis/data"
"$here/oci-layout.sh" "$out/redis" \
    '{"Env":["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],"User":"redis","WorkingDir":"/data","Volumes":{"/data":{}},"Cmd":["redis-server","--protected-mode","no","--dir","/data"],"ExposedPorts":{"6379/tcp":{}}}' \
    "$work/redis"
