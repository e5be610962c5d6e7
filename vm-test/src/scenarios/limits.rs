//! Limits as the kernel enforces them: CPU quota, memory, processes, devices.

use super::Scenario;
use crate::node::shell_task;
use crate::world::World;
use anyhow::{Context, Result, ensure};
use serde_json::json;

pub(super) const ALL: &[Scenario] = &[
    ("cpu_quota_is_a_quarter_of_a_core", cpu_quota_is_a_quarter_of_a_core),
    ("memory_limit_ends_in_out_of_memory_error", memory_limit_ends_in_out_of_memory_error),
    ("root_of_a_task_is_nobody_on_the_node", root_of_a_task_is_nobody_on_the_node),
    ("pids_limit_holds", pids_limit_holds),
    ("devices_are_closed_but_for_those_allowed", devices_are_closed_but_for_those_allowed),
];

/// What /proc/PID/attr/current says of a container that asks for no profile.
const DEFAULT_PROFILE: &str = "lighter-default (enforce)";

/// 256 CPU units are a quarter of a core; a busy loop gets that by the kernel's own account.
fn cpu_quota_is_a_quarter_of_a_core(world: &mut World) -> Result<()> {
    let node = world.node();
    let mut definition = shell_task("busy", &world.image(), "while :; do :; done");
    definition["containerDefinitions"][0]["cpu"] = json!(256);
    let task = node.run_until_running(&definition)?;
    let cgroup = node.cgroup_of(task.pid("main")?)?;
    let limit = node.guest.sh(&format!("cat {cgroup}/cpu.max"))?;
    ensure!(limit == "25000 100000", "cpu.max is {limit:?}");
    // Both clocks are the guest's, so emulation does not matter to the ratio.
    let measured = node.guest.sh(&format!(
        "at() {{ awk '/usage_usec/ {{ print $2 }}' {cgroup}/cpu.stat; date +%s%6N; }}; \
         read -d '' u1 t1 < <(at); sleep 5; read -d '' u2 t2 < <(at); echo $(( (u2 - u1) * 1000 / (t2 - t1) ))"
    ))?;
    let per_mille: i64 = measured.parse().with_context(|| format!("measured {measured:?}"))?;
    ensure!((200..=300).contains(&per_mille), "the busy loop used {per_mille} per mille of a core");
    node.stop(task.id()).map(drop)
}

/// memory.max is what was asked, swap is none, and a hog ends with 137 and OutOfMemoryError.
fn memory_limit_ends_in_out_of_memory_error(world: &mut World) -> Result<()> {
    let node = world.node();
    let mut definition = shell_task("memory", &world.image(), "exec sleep 1000");
    definition["containerDefinitions"][0]["memory"] = json!(32);
    let task = node.run_until_running(&definition)?;
    let cgroup = node.cgroup_of(task.pid("main")?)?;
    let limits = node.guest.sh(&format!("cat {cgroup}/memory.max {cgroup}/memory.swap.max"))?;
    ensure!(limits.split_whitespace().eq(["33554432", "0"]), "memory.max and memory.swap.max are {limits:?}");
    node.stop(task.id())?;
    reservations_are_protected_on_the_whole_way(world)?;
    let node = world.node();

    let mut hog = shell_task("hog", &world.image(), "exec dd if=/dev/zero of=/dev/null bs=256M count=1");
    hog["containerDefinitions"][0]["memory"] = json!(32);
    let stopped = node.run_until_stopped(&hog)?;
    ensure!(stopped.exit_code("main")? == Some(137), "{}", stopped.0);
    let reason = stopped.container("main")?["reason"].as_str().unwrap_or_default();
    ensure!(reason.starts_with("OutOfMemoryError"), "the reason is {reason:?}");
    Ok(())
}

/// memory.low of two containers is also on their task and on everything above it up to the root of
/// Lighter's cgroups, and goes with the task; maxSwap is memory.swap.max of container and task.
fn reservations_are_protected_on_the_whole_way(world: &mut World) -> Result<()> {
    let node = world.node();
    let mut definition = shell_task("reserve", &world.image(), "exec sleep 1000");
    let mut second = definition["containerDefinitions"][0].clone();
    second["name"] = json!("second");
    second["memory"] = json!(48);
    second["memoryReservation"] = json!(24);
    definition["containerDefinitions"][0]["memory"] = json!(32);
    definition["containerDefinitions"][0]["memoryReservation"] = json!(16);
    definition["containerDefinitions"][0]["linuxParameters"] = json!({ "maxSwap": 8 });
    definition["containerDefinitions"].as_array_mut().context("no list")?.push(second);
    definition["memory"] = json!(128);
    definition["cpu"] = json!(512);
    let task = node.run_until_running(&definition)?;
    let container = node.cgroup_of(task.pid("main")?)?;
    let files = "memory.low ../memory.low ../../memory.low ../../../memory.low memory.swap.max \
                 ../memory.swap.max ../second/memory.low ../memory.max ../cpu.max";
    let found = node.guest.sh(&format!("cd {container} && cat {files}"))?;
    let expected = "16777216 41943040 41943040 41943040 8388608 8388608 25165824 134217728 50000 100000";
    ensure!(found.split_whitespace().eq(expected.split(' ')), "{files} are {found:?}");
    node.stop(task.id())?;
    let tasks = container.rsplitn(3, '/').nth(2).context("no parent")?;
    node.guest
        .until(30, &format!("[ $(cat {tasks}/memory.low) = 0 ] && [ $(cat {tasks}/../memory.low) = 0 ]"))?;
    Ok(())
}

/// With usernsMode auto root has ids of the task's own, sees its own cgroup, and leaves files of root in
/// a volume; it is under the AppArmor profile like any other.
fn root_of_a_task_is_nobody_on_the_node(world: &mut World) -> Result<()> {
    let node = world.node();
    let script = "touch /made /data/made && echo made; cat /sys/fs/cgroup/memory.max; exec sleep 1000";
    let mut definition = shell_task("own-ids", &world.image(), script);
    definition["usernsMode"] = json!("auto");
    definition["volumes"] = json!([{ "name": "data", "host": {} }]);
    definition["containerDefinitions"][0]["mountPoints"] =
        json!([{ "sourceVolume": "data", "containerPath": "/data" }]);
    let task = node.run_until_running(&definition)?;
    let pid = task.pid("main")?;
    node.guest.until(60, &format!("lighter logs {} --container main | grep -q 67108864", task.id()))?;
    let map = node.guest.sh(&format!("cat /proc/{pid}/uid_map /proc/{pid}/gid_map"))?;
    let words: Vec<&str> = map.split_whitespace().collect();
    ensure!(words.len() == 6 && words[0] == "0" && words[1] != "0" && words[2] == "65536", "maps {map:?}");
    let uid = node.guest.sh(&format!("awk '/^Uid:/ {{ print $2, $3, $4, $5 }}' /proc/{pid}/status"))?;
    ensure!(uid.split(' ').all(|uid| uid == words[1]), "the process is {uid:?}");
    let owner =
        node.guest.sh(&format!("stat -c %u /var/lib/lighter/volumes/task/{}/data/made", task.id()))?;
    ensure!(owner == "0", "the file of the volume is {owner:?}'s");
    let profile = node.guest.sh(&format!("cat /proc/{pid}/attr/current"))?;
    ensure!(profile == DEFAULT_PROFILE, "the task with ids of its own is under {profile:?}");
    node.stop(task.id())?;
    profiles_confine(world)
}

/// AppArmor's default profile and a named one, by what the kernel says and by what a container may not;
/// one that is not loaded is refused by name.
fn profiles_confine(world: &mut World) -> Result<()> {
    let node = world.node();
    // The first is forbidden by nothing else: it would change the mode for the whole machine.
    let script = "a=$(chmod 444 /proc/uptime 2>/dev/null && echo may || echo may-not); \
                  b=$(touch /x 2>/dev/null && echo writes || echo keeps); echo verdict $a $b; exec sleep 1000";
    let named = "profile named flags=(attach_disconnected,mediate_deleted) { file, signal, deny /x w, }";
    node.guest.sh(&format!("echo '{named}' | apparmor_parser -r"))?;
    let rows: [(&[&str], &str, &str); 2] =
        [(&[], DEFAULT_PROFILE, "may-not writes"), (&["apparmor:named"], "named (enforce)", "may keeps")];
    for (options, profile, verdict) in rows {
        let mut definition = shell_task("confined", &world.image(), script);
        definition["containerDefinitions"][0]["dockerSecurityOptions"] = json!(options);
        let task = node.run_until_running(&definition)?;
        let current = node.guest.sh(&format!("cat /proc/{}/attr/current", task.pid("main")?))?;
        ensure!(current == profile, "{options:?} is under {current:?}");
        let logs = format!("lighter logs {} --container main", task.id());
        node.guest.until(60, &format!("{logs} | grep -q 'verdict {verdict}'"))?;
        node.stop(task.id())?;
    }

    let mut profiled = shell_task("profiled", &world.image(), "true");
    profiled["containerDefinitions"][0]["dockerSecurityOptions"] = json!(["apparmor:no-such-profile"]);
    let stopped = node.run_until_stopped(&profiled)?;
    let reason = stopped.0["stoppedReason"].as_str().unwrap_or_default();
    ensure!(reason.contains("has not loaded"), "the reason is {reason:?}");
    Ok(())
}

/// A container cannot have more processes and threads than pids.max; the next one is refused by the kernel.
fn pids_limit_holds(world: &mut World) -> Result<()> {
    let node = world.node();
    let mut definition = shell_task("pids", &world.image(), "exec deckhand crowd");
    definition["containerDefinitions"][0]["memory"] = json!(512);
    let task = node.run_until_running(&definition)?;
    let cgroup = node.cgroup_of(task.pid("main")?)?;
    let limit = node.guest.sh(&format!("cat {cgroup}/pids.max"))?;
    let limit: u64 = limit.parse().with_context(|| format!("pids.max is {limit:?}"))?;
    node.guest.until(90, &format!("lighter logs {} --container main | grep crowd", task.id()))?;
    // The kernel counts each refusal: `max` in pids.events.
    node.guest
        .sh(&format!("awk '/^max/ && $2 > 0 {{ found = 1 }} END {{ exit !found }}' {cgroup}/pids.events"))?;
    let now: u64 = node.guest.sh(&format!("cat {cgroup}/pids.current"))?.parse()?;
    ensure!(now == limit, "{now} processes and threads under a limit of {limit}");
    node.stop(task.id()).map(drop)
}

/// mknod of the guest's root disk is possible and useless; /dev/null and an allowed device work.
fn devices_are_closed_but_for_those_allowed(world: &mut World) -> Result<()> {
    let node = world.node();
    let numbers = node.guest.sh("stat -c '%Hr %Lr' /dev/vda")?;
    let script = format!(
        "mknod /tmp/disk b {numbers} && echo made; \
         dd if=/tmp/disk of=/dev/null bs=512 count=1 2>&1 && echo READ-THE-DISK; \
         echo x > /dev/null && echo null-works; head -c 4 /dev/urandom > /dev/null && echo random-works; \
         dd if=/dev/cargo of=/dev/null bs=512 count=1 2>/dev/null && echo allowed-device-works; \
         dd if=/dev/zero of=/dev/cargo bs=512 count=1 2>/dev/null || echo allowed-device-is-read-only"
    );
    let mut definition = shell_task("devices", &world.image(), &script);
    definition["containerDefinitions"][0]["linuxParameters"] = json!({ "devices": [{ "hostPath": "/dev/vdb", "containerPath": "/dev/cargo", "permissions": ["read"] }] });
    let task = node.run_until_stopped(&definition)?;
    let log = node.logs(&task, "main")?;
    for word in [
        "made",
        "not permitted",
        "null-works",
        "random-works",
        "allowed-device-works",
        "allowed-device-is-read-only",
    ] {
        ensure!(log.contains(word), "no {word:?} in {log}");
    }
    ensure!(!log.contains("READ-THE-DISK"), "the container read the host's disk: {log}");
    Ok(())
}
