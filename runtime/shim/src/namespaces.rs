//! `lighter-shim namespaces`: namespaces that are there before a container is, each a bind mount.
//! - what the containers of a task share (pidMode and ipcMode `task`). An ipc namespace needs no
//!   process. A pid namespace dies with its first process, so one stays in it that does nothing but
//!   reap: the containers come and go beside it.
//! - a task's user namespace, with the image layers as its ids see them. libcontainer only joins it:
//!   for one of its own it would leave the cgroups to systemd.
//! - network namespaces that belong to that user namespace.
//!
//! In: a directory, the cgroups to join. Out: mounts `ipc`, `pid`, `user`, `layers` in the directory;
//! exit 0 when they are there. Owns the process that stays (`namespaces/first.rs`); it ends with its cgroup.
//! Source: pid_namespaces(7), user_namespaces(7), namespaces(7) on bind mounts that keep a namespace.
//! Never: enters a container's namespace.

mod first;

use crate::{cgroup, sys};
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

#[derive(Default)]
struct Wanted {
    directory: String,
    pid: bool,
    ipc: bool,
    cgroups: Vec<String>,
    /// Where a new network namespace is to be mounted.
    net: Option<String>,
    /// A new user namespace: its first id on the host, and how many.
    user: Option<(u32, u32)>,
    /// The directory of layers to show as the new user namespace sees it.
    layers: Option<String>,
    /// The user namespace that the others belong to.
    join_user: Option<String>,
}

pub(crate) fn run(arguments: &[String]) -> Result<(), String> {
    sys::close_inherited();
    let wanted = parse(arguments)?;
    cgroup::join(&wanted.cgroups)?;
    match wanted.user {
        Some(ids) => make_user(ids, &wanted),
        None => beside(|| make(&wanted), |child, first| keep_all(&wanted, child, first)),
    }
}

/// `inside` makes namespaces in a child, which then waits while `outside` mounts them; its arguments
/// are the child and what `inside` gave.
fn beside(
    inside: impl FnOnce() -> Result<i32, String>,
    outside: impl FnOnce(i32, i32) -> Result<(), String>,
) -> Result<(), String> {
    let failed = |error| format!("cannot make a child: {error}");
    let (ready, tell) = sys::blocking_pipe().map_err(failed)?;
    let (wait, go) = sys::blocking_pipe().map_err(failed)?;
    let child = sys::fork_with_pid().map_err(failed)?;
    if child == 0 {
        drop((ready, go));
        let told = inside().and_then(|pid| {
            File::from(tell).write_all(&pid.to_le_bytes()).map_err(|error| format!("cannot tell: {error}"))
        });
        if let Err(message) = told {
            eprintln!("{message}");
            std::process::exit(1);
        }
        // Until the parent is done, or gone.
        let _ = File::from(wait).read(&mut [0]);
        std::process::exit(0);
    }
    drop((tell, wait));
    let mut pid = [0; 4];
    // What went wrong is on stderr already.
    let made = File::from(ready).read_exact(&mut pid).map_err(|_| "no namespaces".to_owned());
    let result = made.and_then(|()| outside(child, i32::from_le_bytes(pid)));
    drop(go);
    result
}

/// In the child. Gives the first process of a new pid namespace, or 0.
fn make(wanted: &Wanted) -> Result<i32, String> {
    let failed = |what: &'static str| move |error| format!("cannot make {what}: {error}");
    if wanted.pid {
        // The end of the first process would be the end of every container; without the privilege it
        // stays as it is, and in a user namespace there is none.
        let _ = std::fs::write("/proc/self/oom_score_adj", "-998");
    }
    if let Some(path) = &wanted.join_user {
        let join = || {
            sys::join_namespace(&File::open(path)?, libc::CLONE_NEWUSER)?;
            sys::become_root()
        };
        join().map_err(|error| format!("cannot join the user namespace {path}: {error}"))?;
    }
    if wanted.ipc {
        sys::unshare(libc::CLONE_NEWIPC).map_err(failed("an ipc namespace"))?;
    }
    if wanted.net.is_some() {
        sys::unshare(libc::CLONE_NEWNET).map_err(failed("a network namespace"))?;
    }
    if !wanted.pid {
        return Ok(0);
    }
    sys::unshare(libc::CLONE_NEWPID).map_err(failed("a pid namespace"))?;
    first::start()
}

fn keep_all(wanted: &Wanted, child: i32, first: i32) -> Result<(), String> {
    if wanted.ipc {
        keep(&format!("/proc/{child}/ns/ipc"), &format!("{}/ipc", wanted.directory))?;
    }
    if let Some(path) = &wanted.net {
        keep(&format!("/proc/{child}/ns/net"), path)?;
    }
    if wanted.pid {
        keep(&format!("/proc/{first}/ns/pid"), &format!("{}/pid", wanted.directory))?;
    }
    Ok(())
}

/// Ids from 0 on are those from `first` on of the host.
fn make_user((first, count): (u32, u32), wanted: &Wanted) -> Result<(), String> {
    let unshare = || {
        sys::unshare(libc::CLONE_NEWUSER)
            .map(|()| 0)
            .map_err(|error| format!("cannot make a user namespace: {error}"))
    };
    beside(unshare, |child, _| {
        for map in ["uid_map", "gid_map"] {
            let path = format!("/proc/{child}/{map}");
            std::fs::write(&path, format!("0 {first} {count}"))
                .map_err(|error| format!("cannot write {path}: {error}"))?;
        }
        let path = format!("{}/user", wanted.directory);
        keep(&format!("/proc/{child}/ns/user"), &path)?;
        let Some(layers) = &wanted.layers else { return Ok(()) };
        let mapped = format!("{}/layers", wanted.directory);
        let map = || {
            std::fs::create_dir(&mapped)?;
            sys::mount_mapped(layers, &mapped, &File::open(&path)?)
        };
        map().map_err(|error| {
            format!(
                "cannot map the owners of {layers} (does its file system support idmapped mounts?): {error}"
            )
        })
    })
}

fn keep(namespace: &str, path: &str) -> Result<(), String> {
    let make = || {
        if let Some(directory) = Path::new(path).parent() {
            std::fs::create_dir_all(directory)?;
        }
        File::create(path)
    };
    make().map_err(|error| format!("cannot make {path}: {error}"))?;
    sys::bind_mount(namespace, path).map_err(|error| format!("cannot keep {namespace} at {path}: {error}"))
}

fn parse(arguments: &[String]) -> Result<Wanted, String> {
    let mut wanted = Wanted::default();
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().cloned().ok_or_else(|| format!("{word} needs a value"));
        match word.as_str() {
            "--pid" => wanted.pid = true,
            "--ipc" => wanted.ipc = true,
            "--dir" => wanted.directory = value()?,
            "--cgroup" => wanted.cgroups.push(value()?),
            "--net" => wanted.net = Some(value()?),
            "--layers" => wanted.layers = Some(value()?),
            "--join-user" => wanted.join_user = Some(value()?),
            "--user" => wanted.user = Some(parse_ids(&value()?)?),
            _ => return Err(format!("unknown argument {word}")),
        }
    }
    if wanted.directory.is_empty() { Err("--dir is needed".to_owned()) } else { Ok(wanted) }
}

/// `FIRST:COUNT`
fn parse_ids(text: &str) -> Result<(u32, u32), String> {
    let parse = || {
        let (first, count) = text.split_once(':')?;
        Some((first.parse().ok()?, count.parse().ok()?))
    };
    parse().ok_or_else(|| format!("{text} is not FIRST:COUNT"))
}
