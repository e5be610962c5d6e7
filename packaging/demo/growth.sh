#!/bin/bash
# From one control plane to three, on one machine: redb, moved to an etcd of three members, two more control planes, the
# leader killed, while a task runs on a node. README shows what it prints.
# In: BIN_DIR (lighter, lighter-shim, lighter-oci), root, a static busybox, etcd. Out: what happens; exit code 0 only if
# it was as it should be. Owns: a network and mount namespace of its own, loopback addresses in it, one cgroup; nothing
# stays. The three machines are 127.0.0.1, 127.0.0.2 and 127.0.0.3.
set -euo pipefail
here=$(dirname "$(realpath "$0")")
if [ -z "${GROWTH_INSIDE:-}" ]; then
    GROWTH_INSIDE=1 exec unshare --net --mount --propagation private "$0" "$@"
fi
ip link set lo up
bin=$(realpath "$BIN_DIR")
work=$(mktemp -d)
cgroup=lighter-growth-$$
declare -A pids=()
all=https://127.0.0.1:7443,https://127.0.0.2:7443,https://127.0.0.3:7443

. "$here/common.sh"
lighter() { "$bin/lighter" --endpoint "$endpoint" --key "$work/control-1/admin.pem" "$@"; }

clean_up() {
    local code=$? name
    trap - EXIT
    [ -z "${task:-}" ] || lighter stop "$task" --wait >/dev/null 2>&1 || true
    [ -z "${second:-}" ] || lighter stop "$second" --wait >/dev/null 2>&1 || true
    for name in "${!pids[@]}"; do kill "${pids[$name]}" 2>/dev/null || true; done
    for name in "${!pids[@]}"; do wait "${pids[$name]}" 2>/dev/null || true; done
    [ ! -d "$work/etcd" ] || "$here/../etcd.sh" stop "$work/etcd" || true
    find /sys/fs/cgroup -depth -type d -path "*/$cgroup*" -exec rmdir {} + 2>/dev/null || true
    umount -R "$work"/agent-run/netns/* 2>/dev/null || true
    rm -rf "$work" 2>/dev/null || true
    exit $code
}
trap clean_up EXIT

# One file for the only control plane, one for each of three.
settings() { # <number> <store>
    cat <<EOT
data_dir = "$work/control-$1"
listen = ["127.0.0.$1:7443"]
listen_plaintext = ["$work/control-$1.sock"]
advertise = "https://127.0.0.$1:7443"
metrics_address = "127.0.0.$1:51682"

[store]
$2
EOT
}

control() { # <number> <file>
    "$bin/lighter" control --config "$2" >>"$work/control-$1.log" 2>&1 &
    pids[control-$1]=$!
    wait_for 20 test -S "$work/control-$1.sock"
}

agent() { # <endpoints>
    local root=$cgroup
    [ ! -f /sys/fs/cgroup/cgroup.controllers ] || root=/sys/fs/cgroup/$cgroup
    "$bin/lighter" agent --data-dir "$work/agent" --run-dir "$work/agent-run" --set control_endpoint="$1" \
        --set shim_path="$bin/lighter-shim" --set oci_path="$bin/lighter-oci" --set allow_cgroup_v1_hybrid=true \
        --set cgroup_root="$root" --set reserve_memory_mib=0 --set introspection_address= --set task_metadata=false \
        --set images.pull_behavior=prefer-cached --set bridge=growth0 >>"$work/agent.log" 2>&1 &
    pids[agent]=$!
}

# Each reads all of what it looks at: a grep that ends early makes its writer fail, and with it the pipe.
leads() { [ "$(curl -fs -m 1 "http://127.0.0.$1:51682/metrics" | sed -n 's/^lighter_control_leader //p')" = 1 ]; }
leader() { local n; for n in 1 2 3; do if leads $n; then echo $n; return 0; fi; done; return 1; }
running() { [ "$(lighter task show "$1" -o json | jq -r .lastStatus)" = RUNNING ]; }
connected() { lighter node ls -o json | jq -e 'length > 0 and all(.status == "ACTIVE" and .agentConnected)'; }

image tick
endpoint=unix://$work/control-1.sock
settings 1 '' | sed '/^\[store\]/d' >"$work/one.toml"
control 1 "$work/one.toml"
"$bin/lighter" agent join https://127.0.0.1:7443 --name node-1 --data-dir "$work/agent" \
    --token "$(lighter token create 2>"$work/token.log")" >"$work/join.log" 2>&1
agent https://127.0.0.1:7443
wait_for 30 connected
"$bin/lighter" image load "$work/tick.tar" --agent-socket "$work/agent-run/agent.sock" >"$work/load.log" 2>&1 || fail "$(cat "$work/load.log")"
cat >"$work/tick.json" <<'EOT'
{"family": "tick", "containerDefinitions": [{"name": "tick", "image": "registry.test/tick:1", "memory": 16,
  "command": ["sh", "-c", "trap exit TERM; n=0; while :; do n=$((n+1)); echo tick $n; busybox sleep 1; done"]}]}
EOT
cd "$work"
echo '# One control plane, its state in control.redb; a task runs.'
show lighter run tick.json
task=$(lighter ps -q | head -1)
wait_for 30 running "$task"
show lighter ps
echo
echo '# Three members of etcd; the state moves there; three control planes start. The task goes on meanwhile.'
echo "$ packaging/etcd.sh start etcd 2379:2380 2381:2382 2383:2384"
"$here/../etcd.sh" start etcd 2379:2380 2381:2382 2383:2384
members='["http://127.0.0.1:2379", "http://127.0.0.1:2381", "http://127.0.0.1:2383"]'
for number in 1 2 3; do
    settings $number "kind = \"etcd\"
endpoints = $members" >"three-$number.toml"
    mkdir -p "control-$number"
done
kill "${pids[control-1]}"
wait "${pids[control-1]}" || true
show "$bin/lighter" control --config one.toml migrate-store --to three-1.toml | sed "s#$bin/##"
for number in 2 3; do cp -r control-1/ca control-1/admin.pem "control-$number/"; done
for number in 1 2 3; do control $number "three-$number.toml"; done
endpoint=$all
wait_for 20 leader
# The node learns of all three: its agent starts again, and disturbs nothing.
kill "${pids[agent]}"
wait "${pids[agent]}" || true
agent "$all"
wait_for 30 connected
echo "\$ export LIGHTER_ENDPOINT=$all"
show lighter ps
echo
first=$(leader) || fail 'nobody leads'
echo "# The leader, here 127.0.0.$first, is killed; the next command finds the next leader."
echo "\$ kill -9 ${pids[control-$first]}"
kill -9 "${pids[control-$first]}"
wait "${pids[control-$first]}" 2>/dev/null || true
began=$(date +%s%N)
show lighter ps
took=$((($(date +%s%N) - began) / 1000000))
[ $took -lt 12000 ] || fail "the takeover took $took ms"
second=$(leader) || fail 'nobody leads'
[ "$second" != "$first" ] || fail 'the dead leads'
echo "# 127.0.0.$second leads, $took ms later. Work goes on."
second=
wait_for 30 connected
show lighter run tick.json
second=$(lighter ps -q | grep -v "$task" | head -1)
[ -n "$second" ] || fail 'the second task is not listed'
wait_for 30 running "$second"
show lighter ps
lighter logs "$task" >logs
ticks=$(wc -l <logs)
show lighter logs "${task:0:16}" --tail 1
# Each line once, in order: the task ran on through all of it.
seq "$ticks" | sed 's/^/tick /' | cmp - <(sed 's/^[^|]*| //' logs) || fail 'the task was disturbed'
