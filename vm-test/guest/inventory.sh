#!/bin/bash
# Everything a task may leave behind on a node, one line each: `<kind> <what>`. Compared before and after a scenario.
# In: the kernel's own files and tools. Out: sorted lines. Never: asks Lighter.
# What the agent keeps on purpose (its store, pulled layers, the bridge) is in the baseline or left out by name.
set -u

# Processes that are not kernel threads, by command line; our own shell and systemd's short-lived helpers left out.
# One `ps` and no loop: a fork costs 5 ms under emulation.
ps -eww --no-headers -o cgroup:250,args | awk '
    $2 ~ /^\[/ || $1 ~ /ssh\.service|session-|init\.scope/ { next }
    /systemd-udevd|\(sd-worker\)|systemd-networkd|systemd-hostnamed|systemd-timedated|systemd-tmpfiles/ { next }
    { $1 = "process"; print }'

find /sys/fs/cgroup -mindepth 1 -type d -path '*lighter*' | sed 's/^/cgroup /'

# Only mount points: an overlay's options name directories that the next lines check.
awk '{ for (i = 7; $i != "-"; i++); print "mount", $5, $(i + 1) }' /proc/self/mountinfo | grep -E '/lighter| nsfs$' || true

# Every network namespace some process or mount holds; the host's own is one of them.
{ find /proc/[0-9]*/ns/net -printf '%l\n' 2>/dev/null
  awk '$4 ~ /^net:/ { print $4 }' /proc/self/mountinfo; } | sort -u | wc -l | sed 's/^/netns /'

ip -o link show | awk -F': ' '{ print "link", $2 }'
ip -o -4 addr show | awk '{ print "address", $2, $4 }'
ip route show table all | sed -E 's/^/route /; s/ linkdown//; s/ +$//'

# Rules and elements, without counters; a flowtable or map prints its elements.
nft -a list ruleset 2>/dev/null | sed -E 's/counter packets [0-9]+ bytes [0-9]+//; s/ # handle [0-9]+//; s/expires [0-9smhd]+//' |
    tr ',' '\n' | sed -E 's/^[[:space:]]+//; /^$/d; s/^/nft /'

# Listening and bound sockets of every kind. Outbound connections come and go and are left out.
ss -H -tuln | awk '{ print "socket", $1, $5 }'
ss -H -xl | awk '{ print "socket", $1, $5 }' | grep lighter || true
# Ports that are bound and do not listen are seen in no table before Linux 6.8, so by trying: bind fails.

# Files and directories of tasks. Left out by name: the stores, keys, pulled images, the sockets of the daemons,
# and the logs and event journals of stopped tasks, which are kept for `lighter logs` and `lighter task events`.
for top in /run/lighter /var/lib/lighter; do
    [ -d "$top" ] || continue
    find "$top" -mindepth 1 \( -path '*/images/layers' -o -path '*/images/blobs' -o -path '*/images/l' -o -path '*/images/images' \
        -o -path '*/lighter/logs' -o -path '*/lighter/events' -o -path '/run/lighter/tasks/*/*' -o -path '/run/lighter/rootfs/*/*/*' \) -prune -o -print
done 2>/dev/null | grep -vE '\.redb|/(agent|control)\.(sock|lock)$|/images/(lock|version)$' | sed 's/^/file /'
