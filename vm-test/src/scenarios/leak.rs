//! The test of the oracle: one thing of each kind is left behind on purpose, and is seen.

use super::Scenario;
use crate::oracle::Inventory;
use crate::world::World;
use anyhow::{Context, Result, ensure};

pub(super) const ALL: &[Scenario] = &[("oracle_sees_a_leak_of_each_kind", oracle_sees_a_leak_of_each_kind)];

/// The kind as the inventory names it, how to leak one, and how to take it back.
const LEAKS: &[(&str, &str, &str)] = &[
    (
        "process",
        "setsid sleep 98765 </dev/null >/dev/null 2>&1 & echo $! > /tmp/leak; c=$(systemctl show -p ControlGroup --value lighter-tasks); \
         mkdir -p /sys/fs/cgroup$c/shims; mkdir /sys/fs/cgroup$c/shims/leak; echo $(cat /tmp/leak) > /sys/fs/cgroup$c/shims/leak/cgroup.procs",
        "kill $(cat /tmp/leak); rm /tmp/leak; c=$(systemctl show -p ControlGroup --value lighter-tasks); \
         until rmdir /sys/fs/cgroup$c/shims/leak 2>/dev/null; do sleep 0.1; done",
    ),
    (
        "cgroup",
        "mkdir /sys/fs/cgroup$(systemctl show -p ControlGroup --value lighter-tasks)/leak",
        "rmdir /sys/fs/cgroup$(systemctl show -p ControlGroup --value lighter-tasks)/leak",
    ),
    (
        "mount",
        "mkdir /run/lighter/leak && mount -t tmpfs leak /run/lighter/leak",
        "umount /run/lighter/leak && rmdir /run/lighter/leak",
    ),
    (
        "netns",
        "mkdir -p /run/lighter/netns && touch /run/lighter/netns/leak && unshare --net=/run/lighter/netns/leak true",
        "umount /run/lighter/netns/leak && rm /run/lighter/netns/leak",
    ),
    ("link", "ip link add leak0 type veth peer name leak1", "ip link del leak0"),
    ("address", "ip addr add 172.31.255.1/32 dev lighter0", "ip addr del 172.31.255.1/32 dev lighter0"),
    ("route", "ip route add 198.51.100.0/24 dev lighter0", "ip route del 198.51.100.0/24 dev lighter0"),
    (
        "nft",
        "nft add table inet leak && nft add map inet leak ports '{ type inet_service : ipv4_addr; elements = { 1 : 192.0.2.1 }; }'",
        "nft delete table inet leak",
    ),
    (
        "socket",
        "setsid busybox httpd -f -p 9753 </dev/null >/dev/null 2>&1 & echo $! > /tmp/leak; \
         until ss -Htln 'sport = 9753' | grep -q 9753; do sleep 0.1; done",
        "kill $(cat /tmp/leak); rm /tmp/leak",
    ),
    ("file", "mkdir -p /var/lib/lighter/volumes/leak", "rmdir /var/lib/lighter/volumes/leak"),
];

fn oracle_sees_a_leak_of_each_kind(world: &mut World) -> Result<()> {
    let guest = &world.node().guest;
    for (kind, leak, undo) in LEAKS {
        world.settle().with_context(|| format!("before leaking a {kind}"))?;
        guest.sh(leak).with_context(|| format!("leak a {kind}"))?;
        let seen = world.baseline().difference(&Inventory::take(guest)?);
        guest.sh(undo).with_context(|| format!("take the {kind} back"))?;
        let wanted = format!("+ {kind}");
        // A namespace shows as a higher count: a line that is new while the old one is gone.
        ensure!(
            seen.iter().any(|line| line.starts_with(&wanted)),
            "a leaked {kind} was not seen, only {seen:?}"
        );
    }
    Ok(())
}
