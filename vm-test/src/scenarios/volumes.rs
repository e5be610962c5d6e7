//! Volumes: what is kept, what goes with the task, what a fresh one starts with.

use super::Scenario;
use crate::world::World;
use anyhow::{Result, ensure};
use serde_json::{Value, json};

pub(super) const ALL: &[Scenario] = &[("volumes_are_kept_and_removed", volumes_are_kept_and_removed)];

fn definition(image: &str, script: &str) -> Value {
    json!({
        "family": "volumes",
        "volumes": [
            { "name": "own" },
            { "name": "meeting" },
            { "name": "shared", "dockerVolumeConfiguration": { "scope": "shared", "autoprovision": true } },
            { "name": "path", "host": { "sourcePath": "/srv/allowed/cargo" } },
        ],
        "containerDefinitions": [
            { "name": "main", "image": image, "memory": 64,
              "mountPoints": [
                  { "sourceVolume": "own", "containerPath": "/seeded" },
                  { "sourceVolume": "shared", "containerPath": "/shared" },
                  { "sourceVolume": "meeting", "containerPath": "/meeting" },
                  { "sourceVolume": "path", "containerPath": "/path", "readOnly": true },
              ],
              "linuxParameters": { "tmpfs": [{ "containerPath": "/scratch", "size": 8 }] },
              "command": ["sh", "-c", script] },
            { "name": "reader", "image": image, "memory": 64, "essential": false,
              "volumesFrom": [{ "sourceContainer": "main", "readOnly": true }],
              "mountPoints": [{ "sourceVolume": "meeting", "containerPath": "/done" }],
              "command": ["sh", "-c", "until [ -e /seeded/ready ]; do sleep 0.1; done; \
                  touch /seeded/x 2>/dev/null || echo reader-cannot-write; touch /done/reader"] },
        ],
    })
}

/// A task's own volume goes with it, a shared one stays; an image's files seed a fresh one; tmpfs and read-only hold.
fn volumes_are_kept_and_removed(world: &mut World) -> Result<()> {
    let node = world.node();
    node.guest.write("/srv/allowed/cargo/file", "from the host")?;
    let script = "set -e; cat /seeded/file; stat -c %u:%g:%a /seeded/file; cat /path/file; echo; \
        touch /path/x 2>/dev/null && echo WROTE || echo path-is-read-only; \
        grep -q ' /scratch tmpfs ' /proc/mounts && echo scratch-is-tmpfs; \
        if [ -e /shared/mark ]; then echo second-run; else echo first-run; fi; echo kept > /shared/mark; \
        touch /seeded/ready; until [ -e /meeting/reader ]; do sleep 0.1; done";
    for expected in ["first-run", "second-run"] {
        let task = node.run_until_stopped(&definition(&world.image(), script))?;
        let log = format!("{}\n{}", node.logs(&task, "main")?, node.logs(&task, "reader")?);
        for word in [
            "from the image",
            "1000:1000:640",
            "from the host",
            "path-is-read-only",
            "scratch-is-tmpfs",
            "reader-cannot-write",
            expected,
        ] {
            ensure!(log.contains(word), "no {word:?} in the log:\n{log}");
        }
        ensure!(!log.contains("WROTE"), "a read-only mount was written:\n{log}");
        let kept = node.guest.until(20, "f=$(find /var/lib/lighter/volumes -name mark); [ -n \"$f\" ] && cat $f && ! find /var/lib/lighter/volumes -name ready | grep .")?;
        ensure!(kept.contains("kept"), "the shared volume holds {kept:?}");
    }
    // A person removes what is shared; then the node is as before.
    node.lighter("system prune --volumes")?;
    node.guest.sh("! find /var/lib/lighter/volumes -name mark | grep .; rm -r /srv/allowed/cargo").map(drop)
}
