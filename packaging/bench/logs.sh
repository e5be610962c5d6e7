#!/bin/bash
# Measures the way of container output: lines a second and CPU per line through the monitor's file, beside `cat` into a
# file in the same run; how fast a sink that was away is caught up; memory of monitor and agent meanwhile.
# In: BIN_DIR (the three binaries), $1 = thousands of lines (default 2000); root, unshare, jq, python3, busybox. Out: a table.
# Owns: network and mount namespaces, `lighter dev` and a sink on loopback; all end with it.
set -euo pipefail
if [ -z "${INSIDE:-}" ]; then
    mkdir -p /run/lighter
    INSIDE=1 exec unshare --net --mount --propagation private -- "$(realpath "$0")" "$@"
fi
lines=$((${1:-2000} * 1000))
export PATH=$BIN_DIR:$PATH
work=$(mktemp -d)
children=()
clean_up() {
    local code=$? pid
    trap - EXIT
    for id in $(lighter ps -q 2>/dev/null); do lighter stop "$id" --wait --quiet >/dev/null || true; done
    for pid in "${children[@]}"; do kill "$pid" 2>/dev/null && wait "$pid" 2>/dev/null; done
    [ $code -eq 0 ] || tail -20 "$work/dev.log" >&2
    rm -rf "$work"
    find /sys/fs/cgroup -mindepth 2 -depth -type d -path '*/lighter*' -exec rmdir {} + 2>/dev/null
    exit $code
}
trap clean_up EXIT
mount -t tmpfs -o mode=755 tmpfs /run/lighter
ip link set lo up

# A line is 100 bytes with its end.
line=$(printf '%099d' 7)
ticks=$(getconf CLK_TCK)
now_ms() { date +%s%3N; }
cpu_ms() { awk -v t="$ticks" '{ print ($14 + $15) * 1000 / t }' "/proc/$1/stat"; } # <pid>
peak_kib() { awk '/^VmHWM/ { print $2 }' "/proc/$1/status"; }                      # <pid>
row() { printf '%-44s %10s lines/s %8s µs CPU a line\n' "$1" "$2" "$3"; }

# The reference: the same lines through a pipe into a file by cat.
cat_run() {
    local began user system
    began=$(now_ms)
    { TIMEFORMAT='%U %S'; time { busybox sh -c "yes $line | head -n $lines" 2>/dev/null | { TIMEFORMAT='%U %S'; time cat >"$work/cat"; } 2>"$work/cat.time"; }; } 2>/dev/null
    read -r user system <"$work/cat.time"
    row 'cat into a file' $((lines * 1000 / ($(now_ms) - began))) \
        "$(awk -v c="$user" -v s="$system" -v n="$lines" 'BEGIN { printf "%.2f", (c + s) * 1e6 / n }')"
    rm "$work/cat"
}

image() { # an archive of one layer with busybox
    local root=$work/root digest config
    mkdir -p "$root"/{bin,tmp,proc,sys,dev,etc} "$work/oci/blobs/sha256"
    cp "$(type -P busybox)" "$root/bin/busybox"
    for name in sh yes head sleep; do ln -s busybox "$root/bin/$name"; done
    tar -C "$root" -c . >"$work/layer.tar"
    blob() { local sum; sum=$(sha256sum "$1" | cut -d' ' -f1); cp "$1" "$work/oci/blobs/sha256/$sum"; echo "\"digest\":\"sha256:$sum\",\"size\":$(stat -c %s "$1")"; }
    digest=$(sha256sum "$work/layer.tar" | cut -d' ' -f1)
    echo "{\"architecture\":\"$(dpkg --print-architecture)\",\"os\":\"linux\",\"config\":{},\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"sha256:$digest\"]}}" >"$work/config"
    config=$(blob "$work/config")
    echo "{\"schemaVersion\":2,\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",\"config\":{\"mediaType\":\"application/vnd.oci.image.config.v1+json\",$config},\"layers\":[{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar\",$(blob "$work/layer.tar")}]}" >"$work/manifest"
    echo '{"imageLayoutVersion":"1.0.0"}' >"$work/oci/oci-layout"
    echo "{\"schemaVersion\":2,\"manifests\":[{\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",$(blob "$work/manifest")}]}" >"$work/oci/index.json"
    tar -C "$work/oci" -c . >"$work/image.tar"
    lighter image load "$work/image.tar" --name localhost/log-bench:1 >/dev/null
}

start() { # <logConfiguration> -> the task, running; it writes when its file appears
    local script="sleep 3; yes $line | head -n $lines; exec sleep 1000"
    jq -n --arg script "$script" --argjson log "$1" '{family: "logs", containerDefinitions: [{name: "main",
        image: "localhost/log-bench:1", memory: 64, stopTimeout: 1, command: ["sh", "-c", $script], logConfiguration: $log}]}' >"$work/logs.json"
    local id; id=$(lighter run "$work/logs.json" --quiet); until [ "$(lighter task show "$id" -o json | jq -r .lastStatus)" = RUNNING ]; do sleep 0.1; done; echo "$id"
}
pid_of() { lighter task show "$1" -o json | jq -r '.containers[0].pid'; }
shim_of() { awk '{ print $4 }' "/proc/$(pid_of "$1")/stat"; }
# The main process is asleep and its writers are gone.
written() { ! grep -lq "^\(yes\|head\)$" "/proc/$1/task/$1/children" 2>/dev/null && [ -z "$(for c in $(cat "/proc/$1/task/$1/children"); do echo "$c"; done)" ] && [ "$(cat "/proc/$1/comm")" = sleep ]; }
wait_written() { # <pid>: from the first line to the last
    until [ "$(wc -w <"/proc/$1/task/$1/children")" -ge 2 ]; do sleep 0.02; done
    began=$(now_ms)
    until written "$1"; do sleep 0.05; done
    ended=$(now_ms)
}

file_run() {
    local id pid shim before
    id=$(start '{"logDriver": "json-file", "options": {"max-size": "64m", "max-file": "3"}}')
    pid=$(pid_of "$id") shim=$(shim_of "$id")
    before=$(cpu_ms "$shim")
    wait_written "$pid"
    row 'json-file: monitor' $((lines * 1000 / (ended - began))) \
        "$(awk -v a="$before" -v b="$(cpu_ms "$shim")" -v n="$lines" 'BEGIN { printf "%.2f", (b - a) * 1000 / n }')"
    echo "memory of the monitor at its highest: $(peak_kib "$shim") KiB"
    lighter stop "$id" --wait --quiet >/dev/null
}

# A sink that is down while all is written, and is then caught up.
sink_run() {
    local id pid agent before memory count=0 began
    lines=$((lines / 10))
    id=$(start '{"logDriver": "http", "options": {"http-url": "http://127.0.0.1:9099/", "max-buffer-size": "512m"}}')
    pid=$(pid_of "$id")
    wait_written "$pid"
    agent=${children[0]}
    before=$(cpu_ms "$agent") memory=$(peak_kib "$agent")
    python3 - "$lines" >"$work/sink" <<'SINK' &
import http.server, sys, time
want, seen, first = int(sys.argv[1]), 0, None
class Sink(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        global seen, first
        first = first or time.monotonic()
        seen += self.rfile.read(int(self.headers["Content-Length"])).count(b"\n")
        self.send_response(204); self.send_header("Content-Length", "0"); self.end_headers()
        if seen >= want:
            print(seen, int((time.monotonic() - first) * 1000), flush=True)
    def log_message(self, *_): pass
http.server.HTTPServer(("127.0.0.1", 9099), Sink).serve_forever()
SINK
    children+=($!)
    began=$SECONDS
    until [ -s "$work/sink" ] || [ $((SECONDS - began)) -gt 120 ]; do sleep 0.1; done
    read -r count took <"$work/sink"
    row 'http sink, caught up' $((count * 1000 / took)) \
        "$(awk -v a="$before" -v b="$(cpu_ms "$agent")" -v n="$count" 'BEGIN { printf "%.2f", (b - a) * 1000 / n }')"
    echo "memory of agent and control plane at its highest: $memory KiB before, $(peak_kib "$agent") KiB after"
    lighter stop "$id" --wait --quiet >/dev/null
}

lighter dev --data-dir "$work/data" --set allow_cgroup_v1_hybrid=true --set 'logs.drivers=["json-file","http"]' >"$work/dev.log" 2>&1 &
children+=($!)
for _ in $(seq 300); do lighter node ls -o json 2>/dev/null | jq -e 'any(.agentConnected)' >/dev/null 2>&1 && break; sleep 0.2; done
image
echo "$lines lines of 100 bytes; load of the machine before: $(cut -d' ' -f1 /proc/loadavg) on $(nproc) cores"
cat_run
file_run
cat_run
sink_run
