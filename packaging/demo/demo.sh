#!/bin/bash
# The demonstration, on a host with cgroup v2 and systemd: real images, one node, and everything gone afterwards.
# In: BIN_DIR (the three binaries), IMAGES (OCI layouts `nginx` and `redis`, made by images.sh).
# Out: what happens, as it happens; exit code 0 only if everything was as it should be.
# Owns: a registry on loopback and Lighter on this machine, both only until it ends.
set -euo pipefail
here=$(dirname "$(realpath "$0")")
packaging=$(dirname "$here")
registry=127.0.0.1:5055
work=$(mktemp -d)
registry_pid=

bold=$'\e[1m' plain=$'\e[0m'
if [ ! -t 1 ] && [ -z "${DEMO_COLOUR:-}" ]; then bold='' plain=''; fi
began=$SECONDS
say() { printf '\n%s[%3d s] %s%s\n' "$bold" $((SECONDS - began)) "$*" "$plain"; }
show() { printf '  $'; printf ' %q' "$@"; echo; "$@" 2>&1 | sed 's/^/    /'; }
fail() { printf '\nDEMO FAILED: %s\n' "$*" >&2; exit 1; }

# One member of a task, by jq.
task() { lighter task show "$1" -o json | jq -r "$2"; }

wait_for() { # <task> <status> <seconds>
    local status
    for _ in $(seq $(($3 * 2))); do
        status=$(task "$1" .lastStatus)
        [ "$status" != "$2" ] || return 0
        [ "$status" != STOPPED ] || fail "the task stopped: $(task "$1" '.stoppedReason, (.containers[] | .reason // empty)')"
        sleep 0.5
    done
    fail "the task is $status after $3 s, not $2"
}

clean_up() {
    local code=$?
    trap - EXIT
    if [ $code -ne 0 ]; then
        echo 'the last words of the daemons:' >&2
        journalctl -q --no-pager -o cat -n 30 -u lighter-agent -u lighter-control -u lighter-tasks >&2 || true
    fi
    if [ -n "$registry_pid" ]; then kill "$registry_pid" 2>/dev/null || true; fi
    "$packaging/uninstall.sh"
    rm -rf "$work"
    exit $code
}

preflight() {
    [ "$(id -u)" -eq 0 ] || fail 'run it as root'
    [ -f /sys/fs/cgroup/cgroup.controllers ] || fail 'this host has no cgroup v2; `make demo` uses a virtual machine'
    # What is here belongs to somebody; the demonstration removes what it finds.
    [ ! -e /var/lib/lighter ] || fail 'Lighter is installed here already (/var/lib/lighter); try it with `lighter run`'
}

start_registry() {
    cat >"$work/registry.yml" <<EOF
version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: $work/registry}}
http: {addr: $registry}
EOF
    docker-registry serve "$work/registry.yml" >"$work/registry.log" 2>&1 &
    registry_pid=$!
    for _ in $(seq 100); do
        if curl -sf "http://$registry/v2/" >/dev/null; then return; fi
        sleep 0.2
    done
    fail "docker-registry did not start: $(tail -3 "$work/registry.log")"
}

push_images() {
    local name
    for name in nginx redis; do
        show skopeo --insecure-policy copy --quiet --dest-tls-verify=false "oci:$IMAGES/$name:latest" "docker://$registry/$name:1"
    done
    printf '  in the registry: '
    curl -s "http://$registry/v2/_catalog"
}

start_lighter() {
    BIN_DIR=$BIN_DIR "$packaging/install.sh"
    printf '[registries."%s"]\nhttp = true\n' "$registry" >>/etc/lighter/agent.toml
    systemctl start lighter-control.service
    token=$(lighter token create --quiet)
    show lighter agent join https://127.0.0.1:7443 --token "$token"
    systemctl start lighter-tasks.service lighter-agent.service
    for _ in $(seq 120); do
        if lighter node ls -o json | jq -e 'any(.agentConnected)' >/dev/null; then break; fi
        sleep 0.5
    done
    show lighter node ls
}

site_definition() {
    cat >"$work/site.json" <<EOF
{
  "family": "site",
  "volumes": [{ "name": "pages", "dockerVolumeConfiguration": { "scope": "shared", "autoprovision": true } }],
  "containerDefinitions": [
    { "name": "web", "image": "$registry/nginx:1", "memory": 64, "cpu": 256,
      "portMappings": [{ "containerPort": 80, "hostPort": 8080 }],
      "mountPoints": [{ "sourceVolume": "pages", "containerPath": "/usr/share/nginx/html" }] },
    { "name": "cache", "image": "$registry/redis:1", "memory": 64, "cpu": 256,
      "portMappings": [{ "containerPort": 6379, "hostPort": 6379 }] }
  ]
}
EOF
}

run_site() {
    site_definition
    show lighter task-definition register "$work/site.json"
    site=$(lighter run site --quiet)
    wait_for "$site" RUNNING 120
    show lighter ps
    show lighter task show "$site"
    for _ in $(seq 40); do
        if curl -sf http://127.0.0.1:8080/ >"$work/page"; then break; fi
        sleep 0.5
    done
    echo '  $ curl http://127.0.0.1:8080/'
    grep -i '<title>' "$work/page" | sed 's/^/    /' || fail 'nginx did not serve its page through the mapped port'
    # The page comes from the volume, which started with the image's files: write there, and it is served.
    volume=$(find /var/lib/lighter/volumes -name index.html -printf '%h\n' | head -1)
    [ -n "$volume" ] || fail 'the volume did not get the files of the image'
    echo 'cargo on board' >"$volume/cargo.txt"
    show curl -sf http://127.0.0.1:8080/cargo.txt
    # redis's own protocol, in plain text.
    exec 3<>/dev/tcp/127.0.0.1/6379
    printf 'SET harbour bremerhaven\r\nGET harbour\r\n' >&3
    answer=$(timeout 10 head -3 <&3 | tr -d '\r' | tail -1)
    exec 3>&-
    [ "$answer" = bremerhaven ] || fail "redis answered $answer"
    echo '  redis on port 6379 stored and returned "bremerhaven"'
}

memory_hog() {
    cat >"$work/hog.json" <<EOF
{ "family": "hog", "containerDefinitions": [{ "name": "hog", "image": "$registry/nginx:1", "memory": 32,
  "command": ["/bin/busybox", "dd", "if=/dev/zero", "of=/dev/null", "bs=256M", "count=1"] }] }
EOF
    lighter task-definition register "$work/hog.json" --quiet >/dev/null
    hog=$(lighter run hog --quiet)
    local i
    for i in $(seq 120); do
        [ "$(task "$hog" .lastStatus)" != STOPPED ] || break
        sleep 0.5
    done
    code=$(task "$hog" '.containers[0].exitCode') reason=$(task "$hog" '.containers[0].reason')
    echo "  a container with 32 MiB that wants 256 MiB: exit code $code, $reason"
    [ "$code" = 137 ] || fail 'its exit code is not 137'
    case $reason in OutOfMemoryError*) ;; *) fail 'its reason is not OutOfMemoryError' ;; esac
}

busy_loop() {
    cat >"$work/busy.json" <<EOF
{ "family": "busy", "containerDefinitions": [{ "name": "busy", "image": "$registry/nginx:1", "memory": 32, "cpu": 256, "stopTimeout": 2,
  "command": ["/bin/busybox", "sh", "-c", "while :; do :; done"] }] }
EOF
    lighter task-definition register "$work/busy.json" --quiet >/dev/null
    busy=$(lighter run busy --quiet)
    wait_for "$busy" RUNNING 60
    pid=$(task "$busy" '.containers[0].pid')
    cgroup=/sys/fs/cgroup$(cut -d: -f3 "/proc/$pid/cgroup")
    local used1 used2 time1 time2
    used1=$(awk '/usage_usec/ { print $2 }' "$cgroup/cpu.stat") time1=$(date +%s%6N)
    sleep 5
    used2=$(awk '/usage_usec/ { print $2 }' "$cgroup/cpu.stat") time2=$(date +%s%6N)
    percent=$(((used2 - used1) * 100 / (time2 - time1)))
    echo "  a busy loop with 256 CPU units (cpu.max $(cat "$cgroup/cpu.max")) used $percent % of a core"
    { [ "$percent" -ge 20 ] && [ "$percent" -le 30 ]; } || fail 'it is not between 20 and 30 %'
    lighter stop "$busy" --reason 'seen enough' --wait --quiet >/dev/null
}

stop_everything() {
    show lighter stop "$site" --reason 'the demonstration is over' --wait
    show lighter ps --all
    show lighter system prune --volumes
    show lighter system df
    kill "$registry_pid" && wait "$registry_pid" 2>/dev/null || true
    registry_pid=
    "$packaging/uninstall.sh"
    # uninstall.sh is not asked whether it worked: the kernel is.
    local left
    left=$({ ip -o link | grep -E 'lighter|veth'; nft list ruleset | grep lighter; grep lighter /proc/mounts
        find /sys/fs/cgroup -type d -name '*lighter*'; ls -d /run/lighter /var/lib/lighter /etc/lighter
        ps -eo pid,args | grep -E '[l]ighter-(shim|oci)|[l]ighter (agent|control)'; } 2>/dev/null || true)
    [ -z "$left" ] || fail "left behind: $left"
    echo '  no process, cgroup, mount, link, rule or file of Lighter is left'
}

preflight
trap clean_up EXIT
say 'Debian'\''s docker-registry, on loopback'
start_registry
say 'images of Debian'\''s nginx and redis, pushed with skopeo'
push_images
say 'the control plane, and an agent that joins with a one-use token'
start_lighter
say 'a task of two containers with a volume and two port mappings'
run_site
say 'the memory limit at work'
memory_hog
say 'the CPU quota at work'
busy_loop
say 'everything stopped and removed'
stop_everything
say 'done'
