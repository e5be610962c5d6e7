#!/bin/bash
# Runs every task definition of examples/ as it stands, on `lighter dev`, and looks at what it does; then types what
# README.md prints (tour.py).
# In: BIN_DIR (the three binaries), IMAGES (OCI layouts by images.sh), EXAMPLES. Started by examples.rs inside network and
# mount namespaces of its own. Out: a line for each example; exit code 0 only if all did what they should.
# Owns: a registry on loopback and `lighter dev`; both end with it. Never: changes an example.
set -euo pipefail
# As README.md has it.
registry=127.0.0.1:5000
# What must be heard although a condition is asked quietly.
exec 3>&2
work=$(mktemp -d)
HERE=$(dirname "$(realpath "$0")")
export PATH=$BIN_DIR:$PATH
children=()

fail() { printf 'EXAMPLE FAILED: %s\n' "$*" >&2; exit 1; }

clean_up() {
    local code=$? pid id
    trap - EXIT
    # It may be a quiet condition that failed.
    exec 2>&3
    if [ $code -ne 0 ]; then
        lighter ps --all >&2 || true
        for id in $(lighter ps --all -q); do lighter logs "$id" --tail 15 >&2 || true; done
        tail -40 "$work/dev.log" >&2 || true
    fi
    stop_all || true
    for pid in "${children[@]}"; do
        kill "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    rm -rf "$work" || true
    # What `lighter dev` keeps for its next start.
    find /sys/fs/cgroup -mindepth 2 -depth -type d -path '*/lighter*' -exec rmdir {} + 2>/dev/null || true
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

task() { lighter task show "$1" -o json | jq -r "$2"; }
has_status() { [ "$(task "$1" .lastStatus)" = "$2" ]; }
# Ends the wait at once when the task has stopped.
is_healthy() {
    ! has_status "$1" STOPPED || fail "the task stopped: $(task "$1" .stoppedReason)" 2>&3
    [ "$(task "$1" .healthStatus)" = HEALTHY ]
}
stop_all() {
    local id
    for id in $(lighter ps -q); do lighter stop "$id" --reason 'the example is over' --wait --quiet >/dev/null; done
}

start_registry() {
    cat >"$work/registry.yml" <<EOF
version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: $work/registry}}
http: {addr: $registry}
EOF
    docker-registry serve "$work/registry.yml" >"$work/registry.log" 2>&1 &
    children+=($!)
    until_true 30 'the registry' curl -sf "http://$registry/v2/"
    local image
    for image in busybox:1.35 nginx:1.22 postgres:15 redis:7; do
        skopeo --insecure-policy copy --quiet --dest-tls-verify=false \
            "oci:$IMAGES/${image%:*}:latest" "docker://$registry/library/$image"
    done
    # The images of README.md.
    push_said web 'echo started; exec httpd -f -p 80 -h /etc'
    push_said side 'echo side; exec httpd -f -p 80 -h /etc'
}

push_said() { # <name> <script>: an image of busybox that runs the script
    cp -r "$IMAGES/busybox" "$work/$1"
    umoci config --image "$work/$1:latest" --clear=config.entrypoint --clear=config.cmd \
        --config.cmd sh --config.cmd -c --config.cmd "$2"
    skopeo --insecure-policy copy --quiet --dest-tls-verify=false "oci:$work/$1:latest" "docker://$registry/$1:1"
}

start_lighter() {
    # Docker Hub by its mirror: the examples keep the names that people use.
    lighter dev --data-dir "$work/data" --set allow_cgroup_v1_hybrid=true \
        --set "registries={\"docker.io\"={mirrors=[\"$registry\"]}, \"$registry\"={http=true}}" >"$work/dev.log" 2>&1 &
    children+=($!)
    until_true 60 'the node' bash -o pipefail -c "lighter node ls -o json | jq -e 'any(.agentConnected)'"
}

run() { # <example> -> its task
    lighter run "$EXAMPLES/$1.json" --quiet
}

example_nginx() {
    local id
    id=$(run nginx)
    until_true 60 'nginx is healthy' is_healthy "$id"
    curl -sf http://127.0.0.1:8080/ | grep -i '<title>' >/dev/null || fail 'nginx serves no page on its host port'
    local pid
    pid=$(task "$id" '.containers[0].pid')
    grep -Eq '^Max open files +4096 +4096 ' "/proc/$pid/limits" || fail "nginx has other limits: $(grep files "/proc/$pid/limits")"
    lighter exec "$id" -- nginx -t 2>&1 | grep 'syntax is ok' >/dev/null || fail 'exec of nginx -t'
}

example_redis() {
    local id port
    id=$(run redis)
    until_true 60 'redis is healthy' is_healthy "$id"
    port=$(task "$id" '.containers[0].networkBindings[0].hostPort')
    exec 4<>"/dev/tcp/127.0.0.1/$port"
    printf 'SET harbour bremerhaven\r\nGET harbour\r\n' >&4
    [ "$(timeout 10 head -3 <&4 | tr -d '\r' | tail -1)" = bremerhaven ] || fail 'redis does not keep what it is told'
    exec 4>&-
    [ "$(lighter exec "$id" -- cat /proc/sys/net/core/somaxconn)" = 512 ] || fail 'the sysctl of redis'
}

sql() { lighter exec "$1" -- psql -U postgres -Atc "$2"; }

example_postgres() {
    local id
    id=$(run postgres)
    until_true 90 'postgres is healthy' is_healthy "$id"
    sql "$id" 'create table ports (name text); insert into ports values ($$bremerhaven$$)' >/dev/null
    lighter exec "$id" -- cat /proc/mounts | grep ' /dev/shm .*size=131072k' >/dev/null || fail 'the shared memory of postgres'
    lighter stop "$id" --reason 'once more, with the same volume' --wait --quiet >/dev/null
    [ "$(task "$id" '.containers[0].exitCode')" = 0 ] || fail 'postgres did not end by itself'
    id=$(run postgres)
    until_true 90 'postgres is healthy again' is_healthy "$id"
    [ "$(sql "$id" 'select name from ports')" = bremerhaven ] || fail 'the volume of postgres was not kept'
}

example_job() {
    local id
    id=$(run job)
    until_true 60 'the job is over' has_status "$id" STOPPED
    [ "$(task "$id" '.containers[] | select(.name == "main").exitCode')" = 0 ] || fail "the job: $(task "$id" .stoppedReason)"
    lighter logs "$id" --container main | grep 'the answer is 42' >/dev/null || fail 'the answer of the job'
}

example_batch() {
    local id
    id=$(run batch)
    until_true 60 'the batch task is over' has_status "$id" STOPPED
    [ "$(task "$id" '.containers[0].exitCode')" = 0 ] || fail "the batch task: $(task "$id" .stoppedReason)"
    lighter logs "$id" | grep 'sum 200010000' >/dev/null || fail 'the sum of the batch task'
}

trap clean_up EXIT
mount -t tmpfs -o mode=755 tmpfs /run/lighter
ip link set lo up
start_registry
start_lighter
for file in "$EXAMPLES"/*.json; do
    name=$(basename "$file" .json)
    began=$SECONDS
    "example_$name"
    stop_all
    echo "example $name: as it should be ($((SECONDS - began)) s)"
done
began=$SECONDS
# Started, the first container of this one needs its time, so that there is something to wait for.
jq '.containerDefinitions[0].command = ["sh", "-c", "sleep 60"]' "$EXAMPLES/job.json" >"$work/slow-job.json"
mkdir "$work/user"
ln -s "$EXAMPLES" "$work/user/examples"
(cd "$work/user" && python3 "$HERE/tour.py" "$EXAMPLES/../README.md" "$work/slow-job.json") || fail 'the tour of the README'
stop_all
echo "the tour of the README: as printed ($((SECONDS - began)) s)"
