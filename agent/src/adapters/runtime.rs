//! Shims, bundles, cgroups and logs by `lighter_runtime`.
//! In: tasks, bundles. Out: what `RuntimeFacility` promises. Owns the runtime's handle, and for each
//! connected shim one tokio task that hands its events on.
//! Never: remembers what runs; shims and kernel do.

mod logs;
mod shim;

use crate::config::AgentConfig;
use crate::errors::{Cause, chain, words};
use crate::facilities::{
    Answer, Bundle, BundleOrder, Found, LogLine, LogQuery, Mount, Probe, RuntimeFacility, ShimLink,
};
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use lighter_model::ids::{ContainerName, TaskId};
use lighter_model::image_config::ImageConfig;
use lighter_model::report::KernelLimits;
use lighter_model::task_definition::TaskDefinition;
use lighter_runtime::apparmor::{Confinement, DEFAULT_PROFILE};
use lighter_runtime::{
    AdoptError, BindMount, BundleRequest, CgroupRoot, ContainerStats, LogConfig, MappedIds, Runtime,
    RuntimeConfig, SharedNamespaces, TaskLimits, cgroup,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The unit that holds tasks (decision 6); its cgroup is ours to divide.
const TASKS_UNIT: &str = "/sys/fs/cgroup/system.slice/lighter-tasks.service";
/// Where packages put helpers that people do not type.
const LIBRARY_DIR: &str = "/usr/lib/lighter";

pub(super) struct RuntimeAdapter {
    runtime: Runtime,
    /// Not in the run directory: Debian mounts /run with noexec, and a program is started from here.
    self_test_dir: PathBuf,
    /// The image store.
    images_dir: PathBuf,
}

impl RuntimeAdapter {
    /// Blocks.
    pub(super) fn open(config: &AgentConfig) -> Result<Self, Cause> {
        let settings = RuntimeConfig {
            run_dir: config.run_dir.clone(),
            log_dir: config.log_dir(),
            shim_path: program("lighter-shim", config.shim_path.as_deref())?,
            oci_path: program("lighter-oci", config.oci_path.as_deref())?,
            cgroup: cgroup_root(config)?,
            log: LogConfig {
                file_bytes_max: config.logs.file_mib_max << 20,
                files_max: config.logs.files_max,
            },
            cpu_quota: config.cpu_quota,
            user_ids: config.user_namespaces.ids(),
            ..RuntimeConfig::new(Path::new(LIBRARY_DIR), CgroupRoot::detect("lighter"))
        };
        let (self_test_dir, images_dir) = (config.data_dir.join("self-test"), config.images_dir());
        Ok(Self { runtime: Runtime::open(settings)?, self_test_dir, images_dir })
    }
}

/// The configured path; else beside this executable, then where packages put it.
fn program(name: &str, configured: Option<&Path>) -> Result<PathBuf, Cause> {
    if let Some(path) = configured {
        return Ok(path.to_path_buf());
    }
    let beside = std::env::current_exe().ok().and_then(|path| Some(path.parent()?.join(name)));
    let places: Vec<PathBuf> = beside
        .into_iter()
        .chain([Path::new(LIBRARY_DIR).join(name), Path::new("/usr/bin").join(name)])
        .collect();
    let found = places.iter().find(|path| path.is_file()).cloned();
    found.ok_or_else(|| {
        words(format!(
            "{name} is in none of {places:?}; install the package, or set its path in the agent's file"
        ))
    })
}

fn cgroup_root(config: &AgentConfig) -> Result<CgroupRoot, Cause> {
    if cgroup::is_v2() {
        let unit = Path::new(TASKS_UNIT);
        return Ok(match &config.cgroup_root {
            Some(path) => CgroupRoot::V2 { path: PathBuf::from(path) },
            None if unit.is_dir() => CgroupRoot::V2 { path: unit.to_path_buf() },
            None => CgroupRoot::detect("lighter"),
        });
    }
    if !config.allow_cgroup_v1_hybrid {
        return Err(words(
            "this host has no unified cgroup v2 at /sys/fs/cgroup, which Lighter needs; boot with systemd.unified_cgroup_hierarchy=1, \
             or on a development machine set allow_cgroup_v1_hybrid = true",
        ));
    }
    let name = config.cgroup_root.clone().unwrap_or_else(|| "lighter".to_owned());
    let root = CgroupRoot::V1Hybrid { name };
    tracing::warn!(cannot_enforce = ?root.cannot_enforce(), "cgroup v1: a development machine");
    Ok(root)
}

impl RuntimeFacility for RuntimeAdapter {
    fn map_ids<'a>(&'a self, task: &'a TaskId) -> Answer<'a, MappedIds> {
        Box::pin(async move { Ok(self.runtime.map_ids(task, &self.images_dir).await?) })
    }

    fn make_netns<'a>(&'a self, task: &'a TaskId, path: &'a Path) -> Answer<'a, ()> {
        Box::pin(async move { Ok(self.runtime.make_netns(task, path).await?) })
    }

    fn start_shim<'a>(&'a self, task: &'a TaskId, definition: &'a TaskDefinition) -> Answer<'a, ShimLink> {
        Box::pin(async move {
            let handle = self.runtime.start_shim(task, TaskLimits::of(definition)).await?;
            self.runtime.share_namespaces(task, SharedNamespaces::of(definition)).await?;
            Ok(shim::link(handle))
        })
    }

    fn adopt<'a>(&'a self, task: &'a TaskId) -> Answer<'a, Found> {
        Box::pin(async move {
            match self.runtime.adopt(task).await {
                Ok(adopted) => {
                    let status = shim::status(&adopted.status);
                    Ok(Found::Alive { link: shim::link(adopted.handle), status })
                }
                Err(AdoptError::NotFound) => Ok(Found::Nothing),
                Err(AdoptError::ShimGone { why, exits, killed }) => {
                    tracing::warn!(%task, %why, ?killed, "the task's monitor is gone");
                    Ok(Found::Ended { exits: exits.into_iter().collect() })
                }
                Err(error) => Err(error.into()),
            }
        })
    }

    fn list_tasks(&self) -> Answer<'_, Vec<TaskId>> {
        let runtime = self.runtime.clone();
        Box::pin(super::blocking(move || Ok(runtime.list_tasks_on_disk())))
    }

    fn remove_task<'a>(&'a self, task: &'a TaskId) -> Answer<'a, ()> {
        Box::pin(async move { Ok(self.runtime.remove_task(task).await?) })
    }

    fn set_frozen<'a>(&'a self, task: &'a TaskId, frozen: bool) -> Answer<'a, ()> {
        Box::pin(async move { Ok(self.runtime.set_frozen(task, frozen).await?) })
    }

    fn set_limits<'a>(
        &'a self,
        task: &'a TaskId,
        definition: &'a TaskDefinition,
        containers: &'a [ContainerName],
    ) -> Answer<'a, Vec<(ContainerName, KernelLimits)>> {
        Box::pin(async move { Ok(self.runtime.set_limits(task, definition, containers).await?) })
    }

    fn write_bundle<'a>(&'a self, order: &'a BundleOrder) -> Answer<'a, Bundle> {
        let (runtime, order) = (self.runtime.clone(), order.clone());
        Box::pin(super::blocking(move || write_bundle(&runtime, &order)))
    }

    fn open_bundle<'a>(&'a self, task: &'a TaskId, container: &'a ContainerName) -> Answer<'a, Bundle> {
        let (runtime, task, container) = (self.runtime.clone(), task.clone(), container.clone());
        let open = move || Ok(Bundle { own: Arc::new(runtime.open_bundle(&task, &container)?) });
        Box::pin(super::blocking(open))
    }

    fn stop_signal(&self, image: &ImageConfig) -> Result<i32, Cause> {
        Ok(lighter_runtime::stop_signal(image)?)
    }

    fn stats<'a>(
        &'a self,
        task: &'a TaskId,
        container: Option<&'a ContainerName>,
    ) -> Answer<'a, Option<ContainerStats>> {
        let (runtime, task, container) = (self.runtime.clone(), task.clone(), container.cloned());
        Box::pin(super::blocking(move || Ok(runtime.stats(&task, container.as_ref()))))
    }

    fn read_logs(&self, query: LogQuery) -> Answer<'static, BoxStream<'static, Result<LogLine, Cause>>> {
        Box::pin(logs::read(self.runtime.config().task_log_dir(&query.task), query))
    }

    fn self_test(&self) -> BoxFuture<'_, Vec<Probe>> {
        Box::pin(async move {
            let task = crate::self_test::new_task();
            let probe = |ok, detail, mend: &str| Probe {
                name: "containers",
                ok,
                detail,
                mend: mend.to_owned(),
                vital: true,
            };
            match self.runtime.self_test(&task, &self.self_test_dir).await {
                Err(error) => vec![probe(false, chain(&error), "")],
                Ok(report) => {
                    let problems = report.problems();
                    let ok = problems.is_empty();
                    let detail = if ok { "confined".to_owned() } else { problems.join("; ") };
                    let missing = report.cannot_enforce.join(", ");
                    let cgroup = Probe {
                        name: "cgroup",
                        ok: missing.is_empty(),
                        detail: if missing.is_empty() {
                            format!("controllers {:?}", report.controllers)
                        } else {
                            format!("not enforced here: {missing}")
                        },
                        mend: String::new(),
                        vital: false,
                    };
                    vec![probe(ok, detail, ""), cgroup, apparmor(&report.apparmor)]
                }
            }
        })
    }
}

fn apparmor(found: &Confinement) -> Probe {
    let (ok, detail, mend) = match found {
        Confinement::Off => {
            (true, "off: the kernel has none, containers are confined without it".to_owned(), "")
        }
        Confinement::InForce => (true, format!("profile {DEFAULT_PROFILE} is in force"), ""),
        Confinement::NotLoaded => (
            false,
            format!("profile {DEFAULT_PROFILE} is not loaded, containers run without a profile"),
            "apt-get install apparmor, then apparmor_parser -r /etc/apparmor.d/lighter-default",
        ),
        // What refuses the start says it already.
        Confinement::Escaped { found } => (false, format!("a container ran under {found:?}"), ""),
    };
    Probe { name: "apparmor", ok, detail, mend: mend.to_owned(), vital: false }
}

fn write_bundle(runtime: &Runtime, order: &BundleOrder) -> Result<Bundle, Cause> {
    let containers = &order.definition.container_definitions;
    let container = containers.iter().find(|c| c.name == order.container);
    let container =
        container.ok_or_else(|| words(format!("the definition has no container {}", order.container)))?;
    let dir = runtime.config().task_dir(&order.task).join("files").join(order.container.as_str());
    let mut mounts: Vec<BindMount> = order.mounts.iter().map(bind_mount).collect();
    let taken: Vec<String> = mounts.iter().map(|mount| mount.destination.clone()).collect();
    let files =
        [("hosts", &order.hosts), ("hostname", &order.hostname_file), ("resolv.conf", &order.resolv_conf)];
    std::fs::create_dir_all(&dir)?;
    for (name, text) in files {
        let (source, destination) = (dir.join(name), format!("/etc/{name}"));
        std::fs::write(&source, text)?;
        if let Some(ids) = runtime.config().ids_of(&order.task) {
            // Root of the task may change them, as root does elsewhere.
            std::os::unix::fs::chown(&source, Some(ids.first), Some(ids.first))?;
        }
        // A volume mounted over one of them is what the definition wants.
        if !taken.contains(&destination) {
            mounts.push(BindMount { source, destination, read_only: false, mapped: false });
        }
    }
    let request = BundleRequest {
        task: &order.task,
        container,
        definition: &order.definition,
        image: &order.image,
        rootfs: &order.rootfs,
        netns: order.netns.as_deref(),
        hostname: &order.hostname,
        mounts,
        environment_files: order.environment_files.clone(),
        granted_devices: order.devices.clone(),
        env_extra: order.environment.clone(),
        privileges: order.privileges.clone(),
    };
    Ok(Bundle { own: Arc::new(runtime.write_bundle(&request)?) })
}

fn bind_mount(mount: &Mount) -> BindMount {
    BindMount {
        source: mount.source.clone(),
        destination: mount.destination.clone(),
        read_only: mount.read_only,
        mapped: true,
    }
}
