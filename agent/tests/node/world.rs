//! A node for one T2 test: namespaces, directories, registry, control plane, agent, and the oracle
//! that nothing is left. In: a test's body. Out: its panic, in the parent. Observes with `ip`,
//! mountinfo, /proc and the cgroup files. Never: polls without a deadline.

use super::control::{Control, wait};
use super::registry::Registry;
use lighter_agent::{Agent, AgentConfig, AgentHandle, ConfigOverrides};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;
use tokio::runtime::Runtime;

const INSIDE: &str = "LIGHTER_TEST_INSIDE";

/// Runs `body` in this program started again in namespaces of its own.
pub(super) fn in_own_namespaces(name: &str, body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        run("ip", &["link", "set", "lo", "up"]);
        if let Ok(filter) = std::env::var("LIGHTER_LOG") {
            tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
        }
        return body();
    }
    assert_eq!(rustix::process::geteuid().as_raw(), 0, "these tests need root");
    bin_dir();
    let status = Command::new("unshare")
        .args(["--net", "--mount", "--propagation", "private"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--include-ignored"])
        .env(INSIDE, "1")
        .env("LIGHTER_BIN_DIR", bin_dir())
        .status()
        .expect("these tests need unshare (util-linux)");
    assert!(status.success(), "{name} failed, see above");
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output =
        Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Directory with lighter-oci and a static lighter-shim.
fn bin_dir() -> PathBuf {
    static DIR: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();
    let given = || std::env::var_os("LIGHTER_BIN_DIR").map(PathBuf::from);
    DIR.get_or_init(|| given().unwrap_or_else(build_binaries)).clone()
}

fn build_binaries() -> PathBuf {
    // <target>/debug/deps/node-…
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
    let directory = target.join("node-test-bin");
    std::fs::create_dir_all(&directory).unwrap();
    let place = |from: PathBuf, name: &str| {
        // A shim of another test run must not be overwritten while it runs: new file, then rename.
        let temporary = directory.join(format!("{name}.{}", std::process::id()));
        std::fs::copy(from, &temporary).unwrap();
        std::fs::rename(&temporary, directory.join(name)).unwrap();
    };
    place(target.join("debug/lighter-oci"), "lighter-oci");
    place(target.join(triple).join("release/lighter-shim"), "lighter-shim");
    directory
}

/// Field 22 of /proc/pid/stat.
pub(super) fn start_time(pid: i32) -> String {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(')').unwrap().1.split_whitespace().nth(19).unwrap().to_owned()
}

pub(super) struct World {
    pub control: Control,
    registry: Registry,
    pub(super) config: AgentConfig,
    agent: Option<(Runtime, AgentHandle)>,
    _control_runtime: Runtime,
    dir: TempDir,
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

impl World {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::start(dir.path());
        let control_runtime = runtime();
        let control = control_runtime.block_on(async { Control::start(dir.path()) });
        let data_dir = dir.path().join("data");
        std::fs::create_dir_all(&data_dir).unwrap();
        let identity = r#"{"container_instance_id":"0123456789abcdef0123456789abcdef","cluster":"default","control_endpoint":""}"#;
        std::fs::write(data_dir.join("identity.json"), identity).unwrap();
        let file = dir.path().join("agent.toml");
        let text = format!("[registries.\"{}\"]\nhttp = true\n", registry.host);
        std::fs::write(&file, text).unwrap();
        let mut overrides = ConfigOverrides::default();
        let mut set = |key: &str, value: String| overrides.set(key, value, "the test");
        set("control_endpoint", format!("unix:{}", control.socket.display()));
        set("data_dir", data_dir.display().to_string());
        set("run_dir", dir.path().join("run").display().to_string());
        set("shim_path", bin_dir().join("lighter-shim").display().to_string());
        set("oci_path", bin_dir().join("lighter-oci").display().to_string());
        set("reserve_memory_mib", "0".into());
        set("allow_host_namespaces", "true".into());
        set("allow_environment_files", "true".into());
        set("metrics_address", "127.0.0.1:51680".into());
        set("metrics_containers", "true".into());
        set("allow_cgroup_v1_hybrid", "true".into());
        if !lighter_runtime::cgroup::is_v2() {
            set("cgroup_root", cgroup_name());
        } else {
            set("cgroup_root", format!("/sys/fs/cgroup/{}", cgroup_name()));
        }
        let config = AgentConfig::load(Some(&file), &overrides).unwrap();
        Self { control, registry, config, agent: None, _control_runtime: control_runtime, dir }
    }

    pub(super) fn image(&self) -> String {
        format!("{}/busybox:busybox", self.registry.host)
    }

    /// An httpd on a volume, with a static and a dynamic port, and a second container that ends with 5
    /// when it is told to stop.
    pub(super) fn web(&self) -> String {
        let image = self.image();
        let side = "trap 'exit 5' TERM; echo side is up; while true; do sleep 0.1; done";
        format!(
            r#"{{"family":"web","volumes":[{{"name":"www","host":{{}}}}],"containerDefinitions":[
              {{"name":"web","image":"{image}","cpu":128,"memory":64,"stopTimeout":1,
                "command":["httpd","-f","-p","80","-h","/www"],
                "portMappings":[{{"containerPort":80,"hostPort":8080}},{{"containerPort":80}}],
                "mountPoints":[{{"sourceVolume":"www","containerPath":"/www","readOnly":true}}]}},
              {{"name":"side","image":"{image}","memory":32,"essential":false,"command":["sh","-c","{side}"]}}]}}"#
        )
    }

    pub(super) fn start(&mut self) {
        let runtime = runtime();
        let config = self.config.clone();
        let handle = runtime.block_on(async move { Agent::start(config).await });
        self.agent = Some((runtime, handle.unwrap_or_else(|error| panic!("{error:?}"))));
    }

    /// Every task of the agent is dropped where it stands.
    pub(super) fn kill_agent(&mut self) {
        if let Some((runtime, _handle)) = self.agent.take() {
            runtime.shutdown_timeout(Duration::from_secs(10));
        }
        self.control.cut();
        let store = self.config.data_dir.join("agent.redb");
        wait("the store to close", || unlocked(&store).then_some(()), String::new);
    }

    /// Processes, mounts, namespaces, links, cgroups, directories.
    pub(super) fn assert_nothing_left(&self) {
        let left = || {
            let mut left: Vec<String> = Vec::new();
            let dir = self.dir.path().to_string_lossy().into_owned();
            let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
            left.extend(mounts.lines().filter(|line| line.contains(&dir)).map(str::to_owned));
            left.extend(
                run("ip", &["-o", "link"]).lines().filter(|line| line.contains(": lv")).map(str::to_owned),
            );
            for below in [
                "run/tasks",
                "run/netns",
                "run/rootfs",
                "run/records",
                "data/volumes/task",
                "data/images/snapshots",
            ] {
                let entries = std::fs::read_dir(self.dir.path().join(below)).into_iter().flatten().flatten();
                left.extend(entries.map(|entry| entry.path().display().to_string()));
            }
            left.extend(processes_naming(&dir));
            left.extend(cgroups());
            left
        };
        wait("nothing left", || left().is_empty().then_some(()), || left().join("\n"));
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.kill_agent();
        // After a failed test containers may run.
        for dir in cgroup_dirs() {
            kill_all(&dir);
        }
        wait(
            "the cgroups to go",
            || cgroup_dirs().iter().all(|dir| remove_cgroup(dir)).then_some(()),
            String::new,
        );
    }
}

fn cgroup_name() -> String {
    format!("lighter-node-test-{}", std::process::id())
}

fn unlocked(path: &Path) -> bool {
    let Ok(file) = std::fs::File::open(path) else { return true };
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_ok()
}

fn processes_naming(dir: &str) -> Vec<String> {
    let pids = std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    let others = pids.filter(|pid| *pid != std::process::id());
    let named = others.filter_map(|pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        line.contains(dir).then(|| format!("process {pid} {line}"))
    });
    named.collect()
}

fn cgroup_dirs() -> Vec<PathBuf> {
    let name = cgroup_name();
    let roots = std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
    let here = [Path::new("/sys/fs/cgroup").join(&name)];
    roots.map(|root| root.join(&name)).chain(here).filter(|dir| dir.is_dir()).collect()
}

/// Cgroups of tasks; the root of all of them stays for the next task.
fn cgroups() -> Vec<String> {
    let tasks = cgroup_dirs().into_iter().flat_map(|root| ["tasks", "shims"].map(|kind| root.join(kind)));
    tasks.flat_map(|dir| below(&dir)).map(|dir| dir.display().to_string()).collect()
}

fn below(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

fn kill_all(dir: &Path) {
    let pids = std::fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    for pid in pids.lines() {
        let _ = Command::new("kill").args(["-9", pid]).status();
    }
    below(dir).iter().for_each(|dir| kill_all(dir));
}

fn remove_cgroup(dir: &Path) -> bool {
    below(dir).iter().for_each(|dir| {
        remove_cgroup(dir);
    });
    std::fs::remove_dir(dir).is_ok() || !dir.exists()
}
