//! CPU time by cgroup: one tree for a daemon, what it starts, and the containers it makes.
//! In: a name. Out: nanoseconds used since. Owns: the tree, in every hierarchy, until it is dropped.
//! Never: reads a process's own counters, which miss children that nobody waited for.

use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

const MOUNT: &str = "/sys/fs/cgroup";

/// A cgroup tree of the benchmark's own.
pub(crate) struct CpuAccount {
    name: String,
    /// In the hierarchy that counts CPU time.
    dir: PathBuf,
}

impl CpuAccount {
    pub(crate) fn open(of: &str) -> Result<Self> {
        let name = format!("{}-{of}", crate::processes::mark());
        let v1 = Path::new(MOUNT).join("cpuacct");
        let dir = if v1.is_dir() { v1 } else { Path::new(MOUNT).to_owned() }.join(&name);
        std::fs::create_dir(&dir).with_context(|| format!("make {}", dir.display()))?;
        std::fs::create_dir(dir.join("daemon"))?;
        Ok(Self { name, dir })
    }

    /// Where the containers' cgroups belong: as a name below the mount points.
    pub(crate) fn containers(&self) -> String {
        format!("{}/containers", self.name)
    }

    /// The same command, begun inside the account.
    pub(crate) fn enter(&self, command: &Command) -> Command {
        let mut inside = Command::new("sh");
        inside.args(["-c", r#"echo $$ >"$0/cgroup.procs" && exec "$@""#]).arg(self.dir.join("daemon"));
        inside.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => inside.env(name, value),
                None => inside.env_remove(name),
            };
        }
        inside
    }

    /// CPU time of everything in the tree so far (cgroup v1 cpuacct.usage, v2 cpu.stat).
    pub(crate) fn cpu_ns(&self) -> Result<u64> {
        if let Ok(text) = std::fs::read_to_string(self.dir.join("cpuacct.usage")) {
            return Ok(text.trim().parse()?);
        }
        let text = std::fs::read_to_string(self.dir.join("cpu.stat"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("usage_usec "));
        Ok(line.context("cpu.stat has no usage_usec")?.trim().parse::<u64>()? * 1000)
    }
}

impl Drop for CpuAccount {
    fn drop(&mut self) {
        remove_all(&self.name);
    }
}

/// Removes the trees whose names begin so, from every hierarchy.
pub(crate) fn remove_all(prefix: &str) {
    let hierarchies = std::fs::read_dir(MOUNT).into_iter().flatten().flatten().map(|entry| entry.path());
    for hierarchy in hierarchies.chain([PathBuf::from(MOUNT)]) {
        let trees = std::fs::read_dir(hierarchy).into_iter().flatten().flatten();
        for tree in trees.filter(|tree| tree.file_name().to_string_lossy().starts_with(prefix)) {
            remove_tree(&tree.path());
        }
    }
}

/// Removes cgroups from the leaves up; one that still has processes stays and is seen by the next look.
fn remove_tree(dir: &Path) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    let _ = std::fs::remove_dir(dir);
}
