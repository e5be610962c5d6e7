//! A node for one test: binaries, directories, a root file system, a task. In: a test's name and
//! container definitions. Out: what the kernel shows. Never: waits without a deadline.

use lighter_model::exit::ContainerExit;
use lighter_model::ids::{ContainerName, TaskId};
use lighter_model::image_config::ImageConfig;
use lighter_model::task_definition::options::{IpcMode, PidMode, UsernsMode};
use lighter_model::task_definition::{ContainerDefinition, TaskDefinition};
use lighter_runtime::{
    BindMount, Bundle, BundleError, BundleRequest, CgroupRoot, LogConfig, Privileges, Runtime, RuntimeConfig,
    ShimEvent, ShimHandle, StartError, Started, TaskLimits,
};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::sync::broadcast::Receiver;

pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// Directory with lighter-oci and the static lighter-shim, built once for all tests.
pub(crate) fn bin_dir() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| match std::env::var_os("LIGHTER_BIN_DIR") {
        Some(directory) => PathBuf::from(directory),
        None => build_binaries(),
    })
}

fn build_binaries() -> PathBuf {
    // <target>/debug/deps/kernel-…
    let target = std::env::current_exe().unwrap().ancestors().nth(3).unwrap().to_owned();
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let build = |arguments: &[&str], flags: &str| {
        let mut command = Command::new(&cargo);
        command.arg("build").arg("--quiet").args(arguments).arg("--target-dir").arg(&target);
        command.current_dir(env!("CARGO_MANIFEST_DIR"));
        if !flags.is_empty() {
            command.env("RUSTFLAGS", flags);
        }
        assert!(command.status().unwrap().success(), "cargo build {arguments:?}");
    };
    build(&["-p", "lighter-oci"], "");
    build(&["-p", "lighter-shim", "--release", "--target", &triple], "-C target-feature=+crt-static");
    let directory = target.join("kernel-test-bin");
    fs::create_dir_all(&directory).unwrap();
    let place = |from: PathBuf, name: &str| {
        // A running shim of another test run must not be overwritten: new file, then rename.
        let temporary = directory.join(format!("{name}.{}", std::process::id()));
        fs::copy(from, &temporary).unwrap();
        fs::rename(&temporary, directory.join(name)).unwrap();
    };
    place(target.join("debug/lighter-oci"), "lighter-oci");
    place(target.join(triple).join("release/lighter-shim"), "lighter-shim");
    directory
}

pub(crate) struct Node {
    pub(crate) runtime: Runtime,
    pub(crate) task: TaskId,
    pub(crate) rootfs: PathBuf,
    pub(crate) directory: TempDir,
    pub(crate) image: ImageConfig,
    pub(crate) mounts: Vec<BindMount>,
    pub(crate) privileges: Privileges,
    pub(crate) granted_devices: Vec<PathBuf>,
    pub(crate) modes: (PidMode, IpcMode),
    pub(crate) userns: UsernsMode,
    pub(crate) netns: Option<PathBuf>,
}

impl Node {
    pub(crate) fn new() -> Self {
        Self::with_config(|_| {})
    }

    pub(crate) fn with_config(change: impl FnOnce(&mut RuntimeConfig)) -> Self {
        assert_eq!(nix::unistd::geteuid().as_raw(), 0, "these tests need root");
        // As a login of root has them; no container may inherit one.
        nix::unistd::setgroups(&[nix::unistd::Gid::from_raw(0), nix::unistd::Gid::from_raw(4)]).unwrap();
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let directory = tempfile::tempdir().unwrap();
        let cgroup = CgroupRoot::detect(&format!("lighter-test-{}-{number}", std::process::id()));
        let mut config = RuntimeConfig {
            run_dir: directory.path().join("run"),
            log_dir: directory.path().join("logs"),
            log: LogConfig::default(),
            pids_max_default: 200,
            ..RuntimeConfig::new(bin_dir(), cgroup)
        };
        change(&mut config);
        let rootfs = directory.path().join("rootfs");
        make_rootfs(&rootfs);
        let runtime = Runtime::open(config).unwrap();
        let random = u128::from(std::process::id()) << 32 | u128::from(number);
        Self {
            runtime,
            task: TaskId::from_parts(1, random),
            rootfs,
            directory,
            image: ImageConfig::default(),
            mounts: Vec::new(),
            privileges: Privileges::default(),
            granted_devices: Vec::new(),
            modes: (PidMode::Private, IpcMode::Private),
            userns: UsernsMode::Host,
            netns: None,
        }
    }

    pub(crate) async fn shim(&self) -> ShimHandle {
        self.runtime.start_shim(&self.task, TaskLimits::default()).await.unwrap()
    }

    pub(crate) fn bundle(&self, container: Value) -> Result<Bundle, BundleError> {
        let (mut definition, container) = definitions(container);
        (definition.pid_mode, definition.ipc_mode) = self.modes;
        definition.userns_mode = self.userns;
        self.runtime.write_bundle(&BundleRequest {
            task: &self.task,
            container: &container,
            definition: &definition,
            image: &self.image,
            rootfs: &self.rootfs,
            netns: self.netns.as_deref(),
            hostname: "host-of-test",
            mounts: self.mounts.clone(),
            environment_files: Vec::new(),
            granted_devices: self.granted_devices.clone(),
            env_extra: Vec::new(),
            privileges: self.privileges.clone(),
        })
    }

    pub(crate) async fn start(&self, shim: &ShimHandle, container: Value) -> Result<Started, StartError> {
        shim.start_container(&self.bundle(container).unwrap()).await
    }

    /// Runs `sh -c script` to its end in a task of its own and gives exit and output.
    pub(crate) async fn run(&self, script: &str) -> (ContainerExit, String) {
        self.run_container(shell("c", script)).await
    }

    pub(crate) async fn run_container(&self, container: Value) -> (ContainerExit, String) {
        let shim = self.shim().await;
        let mut events = shim.events();
        let name = container["name"].as_str().unwrap().to_owned();
        self.start(&shim, container).await.unwrap();
        let exit = exit_of(&mut events, &name).await;
        let output = self.output(&name);
        self.leave_nothing(&shim).await;
        (exit, output)
    }

    pub(crate) fn log_path(&self, container: &str) -> PathBuf {
        self.runtime.config().task_log_dir(&self.task).join(format!("{container}.log"))
    }

    /// The text of the log without dates and marks, as the container wrote it.
    pub(crate) fn output(&self, container: &str) -> String {
        let log = fs::read_to_string(self.log_path(container)).unwrap_or_default();
        let text = |line: &str| line.splitn(4, ' ').nth(3).unwrap_or("").to_owned();
        let is_header = |line: &str| line.split(' ').skip(1).take(2).eq(["lighter", "H"]);
        log.lines().filter(|line| !is_header(line)).map(text).collect::<Vec<_>>().join("\n")
    }

    pub(crate) fn task_dir(&self) -> PathBuf {
        self.runtime.config().task_dir(&self.task)
    }

    /// Removes the task and looks for what is left.
    pub(crate) async fn leave_nothing(&self, shim: &ShimHandle) {
        for container in shim.status().await.map(|status| status.containers).unwrap_or_default() {
            shim.kill(&container.name).await.unwrap();
            let name = container.name;
            eventually("the container ends", async || {
                !matches!(shim.remove_container(&name).await, Err(lighter_runtime::RequestError::Busy))
            })
            .await;
        }
        let _ = shim.shutdown().await;
        self.remove().await;
    }

    /// Removes the task without its shim's help and looks for what is left.
    pub(crate) async fn remove(&self) {
        let shim_pid = fs::read_to_string(self.task_dir().join("shim.record")).ok();
        self.runtime.remove_task(&self.task).await.unwrap();
        self.runtime.remove_task(&self.task).await.expect("removing twice is success");
        assert!(!self.task_dir().exists());
        let name = self.task.to_string();
        assert_eq!(find_cgroups(&name), Vec::<PathBuf>::new(), "cgroups of the task are left");
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let directory = self.directory.path().display().to_string();
        assert!(!mounts.contains(&format!("{directory}/rootfs")), "a mount is left");
        if let Some(pid) =
            shim_pid.as_deref().and_then(|text| text.lines().find_map(|line| line.strip_prefix("pid=")))
        {
            eventually("the shim ends", async || !is_alive(pid.parse().unwrap())).await;
        }
        eventually("no process is left", async || processes_with(&name).is_empty()).await;
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // A test that failed half-way has not removed its task; a runtime of its own may block here.
        let (runtime, task) = (self.runtime.clone(), self.task.clone());
        let remove = move || {
            let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let _ = tokio.block_on(runtime.remove_task(&task));
            let _ = runtime.config().cgroup.remove_root();
        };
        let _ = std::thread::spawn(remove).join();
    }
}

fn make_rootfs(rootfs: &Path) {
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].iter().map(Path::new).find(|path| path.exists());
    let busybox = busybox.expect("Debian's busybox-static is needed");
    for directory in ["bin", "etc", "tmp", "proc", "dev", "sys"] {
        fs::create_dir_all(rootfs.join(directory)).unwrap();
    }
    fs::set_permissions(rootfs.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    fs::copy(busybox, rootfs.join("bin/busybox")).unwrap();
    for name in [
        "sh", "cat", "ls", "id", "echo", "sleep", "dd", "mknod", "grep", "head", "tail", "mount", "unshare",
        "readlink", "env", "kill", "awk", "yes", "stat", "true", "pwd", "ps", "hostname", "touch", "wc",
        "df", "tty", "stty", "setsid",
    ] {
        symlink("busybox", rootfs.join("bin").join(name)).unwrap();
    }
    fs::write(
        rootfs.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1001:web:/home/web:/bin/sh\n",
    )
    .unwrap();
    fs::write(rootfs.join("etc/group"), "root:x:0:\nweb:x:1001:\nlog:x:50:web\naudio:x:29:web\n").unwrap();
}

/// libcontainer's own exec of `argv` with the process of the container's bundle; its output.
pub(crate) fn tenant_exec(node: &Node, container: &str, argv: &[&str]) -> String {
    let task_dir = node.task_dir();
    let config = fs::read(task_dir.join("bundles").join(container).join("config.json")).unwrap();
    let mut config: Value = serde_json::from_slice(&config).unwrap();
    let mut process = config["process"].clone();
    process["args"] = json!(argv);
    let file = node.directory.path().join("process.json");
    fs::write(&file, process.to_string()).unwrap();
    // A container in a user namespace was made from a bundle that only its helper saw, with mounts
    // mapped already, which libcontainer refuses to do.
    for mount in config["mounts"].as_array_mut().unwrap() {
        mount.as_object_mut().unwrap().retain(|name, _| !name.ends_with("Mappings"));
    }
    let bundle = node.directory.path().join("tenant");
    fs::create_dir_all(&bundle).unwrap();
    fs::write(bundle.join("config.json"), config.to_string()).unwrap();
    let state = task_dir.join("oci").join(container).join("state.json");
    let mut known: Value = serde_json::from_slice(&fs::read(&state).unwrap()).unwrap();
    known["bundle"] = json!(bundle);
    fs::write(&state, known.to_string()).unwrap();
    let output = Command::new(tenant_program())
        .env_clear()
        .arg(task_dir.join("oci"))
        .arg(container)
        .arg(&file)
        .arg(node.runtime.config().run_dir.join("seccomp/default.bpf"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The example of lighter-oci that execs as libcontainer does, built once for all tests.
fn tenant_program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let target = std::env::current_exe().unwrap().ancestors().nth(3).unwrap().to_owned();
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(&cargo);
        command.args(["build", "--quiet", "-p", "lighter-oci", "--example", "tenant", "--target-dir"]);
        command.arg(&target).current_dir(env!("CARGO_MANIFEST_DIR"));
        assert!(command.status().unwrap().success(), "cargo build --example tenant");
        target.join("debug/examples/tenant")
    })
}

/// A container that runs a shell script.
pub(crate) fn shell(name: &str, script: &str) -> Value {
    json!({ "name": name, "image": "test", "entryPoint": ["/bin/sh", "-c"], "command": [script], "memory": 64 })
}

fn definitions(container: Value) -> (TaskDefinition, ContainerDefinition) {
    let definition: TaskDefinition = serde_json::from_value(
        json!({ "family": "test", "networkMode": "host", "containerDefinitions": [container] }),
    )
    .unwrap();
    let container = definition.container_definitions[0].clone();
    (definition, container)
}

pub(crate) async fn exit_of(events: &mut Receiver<ShimEvent>, name: &str) -> ContainerExit {
    let name: ContainerName = name.parse().unwrap();
    let wait = async {
        loop {
            match events.recv().await.unwrap() {
                ShimEvent::Exited { container, exit } if container == name => return exit,
                ShimEvent::Exited { .. } | ShimEvent::LeaseOver => {}
                ShimEvent::Disconnected => panic!("the shim is gone"),
            }
        }
    };
    tokio::time::timeout(DEADLINE, wait).await.expect("the container ends in time")
}

/// Polls a condition until it holds, with a deadline.
pub(crate) async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition().await {
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) fn is_alive(pid: i32) -> bool {
    match fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => !stat.rsplit_once(')').unwrap().1.trim_start().starts_with('Z'),
        Err(_) => false,
    }
}

/// Processes whose command line holds `text`, this one aside.
pub(crate) fn processes_with(text: &str) -> Vec<i32> {
    let pids = fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| *pid != std::process::id() as i32 && is_alive(*pid))
        .filter(|pid| {
            fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| String::from_utf8_lossy(&line).contains(text))
        })
        .collect()
}

/// Directories of that name anywhere in the cgroup hierarchies, three levels deep.
fn find_cgroups(name: &str) -> Vec<PathBuf> {
    let output = Command::new("find")
        .args(["/sys/fs/cgroup", "-maxdepth", "6", "-type", "d", "-name", name])
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).lines().map(PathBuf::from).collect()
}

/// A field of /proc/pid/status.
pub(crate) fn status_field(pid: i32, key: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find(|line| line.starts_with(&format!("{key}:"))).unwrap();
    line.split_once(':').unwrap().1.trim().to_owned()
}

/// Memory a process has of its own, in KiB: Private_Dirty of smaps_rollup (proc(5)). Clean private pages are not
/// counted: they belong to the program's file in the page cache, which the kernel maps 64 KiB at a time and takes
/// back at will, and are shared as soon as any other shim touches the same place.
pub(crate) fn own_memory_kib(pid: i32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = rollup.lines().find(|line| line.starts_with("Private_Dirty:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
