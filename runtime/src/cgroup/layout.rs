//! Making the tree: root, `shims`, `tasks`, one parent for each task; controllers enabled from our
//! root downwards and nowhere else; the paths others need. In: names. Out: directories, paths.
//! Never: removes (see `remove`), sets limits (see `limits`).

use super::{CONTROLLERS, CgroupError, CgroupRoot, MOUNT, io_error, is_v2};
use lighter_model::ids::{ContainerName, TaskId};
use lighter_shim_wire::{CgroupPaths, CgroupVersion};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long another process (the keeper) may still sit in the root itself at boot.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The v1 controllers whose limits a task has.
const V1_LIMITED: [&str; 3] = ["cpu", "memory", "pids"];

impl CgroupRoot {
    /// Makes root, `shims` and `tasks` and enables the controllers. Returns the controllers in force.
    pub(crate) fn prepare(&self) -> Result<Vec<String>, CgroupError> {
        match self {
            Self::V2 { path } => {
                if !is_v2() {
                    return Err(CgroupError::NoV2);
                }
                if !path.starts_with(MOUNT) || path == Path::new(MOUNT) {
                    return Err(CgroupError::OutsideMount { path: path.clone() });
                }
                prepare_v2(path)
            }
            Self::V1Hybrid { .. } => {
                let mounts = v1_mounts();
                for controller in V1_LIMITED {
                    if !mounts.contains_key(controller) {
                        let available = mounts.keys().cloned().collect::<Vec<_>>().join(" ");
                        return Err(CgroupError::NoController { controller, available });
                    }
                }
                Ok(V1_LIMITED.iter().map(|name| (*name).to_owned()).collect())
            }
        }
    }

    /// Makes the cgroup of a task's shim and returns the directories the shim must join.
    pub(crate) fn create_shim(&self, task: &TaskId) -> Result<Vec<PathBuf>, CgroupError> {
        let directories = match self {
            Self::V2 { .. } => self.shim_dirs(task),
            // Out of whatever the agent is in, for what is counted: memory and pids.
            Self::V1Hybrid { .. } => {
                let wanted = [
                    self.v1_dir("memory", &format!("shims/{task}")),
                    self.v1_dir("pids", &format!("shims/{task}")),
                ];
                wanted.into_iter().flatten().collect()
            }
        };
        for directory in &directories {
            fs::create_dir_all(directory).map_err(io_error("make cgroup", directory))?;
        }
        Ok(directories)
    }

    /// Makes the cgroup of the process that keeps a task's pid namespace, and returns the directories
    /// it must join. No container has a name with a dot.
    pub(crate) fn create_holder(&self, task: &TaskId) -> Result<Vec<PathBuf>, CgroupError> {
        let below = format!("{}/holder.namespaces", self.below_task(task));
        let directories: Vec<PathBuf> = match self {
            Self::V2 { .. } => self.directories(&below),
            Self::V1Hybrid { .. } => {
                ["memory", "pids"].iter().filter_map(|controller| self.v1_dir(controller, &below)).collect()
            }
        };
        for directory in &directories {
            fs::create_dir_all(directory).map_err(io_error("make cgroup", directory))?;
        }
        Ok(directories)
    }

    /// Makes the parent cgroup of a task's containers.
    pub(crate) fn create_task(&self, task: &TaskId) -> Result<(), CgroupError> {
        match self {
            Self::V2 { path } => {
                let directory = path.join(self.below_task(task));
                fs::create_dir_all(&directory).map_err(io_error("make cgroup", &directory))?;
                enable(&directory).map(drop)
            }
            Self::V1Hybrid { .. } => {
                for controller in V1_LIMITED {
                    if let Some(directory) = self.v1_dir(controller, &self.below_task(task)) {
                        fs::create_dir_all(&directory).map_err(io_error("make cgroup", &directory))?;
                    }
                }
                Ok(())
            }
        }
    }

    /// The value of linux.cgroupsPath (OCI): from the hierarchy's root.
    pub(crate) fn oci_path(&self, task: &TaskId, container: &ContainerName) -> PathBuf {
        Path::new("/").join(self.relative()).join(self.below_container(task, container))
    }

    /// Our root from the hierarchy's root, without a leading slash.
    pub(crate) fn relative(&self) -> PathBuf {
        match self {
            Self::V2 { path } => path.strip_prefix(MOUNT).unwrap_or(path).to_owned(),
            Self::V1Hybrid { name } => PathBuf::from(name),
        }
    }

    /// Where a container's limits are.
    pub(crate) fn container_paths(&self, task: &TaskId, container: &ContainerName) -> CgroupPaths {
        self.paths(&self.below_container(task, container))
    }

    pub(crate) fn paths(&self, below: &str) -> CgroupPaths {
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        match self {
            Self::V2 { path } => {
                let all = text(path.join(below));
                CgroupPaths { version: CgroupVersion::V2, cpu: all.clone(), memory: all.clone(), pids: all }
            }
            Self::V1Hybrid { .. } => {
                let of = |controller: &str| self.v1_dir(controller, below).map(text).unwrap_or_default();
                CgroupPaths {
                    version: CgroupVersion::V1,
                    cpu: of("cpu"),
                    memory: of("memory"),
                    pids: of("pids"),
                }
            }
        }
    }

    fn v1_dir(&self, controller: &str, below: &str) -> Option<PathBuf> {
        Some(v1_mounts().get(controller)?.join(self.relative()).join(below))
    }

    /// The directories of one cgroup: one on v2, one for each mounted controller on v1.
    pub(crate) fn directories(&self, below: &str) -> Vec<PathBuf> {
        match self {
            Self::V2 { path } => vec![path.join(below)],
            Self::V1Hybrid { name } => {
                let mut all: Vec<PathBuf> =
                    v1_mounts().values().map(|mount| mount.join(name).join(below)).collect();
                all.sort();
                all.dedup();
                all
            }
        }
    }
}

fn prepare_v2(root: &Path) -> Result<Vec<String>, CgroupError> {
    // Without a unit of its own the root is a plain directory; its parents need the controllers.
    if !root.exists() {
        fs::create_dir_all(root).map_err(io_error("make cgroup", root))?;
    }
    let controllers = match enable(root) {
        Ok(controllers) => controllers,
        // A root of our own below a hierarchy that nobody has prepared: from the top downwards. A
        // delegated unit has all controllers, and nothing above it is ours to change.
        Err(CgroupError::NoController { .. }) => {
            let mut above: Vec<&Path> =
                root.ancestors().skip(1).take_while(|path| path.starts_with(MOUNT)).collect();
            above.reverse();
            above.into_iter().try_for_each(|ancestor| enable(ancestor).map(drop))?;
            enable(root)?
        }
        Err(error) => return Err(error),
    };
    for name in ["shims", "tasks"] {
        let directory = root.join(name);
        fs::create_dir_all(&directory).map_err(io_error("make cgroup", &directory))?;
    }
    enable(&root.join("tasks"))?;
    Ok(controllers)
}

/// Enables our controllers for the children of `directory` and proves it.
fn enable(directory: &Path) -> Result<Vec<String>, CgroupError> {
    let available_file = directory.join("cgroup.controllers");
    let available = fs::read_to_string(&available_file).map_err(io_error("read", &available_file))?;
    for controller in CONTROLLERS {
        if !available.split_whitespace().any(|name| name == controller) {
            return Err(CgroupError::NoController { controller, available: available.trim().to_owned() });
        }
    }
    let file = directory.join("cgroup.subtree_control");
    let current = fs::read_to_string(&file).map_err(io_error("read", &file))?;
    if !CONTROLLERS.iter().all(|controller| current.split_whitespace().any(|name| name == *controller)) {
        let wanted = CONTROLLERS.map(|controller| format!("+{controller}")).join(" ");
        write_while_busy(&file, &wanted).map_err(io_error("enable controllers in", &file))?;
    }
    let in_force = fs::read_to_string(&file).map_err(io_error("read", &file))?;
    Ok(in_force.split_whitespace().map(str::to_owned).collect())
}

/// EBUSY: a process is still in the cgroup itself, at boot the keeper on its way to its leaf.
fn write_while_busy(file: &Path, text: &str) -> io::Result<()> {
    let deadline = Instant::now() + BUSY_TIMEOUT;
    loop {
        match fs::write(file, text) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(20));
            }
            other => return other,
        }
    }
}

/// Mount point of each cgroup v1 controller. Source: proc(5), mountinfo.
pub(crate) fn v1_mounts() -> BTreeMap<String, PathBuf> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut mounts = BTreeMap::new();
    for line in text.lines() {
        let Some((left, right)) = line.split_once(" - cgroup ") else { continue };
        let Some(point) = left.split(' ').nth(4) else { continue };
        let Some(options) = right.split(' ').nth(1) else { continue };
        for name in
            options.split(',').filter(|name| !matches!(*name, "rw" | "ro" | "xattr") && !name.contains('='))
        {
            mounts.entry(name.to_owned()).or_insert_with(|| PathBuf::from(point));
        }
    }
    mounts
}
