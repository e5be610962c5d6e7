#!/bin/bash
# One control plane, two nodes in network namespaces of their own, and Debian's docker-registry, whose access log says
# which node has asked for what: `lighter image pull` for one node, for all, and for all while one cannot reach it.
# In: BIN_DIR (the three binaries). Started by prepull.rs inside network and mount namespaces. Out: exit code.
# Owns: all that it starts; it ends with it. Never: looks at images with our own code, but for what it types.
set -euo pipefail
export PATH=$BIN_DIR:$PATH
work=$(mktemp -d)
children=()
fail() { printf 'PRE-PULL FAILED: %s\n' "$*" >&2; exit 1; }

clean_up() {
    local code=$? id
    trap - EXIT
    set +e
    [ $code -eq 0 ] || tail -n 15 "$work"/*.log >&2
    for id in $(lighter ps -q 2>/dev/null); do lighter stop "$id" --wait --quiet >/dev/null || true; done
    for id in "${children[@]}"; do kill "$id" 2>/dev/null; wait "$id" 2>/dev/null; done
    ip netns del pre1 2>/dev/null
    ip netns del pre2 2>/dev/null
    rm -rf "$work"
    find /sys/fs/cgroup -mindepth 2 -depth -type d -path '*/lighter-prepull*' -exec rmdir {} + 2>/dev/null
    exit $code
}

until_true() { # <seconds> <what> <command…>
    local end=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $end ] || fail "not in time: $what"
        sleep 0.2
    done
}

start_registry() {
    cat >"$work/registry.yml" <<YML
version: 0.1
log: {level: error, accesslog: {disabled: false}}
storage: {filesystem: {rootdirectory: $work/registry}}
http: {addr: 0.0.0.0:5000}
YML
    docker-registry serve "$work/registry.yml" >"$work/registry.log" 2>&1 &
    children+=($!)
    until_true 30 'the registry' curl -sf http://127.0.0.1:5000/v2/
    mkdir -p "$work/root/bin"
    cp "$(type -P busybox)" "$work/root/bin/sh"
    umoci init --layout "$work/oci"
    umoci new --image "$work/oci:1"
    # umoci leaves out the padding of the last file and the end of the archive; Docker takes that too.
    umoci insert --image "$work/oci:1" "$work/root/bin" /bin
    umoci config --image "$work/oci:1" --config.cmd sh --config.cmd -c --config.cmd 'echo up; sleep 1000'
    for name in one two three; do
        umoci config --image "$work/oci:1" --config.label "name=$name"
        skopeo --insecure-policy copy --quiet --dest-tls-verify=false "oci:$work/oci:1" "docker://127.0.0.1:5000/$name:1"
    done
}

start_node() { # <number>
    local n=$1 set
    ip link add "pre$n" type veth peer name eth0 netns "pre$n"
    ip addr add "10.99.$n.1/24" dev "pre$n"
    ip link set "pre$n" up
    ip -n "pre$n" addr add "10.99.$n.2/24" dev eth0
    ip -n "pre$n" link set lo up
    ip -n "pre$n" link set eth0 up
    ip -n "pre$n" route add default via "10.99.$n.1"
    cat >"$work/agent$n.toml" <<TOML
name = "node$n"
run_dir = "/run/lighter/node$n"
data_dir = "$work/node$n"
cgroup_root = "lighter-prepull$n-$$"
allow_cgroup_v1_hybrid = true
reserve_memory_mib = 0
[registries."10.99.$n.1:5000"]
http = true
[registries."10.98.0.1:5000"]
http = true
TOML
    lighter token create -q | nsenter --net="/run/netns/pre$n" lighter agent join "https://10.99.$n.1:7443" --token - --name "node$n" --data-dir "$work/node$n" >"$work/join$n.log" 2>&1
    nsenter --net="/run/netns/pre$n" lighter agent --config "$work/agent$n.toml" >"$work/agent$n.log" 2>&1 &
    children+=($!)
}

asked() { grep -c "^10\.99\.$1\.2 .*GET /v2/$2/" "$work/registry.log" || true; } # <node> <image>

trap clean_up EXIT
mount -t tmpfs -o mode=755 tmpfs /run/lighter
mkdir -p /run/netns
mount -t tmpfs tmpfs /run/netns
ip link set lo up
# What every node calls the registry.
ip addr add 10.98.0.1/32 dev lo
ip netns add pre1
ip netns add pre2
start_registry
printf 'data_dir = "%s/control"\nserver_names = ["10.99.1.1", "10.99.2.1"]\n' "$work" >"$work/control.toml"
lighter control --config "$work/control.toml" >"$work/control.log" 2>&1 &
children+=($!)
until_true 30 'the control plane' lighter node ls
start_node 1
start_node 2
until_true 60 'two nodes' bash -o pipefail -c "lighter node ls -o json | jq -e 'map(select(.agentConnected)) | length == 2'"

image=10.98.0.1:5000
said=$(lighter image pull "$image/one:1" --node node1 2>&1) || fail "pull on one node: $said"
grep -q node1 <<<"$said" || fail "the node is not named: $said"
[ "$(asked 1 one)" -gt 0 ] || fail 'node1 has not pulled'
[ "$(asked 2 one)" = 0 ] || fail 'node2 has pulled what was for node1'

said=$(lighter image pull "$image/two:1" --all --cluster default 2>&1) || fail "pull on all: $said"
{ [ "$(asked 1 two)" -gt 0 ] && [ "$(asked 2 two)" -gt 0 ]; } || fail "not all have pulled: $said"

# Node 2 has another server of this name, without any image: it is named, and the other node has the image.
ip -n pre2 addr add 10.98.0.1/32 dev lo
# busybox's, because Python's looks its own name up first, for as long as there is no answer.
nsenter --net=/run/netns/pre2 busybox httpd -f -p 10.98.0.1:5000 -h "$work/root" >"$work/none.log" 2>&1 &
children+=($!)
until_true 10 'the other server' nsenter --net=/run/netns/pre2 curl -s http://10.98.0.1:5000/
code=0
said=$(lighter image pull "$image/three:1" --all --cluster default 2>&1) || code=$?
[ $code -ne 0 ] || fail "a failed node was not told by the exit code: $said"
grep -q 'node2' <<<"$said" || fail "the failed node is not named: $said"
[ "$(asked 1 three)" -gt 0 ] || fail "the other node has not pulled: $said"

# The next task finds it there.
jq -n --arg image "$image/two:1" '{family: "pre", pullBehavior: "prefer-cached", containerDefinitions: [{name: "c", image: $image, memory: 16, stopTimeout: 1}]}' >"$work/pre.json"
before=$(grep -c 'GET /v2/two/' "$work/registry.log")
ip -n pre1 addr add 10.98.0.1/32 dev lo
lighter run "$work/pre.json" --quiet >/dev/null
lighter run "$work/pre.json" --quiet >/dev/null
until_true 30 'two tasks of a pulled image' bash -o pipefail -c "lighter ps -o json | jq -e 'map(select(.lastStatus == \"RUNNING\")) | length == 2'"
[ "$(grep -c 'GET /v2/two/' "$work/registry.log")" = "$before" ] || fail 'a task pulled what was there'
echo "pre-pull: as promised (exit code $code with a failed node)"
