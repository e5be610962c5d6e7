#!/bin/bash
# Stops Lighter on this machine and removes what install.sh put there, with all state: tasks, images, volumes, keys.
# In: nothing. Out: a machine without Lighter. Never: touches packages, other firewalls' tables or other bridges.
set -uo pipefail
if [ -d /run/systemd/system ]; then
    systemctl disable --now lighter-shutdown.service lighter-agent.service lighter-tasks.service lighter-control.service 2>/dev/null
fi
# What outlives the daemons on purpose goes here: the table, the bridge, mounts, namespaces.
nft delete table inet lighter 2>/dev/null
nft delete table ip lighter 2>/dev/null
ip link delete lighter0 2>/dev/null
awk '$2 ~ "^(/run|/var/lib)/lighter/" { print $2 }' /proc/mounts | sort -r | while read -r mount; do
    umount -l "$(printf '%b' "$mount")"
done
rm -f /usr/bin/lighter /usr/bin/lighter-shim /usr/bin/lighter-oci
command -v apparmor_parser > /dev/null && apparmor_parser -R /etc/apparmor.d/lighter-default 2>/dev/null
rm -f /etc/apparmor.d/lighter-default
rm -f /usr/lib/systemd/system/lighter-{agent,tasks,control,shutdown}.service
rm -rf /etc/lighter /var/lib/lighter /run/lighter
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    systemctl reset-failed 'lighter-*' 2>/dev/null
fi
exit 0
