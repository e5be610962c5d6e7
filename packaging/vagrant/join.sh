#!/bin/bash
# Runs on the host: a one-use token from the control machine, used on a node, whose agent is then started.
# usage: join.sh CONTROL_MACHINE CONTROL_ADDRESS PORT NODE_MACHINE; a node that has joined is left alone.
set -euo pipefail
control=$1 address=$2 port=$3 node=$4
if vagrant ssh "$node" -c 'sudo test -e /var/lib/lighter/node.pem' >/dev/null 2>&1; then
    exit 0
fi
token=$(vagrant ssh "$control" -c 'sudo lighter token create --quiet' 2>/dev/null | tr -d '\r')
# Through standard input: an argument would be in the process list of the node.
vagrant ssh "$node" -c "sudo lighter agent join https://$address:$port --token -" <<<"$token"
vagrant ssh "$node" -c 'sudo systemctl enable --quiet --now lighter-tasks.service lighter-agent.service'
