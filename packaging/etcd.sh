#!/bin/bash
# An etcd on this machine's loopback, of one member or of several: for trying out several control planes, and for the
# tests. Debian's etcd-server has the program; its service for a real cluster is described in docs/operations.md.
#
#   etcd.sh start [--tls] DIR [CLIENT_PORT:PEER_PORT]...   starts what does not run; prints the endpoints, with commas
#   etcd.sh stop DIR                                       ends all members; what they keep stays in DIR
#
# One member on 2379:2380 when no ports are given. Members keep data, log and pid in DIR/1, DIR/2, ...; a member that
# was killed is started again on what it left by another `start` with the same words. --tls makes, once, a CA, a
# server's and a client's certificate in DIR/tls; the client's must then be shown.
set -euo pipefail

usage() { sed -n '/^#   etcd.sh/s/^#   //p' "$0" >&2; exit 2; }

# One that is dead and not yet waited for has no executable.
alive() { [ -s "$1/pid" ] && [[ "$(readlink "/proc/$(cat "$1/pid")/exe")" == */etcd ]]; }

certificates() { # DIR/tls: CA, then a certificate for each side
    local tls=$1 name
    [ -s "$tls/client.pem" ] && return
    mkdir -p "$tls" && chmod 700 "$tls"
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 -subj "/CN=etcd CA" \
        -keyout "$tls/ca.key" -out "$tls/ca.pem" 2>/dev/null
    for name in server client; do
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "/CN=$name" \
            -keyout "$tls/$name.key" -out "$tls/$name.csr" 2>/dev/null
        openssl x509 -req -in "$tls/$name.csr" -CA "$tls/ca.pem" -CAkey "$tls/ca.key" -CAcreateserial -days 3650 \
            -extfile <(printf 'basicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth,clientAuth\nsubjectAltName=IP:127.0.0.1,DNS:localhost\n') \
            -out "$tls/$name.pem" 2>/dev/null
    done
}

start() {
    local scheme=http number=0 cluster="" endpoints="" side pair client peer member
    local -a sides=() shown=()
    if [ "${1-}" = --tls ]; then scheme=https; shift; fi
    local dir=${1-}
    [ -n "$dir" ] || usage
    shift
    [ $# -gt 0 ] || set -- 2379:2380
    command -v etcd >/dev/null || { echo "there is no etcd: apt-get install etcd-server" >&2; exit 1; }
    mkdir -p "$dir"
    if [ $scheme = https ]; then
        certificates "$dir/tls"
        shown=(--cacert "$dir/tls/ca.pem" --cert "$dir/tls/client.pem" --key "$dir/tls/client.key")
        for side in "" peer-; do
            sides+=("--${side}cert-file=$dir/tls/server.pem" "--${side}key-file=$dir/tls/server.key"
                "--${side}trusted-ca-file=$dir/tls/ca.pem" "--${side}client-cert-auth")
        done
    fi
    for pair in "$@"; do
        number=$((number + 1))
        cluster+=${cluster:+,}member-$number=$scheme://127.0.0.1:${pair#*:}
        endpoints+=${endpoints:+,}$scheme://127.0.0.1:${pair%:*}
    done
    number=0
    for pair in "$@"; do
        number=$((number + 1)) member=$dir/$number
        client=$scheme://127.0.0.1:${pair%:*} peer=$scheme://127.0.0.1:${pair#*:}
        mkdir -p "$member"
        alive "$member" && continue
        setsid etcd --name "member-$number" --data-dir "$member/data" --logger zap \
            --listen-client-urls "$client" --advertise-client-urls "$client" \
            --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" \
            --initial-cluster "$cluster" "${sides[@]}" </dev/null >>"$member/log" 2>&1 &
        echo $! >"$member/pid"
    done
    number=0
    for pair in "$@"; do
        number=$((number + 1))
        for _ in $(seq 300); do
            # Healthy: it serves, and the members have chosen a leader.
            curl -fs -m 2 "${shown[@]}" "$scheme://127.0.0.1:${pair%:*}/health" >/dev/null && continue 2
            sleep 0.1
        done
        echo "member $number is not healthy; its log: $dir/$number/log" >&2
        exit 1
    done
    echo "$endpoints"
}

stop() {
    local dir=${1-} member
    [ -d "$dir" ] || usage
    for member in "$dir"/[0-9]*; do
        if alive "$member"; then kill "$(cat "$member/pid")"; fi
    done
    for member in "$dir"/[0-9]*; do
        for _ in $(seq 100); do
            alive "$member" || continue 2
            sleep 0.1
        done
        echo "$member does not end" >&2
        exit 1
    done
}

case "${1-}" in
start) shift; start "$@" ;;
stop) shift; stop "$@" ;;
*) usage ;;
esac
