#!/bin/bash
# Runs on the control machine: puts its address into its certificate and starts the control plane.
# usage: control.sh ADDRESS
set -euo pipefail
address=$1
grep -qs "^server_names" /etc/lighter/control.toml ||
    printf 'server_names = ["%s"]\n' "$address" >>/etc/lighter/control.toml
systemctl enable --quiet --now lighter-control.service
lighter node ls
