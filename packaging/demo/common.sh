# What the demonstrations share; sourced by them.
# In: $work, the folder of a run. Out: functions. Never: run by itself.

fail() { echo "FAILED: $*" >&2; tail -n 5 "$work"/*.log >&2; exit 1; }
# What a person types and sees; paths of this run are not theirs.
show() { echo "\$ $*"; "${@}" 2>&1 | sed "s#$work/##g; s/ *\$//"; }

wait_for() { # <seconds> <command>...
    local seconds=$1
    shift
    for _ in $(seq $((seconds * 10))); do
        if "$@" >/dev/null 2>&1; then return 0; fi
        sleep 0.1
    done
    fail "waited in vain for: $*"
}

# busybox as an archive of `docker save`: registry.test/NAME:1 in $work/NAME.tar.
image() { # <name>
    mkdir -p "$work/root/bin" "$work/root/tmp" "$work/image"
    cp "$(type -P busybox)" "$work/root/bin/busybox"
    ln -s busybox "$work/root/bin/sh"
    tar -C "$work/root" --numeric-owner --owner=0 --group=0 -cf "$work/image/layer.tar" .
    printf '{"architecture":"%s","os":"linux","config":{"Env":["PATH=/bin"]},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' \
        "$(dpkg --print-architecture)" "$(sha256sum "$work/image/layer.tar" | cut -d' ' -f1)" >"$work/image/config.json"
    echo '[{"Config":"config.json","RepoTags":["registry.test/'"$1"':1"],"Layers":["layer.tar"]}]' >"$work/image/manifest.json"
    tar -C "$work/image" -cf "$work/$1.tar" manifest.json config.json layer.tar
}
