#!/bin/bash
# A service of three replicas on two nodes behind haproxy, asked all the while: an update, a bad revision, a drain, the
# death of a node. Not one request fails.
# In: BIN_DIR (lighter, lighter-shim, lighter-oci), root, a static busybox, haproxy, python3. Out: what happens; exit
# code 0 only if it was as it should be. Owns: network and mount namespaces of its own (one for each machine), cgroups
# of its own; nothing stays. The control machine is 10.91.0.1, the nodes are 10.91.0.11 and 10.91.0.12.
set -euo pipefail
here=$(dirname "$(realpath "$0")")
if [ -z "${SERVICE_INSIDE:-}" ]; then
    SERVICE_INSIDE=1 exec unshare --net --mount --propagation private "$0" "$@"
fi
bin=$(realpath "$BIN_DIR")
work=$(mktemp -d)
cgroup=lighter-service-$$
declare -A pids=()
export LIGHTER_ENDPOINT=unix://$work/control.sock LIGHTER_KEY=$work/control/admin.pem NO_COLOR=1

. "$here/common.sh"
lighter() { "$bin/lighter" "$@"; }

in_cgroups() { find /sys/fs/cgroup -depth -type d -path "*/$cgroup-$1*" "${@:2}" 2>/dev/null; }

kill_cgroups() { # <node>: everything of its tasks, monitors included
    local procs
    for procs in $(in_cgroups "$1" | sed 's#$#/cgroup.procs#'); do
        while read -r pid; do kill -9 "$pid" 2>/dev/null || true; done <"$procs"
    done
}

clean_up() {
    local code=$? name
    trap - EXIT
    [ ! -S "$work/control.sock" ] || lighter service rm web --force --detach >/dev/null 2>&1 || true
    for name in load watch endpoints haproxy agent-1 agent-2 control machine-1 machine-2; do
        [ -z "${pids[$name]:-}" ] || { kill -9 "${pids[$name]}"; wait "${pids[$name]}"; } 2>/dev/null || true
    done
    kill_cgroups 1
    kill_cgroups 2
    for _ in $(seq 50); do
        in_cgroups '' -exec rmdir {} + || true
        [ -n "$(in_cgroups '')" ] || break
        sleep 0.1
    done
    awk -v work="$work/" 'index($2, work) == 1 { print $2 }' /proc/mounts | tac | while read -r mount; do
        umount -l "$mount" 2>/dev/null || true
    done
    rm -rf "$work" 2>/dev/null || true
    exit $code
}
trap clean_up EXIT

on() { nsenter --net="/proc/${pids[machine-$1]}/ns/net" "${@:2}"; }

# A machine is a network namespace that a process holds open, on one bridge with the others.
machine() { # <number>
    unshare --net sleep infinity &
    pids[machine-$1]=$!
    wait_for 5 test ! "/proc/$$/ns/net" -ef "/proc/${pids[machine-$1]}/ns/net"
    ip link add "wire-$1" type veth peer name eth0 netns "${pids[machine-$1]}"
    ip link set "wire-$1" master lan up
    on "$1" ip link set lo up
    on "$1" ip addr add "10.91.0.1$1/24" dev eth0
    on "$1" ip link set eth0 up
}

agent() { # <number>
    local root=$cgroup-$1
    [ ! -f /sys/fs/cgroup/cgroup.controllers ] || root=/sys/fs/cgroup/$root
    # Not by `on`: the process that is remembered shall be the agent.
    nsenter --net="/proc/${pids[machine-$1]}/ns/net" "$bin/lighter" agent --data-dir "$work/agent-$1" --run-dir "$work/run-$1" --set shim_path="$bin/lighter-shim" \
        --set oci_path="$bin/lighter-oci" --set allow_cgroup_v1_hybrid=true --set cgroup_root="$root" \
        --set reserve_memory_mib=0 --set introspection_address= --set task_metadata=false \
        --set images.pull_behavior=prefer-cached >>"$work/agent-$1.log" 2>&1 &
    pids[agent-$1]=$!
}

node() { # <number>
    machine "$1"
    on "$1" "$bin/lighter" agent join https://10.91.0.1:7443 --name "node-$1" --data-dir "$work/agent-$1" \
        --token "$(lighter token create 2>>"$work/token.log")" >"$work/join-$1.log" 2>&1
    agent "$1"
    wait_for 30 test -S "$work/run-$1/agent.sock"
    lighter image load "$work/web.tar" --agent-socket "$work/run-$1/agent.sock" >>"$work/load.log" 2>&1 || fail "$(cat "$work/load.log")"
}

# What `lighter deploy` takes: a task definition and a service.
file() { # <version> <what it does>
    cat <<EOT
taskDefinition:
  family: web
  containerDefinitions:
    - name: web
      image: registry.test/web:1
      memory: 32
      stopTimeout: 2
      portMappings: [{containerPort: 80}]
      command: [sh, -c, "echo version $1 > /tmp/index.html; $2"]
      healthCheck: {command: [CMD-SHELL, "busybox wget -qO- http://127.0.0.1/ || exit 1"], interval: 5, retries: 2}
service:
  serviceName: web
  desiredCount: 3
  placementStrategy: [{type: spread, field: instanceId}]
  deploymentConfiguration:
    minimumHealthyPercent: 100
    maximumPercent: 200
    deploymentCircuitBreaker: {enable: true, rollback: true}
  deregistrationDelaySeconds: 2
  nodeSilence: {replace: true, lostAfterSeconds: 10}
EOT
}

balancer() {
    {
        echo "global
    stats socket $work/haproxy.sock level admin
defaults
    mode http
    timeout connect 500ms
    timeout client 10s
    timeout server 2s
    retries 5
    option redispatch 1
    retry-on conn-failure empty-response response-timeout 0rtt-rejected
frontend web
    bind 10.91.0.1:8080
    default_backend web
backend web"
        for slot in $(seq 16); do echo "    server s$slot 10.91.0.1:1 check inter 300ms fall 1 rise 1 observe layer4 error-limit 1 on-error mark-down disabled"; done
    } >"$work/haproxy.cfg"
    haproxy -db -f "$work/haproxy.cfg" >"$work/haproxy.log" 2>&1 &
    pids[haproxy]=$!
    wait_for 10 test -S "$work/haproxy.sock"
    # The short script that haproxy's server list comes from.
    mkfifo "$work/lists"
    "$here/endpoints.py" "$work/haproxy.sock" web <"$work/lists" 2>"$work/endpoints.log" &
    pids[endpoints]=$!
    "$bin/lighter" service endpoints web -f -o json >"$work/lists" 2>"$work/watch.log" &
    pids[watch]=$!
}

answers() { [ "$(curl -fs -m 2 http://10.91.0.1:8080/)" = "version $1" ]; }
only() { for _ in $(seq 12); do answers "$1" || return 1; done; }
nodes_up() { [ "$(lighter node ls -o json | jq -s 'flatten | map(select(.agentConnected)) | length')" = "$1" ]; }

ip link set lo up
ip link add lan type bridge
ip addr add 10.91.0.1/24 dev lan
ip link set lan up
cat >"$work/control.toml" <<EOT
data_dir = "$work/control"
listen = ["10.91.0.1:7443"]
listen_plaintext = ["$work/control.sock"]
advertise = "https://10.91.0.1:7443"
heartbeat_interval_ms = 1000
EOT
"$bin/lighter" control --config "$work/control.toml" >>"$work/control.log" 2>&1 &
pids[control]=$!
wait_for 20 test -S "$work/control.sock"
image web
node 1
node 2
wait_for 30 nodes_up 2
cd "$work"
file 1 'exec busybox httpd -f -p 80 -h /tmp' >web-1.yaml
file 2 'exec busybox httpd -f -p 80 -h /tmp' >web-2.yaml
file 3 'exit 1' >web-bad.yaml

echo '# A service of three replicas on two nodes, behind haproxy.'
show lighter deploy web-1.yaml --yes
balancer
wait_for 20 answers 1
"$here/load.py" http://10.91.0.1:8080/ 400 30000 >load.txt 2>load-failures.txt &
pids[load]=$!
echo
echo '# An update, while it is asked 400 times a second.'
show lighter deploy web-2.yaml --yes
wait_for 20 only 2
echo
echo '# A revision that cannot run is given up, and the one before stays.'
show lighter deploy web-bad.yaml --yes || true
wait_for 20 only 2
echo
echo '# A node is drained, and given work again.'
show lighter node drain node-2 --wait
show lighter node activate node-2
echo
echo '# A node dies.'
on 1 ip link set eth0 down
kill -9 "${pids[agent-1]}"
wait "${pids[agent-1]}" 2>/dev/null || true
kill_cgroups 1
all_on_2() {
    local shown
    shown=$(lighter ps) || return 1
    [ "$(lighter service endpoints web -o json | jq '.endpoints | length')" = 3 ] && ! grep -q 'RUNNING.*node-1' <<<"$shown"
}
wait_for 60 all_on_2
show lighter status
wait_for 20 only 2
kill "${pids[load]}"
wait "${pids[load]}" || true
unset 'pids[load]'
echo
cat load.txt
read -r requests _ failed _ <load.txt
[ "$failed" = 0 ] || fail "$failed requests failed: $(cat load-failures.txt)"
[ "$requests" -ge 5000 ] || fail "only $requests requests"
