//! `lighter-shim namespaces`: what the containers of a task share (pidMode and ipcMode `task`). An
//! ipc namespace is a bind mount and needs no process. A pid namespace dies with its first process,
//! so one stays in it that does nothing but reap: the containers come and go beside it.
//! In: a directory, the cgroups to join. Out: mounts `ipc` and `pid` in the directory; exit 0 when
//! they are there. Owns the process that stays; it ends with its cgroup.
//! Source: pid_namespaces(7), namespaces(7) on bind mounts that keep a namespace.
//! Never: enters a container's namespace.

use crate::{cgroup, sys};
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};

struct Wanted {
    directory: String,
    pid: bool,
    ipc: bool,
    cgroups: Vec<String>,
}

pub(crate) fn run(arguments: &[String]) -> Result<(), String> {
    sys::close_inherited();
    let wanted = parse(arguments)?;
    cgroup::join(&wanted.cgroups)?;
    if wanted.ipc {
        sys::unshare(libc::CLONE_NEWIPC).map_err(|error| format!("cannot make an ipc namespace: {error}"))?;
        keep("/proc/self/ns/ipc", &format!("{}/ipc", wanted.directory))?;
    }
    if !wanted.pid {
        return Ok(());
    }
    sys::unshare(libc::CLONE_NEWPID).map_err(|error| format!("cannot make a pid namespace: {error}"))?;
    match sys::fork_with_pid().map_err(|error| format!("cannot fork: {error}"))? {
        0 => stay(),
        pid => keep(&format!("/proc/{pid}/ns/pid"), &format!("{}/pid", wanted.directory)),
    }
}

fn keep(namespace: &str, path: &str) -> Result<(), String> {
    File::create(path).map_err(|error| format!("cannot make {path}: {error}"))?;
    sys::bind_mount(namespace, path).map_err(|error| format!("cannot keep {namespace} at {path}: {error}"))
}

/// The first process of the namespace: reaps for ever. Signals from inside do not reach it, because
/// it handles none (pid_namespaces(7)).
fn stay() -> Result<(), String> {
    sys::setsid().map_err(|error| format!("cannot make a session: {error}"))?;
    std::env::set_current_dir("/").map_err(|error| format!("cannot leave the directory: {error}"))?;
    let null = File::options().read(true).write(true).open("/dev/null");
    let null = null.map_err(|error| format!("cannot open /dev/null: {error}"))?;
    sys::replace_stdio(&OwnedFd::from(null))
        .map_err(|error| format!("cannot leave the terminal: {error}"))?;
    // Its end would be the end of every container; without the privilege it stays as it is.
    let _ = std::fs::write("/proc/self/oom_score_adj", "-998");
    let signals =
        sys::signal_fd(&[libc::SIGCHLD]).map_err(|error| format!("cannot take signals: {error}"))?;
    loop {
        let mut polls = [libc::pollfd { fd: signals.as_raw_fd(), events: libc::POLLIN, revents: 0 }];
        sys::poll(&mut polls, None).map_err(|error| format!("cannot wait: {error}"))?;
        while sys::next_signal(&signals).is_some() {}
        while sys::reap().is_some() {}
    }
}

fn parse(arguments: &[String]) -> Result<Wanted, String> {
    let mut wanted = Wanted { directory: String::new(), pid: false, ipc: false, cgroups: Vec::new() };
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().cloned().ok_or_else(|| format!("{word} needs a value"));
        match word.as_str() {
            "--pid" => wanted.pid = true,
            "--ipc" => wanted.ipc = true,
            "--dir" => wanted.directory = value()?,
            "--cgroup" => wanted.cgroups.push(value()?),
            _ => return Err(format!("unknown argument {word}")),
        }
    }
    if wanted.directory.is_empty() { Err("--dir is needed".to_owned()) } else { Ok(wanted) }
}
