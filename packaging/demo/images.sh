#!/bin/bash
# Makes images from Debian's own packages, as OCI layouts: small stand-ins for those of the same names on Docker Hub.
# In: $1 = folder for the layouts; then names, out of busybox, nginx, postgres, redis. Out: the layouts.
# Owns: nothing else.
set -euo pipefail
out=$(realpath -m "$1")
shift
here=$(dirname "$(realpath "$0")")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
path='"PATH=/usr/sbin:/usr/bin:/sbin:/bin"'

# Unpacks packages with what they depend on into a tree; without what a container has no use for.
tree() { # <folder> <packages>
    mmdebstrap --mode=root --variant=extract --format=directory --quiet \
        --aptopt='APT::Install-Recommends "false"' --include="$2,busybox-static" bookworm "$1"
    (cd "$1" && rm -rf usr/bin/perl* usr/share/perl* usr/lib/x86_64-linux-gnu/perl* usr/share/doc usr/share/man \
        usr/share/locale usr/share/info usr/lib/systemd lib/systemd var/cache/apt var/lib/apt var/lib/dpkg dev)
    mkdir -p "$1/dev" "$1/run" "$1/root" "$1/etc"
    [ -e "$1/var/run" ] || ln -s /run "$1/var/run"
    # The packages' own scripts, which make users, are not run.
    cat >"$1/etc/passwd" <<'EOF'
root:x:0:0:root:/root:/bin/sh
www-data:x:33:33:www-data:/var/www:/bin/false
redis:x:101:101:redis:/var/lib/redis:/bin/false
postgres:x:102:102:postgres:/var/lib/postgresql:/bin/sh
nobody:x:65534:65534:nobody:/nonexistent:/bin/false
EOF
    printf 'root:x:0:\nadm:x:4:\nwww-data:x:33:\nredis:x:101:\npostgres:x:102:\nnogroup:x:65534:\n' >"$1/etc/group"
    for name in sh ls cat sleep ps nc wget id; do ln -sf busybox "$1/bin/$name"; done
}

busybox() {
    local program name
    program=$(type -P busybox)
    mkdir -p "$work/busybox"/{bin,dev,etc,proc,root,run,sys,tmp}
    chmod 1777 "$work/busybox/tmp"
    cp "$program" "$work/busybox/bin/busybox"
    for name in $("$program" --list); do [ "$name" = busybox ] || ln -sf busybox "$work/busybox/bin/$name"; done
    printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n' >"$work/busybox/etc/passwd"
    printf 'root:x:0:\nnobody:x:65534:\n' >"$work/busybox/etc/group"
    "$here/oci-layout.sh" "$out/busybox" "{\"Env\":[$path],\"Cmd\":[\"sh\"]}" "$work/busybox"
}

nginx() {
    tree "$work/nginx" nginx-light,curl
    mkdir -p "$work/nginx/var/log/nginx" "$work/nginx/var/lib/nginx"
    ln -sf /dev/stdout "$work/nginx/var/log/nginx/access.log"
    ln -sf /dev/stderr "$work/nginx/var/log/nginx/error.log"
    echo 'server { listen 80; root /usr/share/nginx/html; }' >"$work/nginx/etc/nginx/conf.d/site.conf"
    rm -f "$work/nginx/etc/nginx/sites-enabled/default"
    "$here/oci-layout.sh" "$out/nginx" \
        "{\"Env\":[$path],\"Cmd\":[\"nginx\",\"-g\",\"daemon off;\"],\"StopSignal\":\"SIGQUIT\",\"ExposedPorts\":{\"80/tcp\":{}}}" \
        "$work/nginx"
}

redis() {
    tree "$work/redis" redis-server
    install -d -o 101 -g 101 "$work/redis/data"
    "$here/oci-layout.sh" "$out/redis" \
        "{\"Env\":[$path],\"User\":\"redis\",\"WorkingDir\":\"/data\",\"Volumes\":{\"/data\":{}},\"Cmd\":[\"redis-server\",\"--protected-mode\",\"no\",\"--dir\",\"/data\"],\"ExposedPorts\":{\"6379/tcp\":{}}}" \
        "$work/redis"
}

postgres() {
    tree "$work/postgres" postgresql-15
    # The compiler for queries is most of the size.
    (cd "$work/postgres" && rm -rf usr/lib/x86_64-linux-gnu/libLLVM* usr/lib/x86_64-linux-gnu/libz3* usr/lib/llvm* \
        usr/lib/postgresql/15/lib/bitcode usr/lib/postgresql/15/lib/llvmjit*)
    install -d -o 102 -g 102 "$work/postgres/var/lib/postgresql/data" "$work/postgres/run/postgresql"
    for name in mkdir chown su; do ln -sf busybox "$work/postgres/bin/$name"; done
    install -m 755 "$here/postgres-entrypoint.sh" "$work/postgres/usr/bin/docker-entrypoint.sh"
    "$here/oci-layout.sh" "$out/postgres" \
        "{\"Env\":[\"PATH=/usr/lib/postgresql/15/bin:/usr/sbin:/usr/bin:/sbin:/bin\",\"PGDATA=/var/lib/postgresql/data\"],\"Entrypoint\":[\"docker-entrypoint.sh\"],\"Cmd\":[\"postgres\"],\"StopSignal\":\"SIGINT\",\"Volumes\":{\"/var/lib/postgresql/data\":{}},\"ExposedPorts\":{\"5432/tcp\":{}}}" \
        "$work/postgres"
}

for name in "$@"; do
    rm -rf "${out:?}/$name"
    "$name"
done
