//! Processes of the benchmark: own namespaces, children that end with us, memory by PSS.
//! Never: signals a process by name; every child is held by its handle.

use anyhow::{Context, Result, bail};
use std::path::Path;
use std::process::{Child, Command, ExitStatus};

/// Where ip-netns(8) and podman keep the names of network namespaces.
const NETNS_NAMES: &str = "/run/netns";

/// Set inside, to the pid of the program outside.
const MARK: &str = "LIGHTER_BENCH_NAMESPACES";

/// The name that this run's cgroups begin with.
pub(crate) fn mark() -> String {
    format!("lighter-bench-{}", std::env::var(MARK).unwrap_or_else(|_| std::process::id().to_string()))
}

/// Runs this program again inside network, mount and process namespaces of its own, and removes the cgroups that it
/// leaves. It is PID 1 there: whatever it started ends with it, also when a measurement fails half-way.
/// `None` inside; outside how it ended.
pub(crate) fn in_own_namespaces() -> Result<Option<ExitStatus>> {
    if std::env::var_os(MARK).is_some() {
        command_ok(Command::new("ip").args(["link", "set", "lo", "up"]))?;
        // Podman leaves the names of its network namespaces here; these go with ours.
        std::fs::create_dir_all(NETNS_NAMES)?;
        command_ok(Command::new("mount").args(["-t", "tmpfs", "netns", NETNS_NAMES]))?;
        return Ok(None);
    }
    let status = Command::new("unshare")
        .args(["--net", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .args(["--mount", "--propagation", "private", "--"])
        .arg(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .env(MARK, std::process::id().to_string())
        .status()
        .context("run unshare(1), as root")?;
    crate::account::remove_all(&format!("{}-", mark()));
    Ok(Some(status))
}

/// Runs a command to its end; its error output becomes the error.
pub(crate) fn command_ok(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A daemon that is ended (SIGTERM, then waited for) when the value goes.
pub(crate) struct Daemon {
    child: Child,
}

impl Daemon {
    pub(crate) fn start(command: &mut Command, log: &Path) -> Result<Self> {
        let file = std::fs::File::create(log)?;
        command.stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().with_context(|| format!("start {command:?}"))?;
        Ok(Self { child })
    }
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        let _ = self.child.wait();
    }
}

/// Proportional and private memory of a process in KiB (proc(5), smaps_rollup).
pub(crate) fn memory_kib(pid: u32) -> Result<(u64, u64)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let field = |name: &str| -> u64 {
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
    };
    Ok((field("Pss:"), field("Private_Clean:") + field("Private_Dirty:")))
}

/// The pids whose executable has this file name, among the processes in our network namespace and
/// started since: `wanted` decides by command name.
pub(crate) fn pids_named(wanted: &[&str]) -> Result<Vec<u32>> {
    let ours = std::fs::read_link("/proc/self/ns/mnt")?;
    let mut pids = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|text| text.parse::<u32>().ok()) else { continue };
        let comm = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let namespace = std::fs::read_link(format!("/proc/{pid}/ns/mnt"));
        if wanted.contains(&comm.trim()) && namespace.is_ok_and(|theirs| theirs == ours) {
            pids.push(pid);
        }
    }
    Ok(pids)
}

/// CPU time of a process in nanoseconds, its ended threads included and its children not, in steps of 10 ms
/// (proc(5), utime and stime of stat).
pub(crate) fn cpu_ns(pid: u32) -> Result<u64> {
    const TICK_NS: u64 = 10_000_000;
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name may contain spaces; what follows its parenthesis begins with the third field.
    let rest = text.rsplit_once(')').context("stat has no name")?.1;
    let ticks = rest.split_whitespace().skip(11).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    Ok(ticks * TICK_NS)
}

/// The same of processes with one thread, exactly (proc(5), schedstat).
pub(crate) fn cpu_ns_of_single_threaded(pids: &[u32]) -> Result<u64> {
    let mut sum = 0;
    for pid in pids {
        let text = std::fs::read_to_string(format!("/proc/{pid}/schedstat"))?;
        sum += text.split_whitespace().next().context("schedstat is empty")?.parse::<u64>()?;
    }
    Ok(sum)
}
