//! What a container in a user namespace is made of, put where its root may go. libcontainer sets such
//! a container up as a user who is nobody on the host: that one cannot enter the agent's directories,
//! nor map owners of mounts. So this process, which ends with the start, leaves for a mount namespace
//! of its own, and shows there, on a small tmpfs, the root file system, every bind mount (with its
//! owners mapped where the bundle says so) and the namespaces to join.
//! In: a bundle. Out: another bundle with these paths; `None` for a container without a user namespace.
//! Source: OCI runtime spec 1.2, config.md (mounts, uidMappings); mount_setattr(2), user_namespaces(7).
//! Never: a mount that another process sees, or that is left.

use crate::sys;
use libcontainer::oci_spec::runtime::{PosixRlimit, Spec};
use libcontainer::syscall::linux::{AT_EMPTY_PATH, AT_RECURSIVE, MountAttr};
use libcontainer::syscall::syscall::create_syscall;
use rustix::fs::CWD;
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, mount, mount_change, move_mount,
    open_tree,
};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// linux/mount.h; libcontainer names all but this one.
const MOUNT_ATTR_IDMAP: u64 = 0x10_0000;

/// Directories of every system that anybody may enter. What is in the chosen one is hidden from this
/// process and the container's first steps only.
const PLACES: [&str; 6] = ["/mnt", "/media", "/srv", "/opt", "/home", "/tmp"];

/// One thing to show.
struct Shown {
    tree: OwnedFd,
    directory: bool,
    path: PathBuf,
}

/// `keep` are paths that must stay visible.
pub(crate) fn prepare(bundle: &Path, keep: &[&Path]) -> Result<Option<PathBuf>, String> {
    let config = bundle.join("config.json");
    let text = fs::read(&config).map_err(|error| format!("cannot read {}: {error}", config.display()))?;
    let mut spec: Value =
        serde_json::from_slice(&text).map_err(|error| format!("{} is no JSON: {error}", config.display()))?;
    let Some(user) = user_namespace(&spec).map(str::to_owned) else { return Ok(None) };
    let user =
        File::open(&user).map_err(|error| format!("cannot open the user namespace {user}: {error}"))?;
    let place = place(keep)?;
    let failed = |error: io::Error| format!("cannot leave the mounts of the host: {error}");
    sys::unshare_mounts().map_err(failed)?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).map_err(|errno| failed(errno.into()))?;
    let shown = open_all(&mut spec, &place, &user)?;
    let covered =
        mount("stage", &place, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, Some(c"mode=755,size=4m"));
    covered.map_err(|errno| format!("cannot mount a tmpfs at {}: {errno}", place.display()))?;
    for one in &shown {
        one.show().map_err(|error| format!("cannot show {}: {error}", one.path.display()))?;
    }
    let own = place.join("bundle");
    let written = fs::create_dir(&own).and_then(|()| fs::write(own.join("config.json"), spec.to_string()));
    written.map_err(|error| format!("cannot write a bundle in {}: {error}", own.display()))?;
    raise_limits(&own)?;
    Ok(Some(own))
}

fn user_namespace(spec: &Value) -> Option<&str> {
    let mut namespaces = spec["linux"]["namespaces"].as_array()?.iter();
    namespaces.find(|namespace| namespace["type"] == "user")?["path"].as_str()
}

fn place(keep: &[&Path]) -> Result<PathBuf, String> {
    let mut places = PLACES.iter().map(Path::new);
    let free = places.find(|place| place.is_dir() && !keep.iter().any(|path| path.starts_with(place)));
    free.map(Path::to_owned)
        .ok_or_else(|| format!("a user namespace needs one of the directories {PLACES:?}"))
}

/// Opens everything before anything is covered, and writes the new paths into the spec.
fn open_all(spec: &mut Value, place: &Path, user: &File) -> Result<Vec<Shown>, String> {
    let mut all = Vec::new();
    let mut show = |value: &mut Value, recursive: bool, mapped: bool| -> Result<(), String> {
        let source = value.as_str().unwrap_or_default().to_owned();
        let shown =
            Shown::open(&source, place.join(all.len().to_string()), recursive, mapped.then_some(user));
        let shown = shown.map_err(|error| {
            let why = match error.raw_os_error() {
                Some(libc::EINVAL) if mapped => " (does its file system support idmapped mounts?)",
                _ => "",
            };
            format!("cannot show {source} in the user namespace{why}: {error}")
        })?;
        *value = json!(shown.path);
        all.push(shown);
        Ok(())
    };
    show(&mut spec["root"]["path"], true, false)?;
    for mount in spec["mounts"].as_array_mut().into_iter().flatten().filter(|mount| mount["type"] == "bind") {
        let recursive =
            mount["options"].as_array().is_some_and(|list| list.iter().any(|word| word == "rbind"));
        let Some(members) = mount.as_object_mut() else { continue };
        // libcontainer refuses what is done here.
        let mapped = members.remove("uidMappings").is_some() | members.remove("gidMappings").is_some();
        show(&mut mount["source"], recursive, mapped)?;
    }
    for namespace in spec["linux"]["namespaces"].as_array_mut().into_iter().flatten() {
        // The user namespace is joined first, by root of the host.
        if namespace["type"] != "user" && namespace["path"].is_string() {
            show(&mut namespace["path"], false, false)?;
        }
    }
    Ok(all)
}

impl Shown {
    fn open(source: &str, path: PathBuf, recursive: bool, user: Option<&File>) -> io::Result<Self> {
        let directory = fs::metadata(source)?.is_dir();
        let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        if recursive {
            flags |= OpenTreeFlags::AT_RECURSIVE;
        }
        let tree = open_tree(CWD, source, flags)?;
        if let Some(user) = user {
            let attributes = MountAttr {
                attr_set: MOUNT_ATTR_IDMAP,
                attr_clr: 0,
                propagation: 0,
                userns_fd: user.as_raw_fd() as u64,
            };
            let flags = AT_EMPTY_PATH | if recursive { AT_RECURSIVE } else { 0 };
            let size = size_of::<MountAttr>();
            let set = create_syscall().mount_setattr(tree.as_fd(), Path::new(""), flags, &attributes, size);
            set.map_err(|error| match error {
                libcontainer::syscall::SyscallError::IO(error) => error,
                libcontainer::syscall::SyscallError::Nix(errno) => io::Error::from_raw_os_error(errno as i32),
                other => io::Error::other(other),
            })?;
        }
        Ok(Self { tree, directory, path })
    }

    fn show(&self) -> io::Result<()> {
        if self.directory {
            fs::create_dir(&self.path)?;
        } else {
            File::create(&self.path)?;
        }
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        Ok(move_mount(&self.tree, "", CWD, &self.path, flags)?)
    }
}

/// In a user namespace nobody may raise a hard limit: the container inherits what it will then lower.
fn raise_limits(bundle: &Path) -> Result<(), String> {
    let spec =
        Spec::load(bundle.join("config.json")).map_err(|error| format!("cannot read the bundle: {error}"))?;
    let limits = spec.process().as_ref().and_then(|process| process.rlimits().clone()).unwrap_or_default();
    for limit in &limits {
        sys::raise_hard_limit(resource(limit), limit.hard())
            .map_err(|error| format!("cannot raise {}: {error}", limit.typ()))?;
    }
    Ok(())
}

/// setrlimit(2)'s number.
fn resource(limit: &PosixRlimit) -> u32 {
    use libcontainer::oci_spec::runtime::PosixRlimitType as Type;
    match limit.typ() {
        Type::RlimitCpu => libc::RLIMIT_CPU,
        Type::RlimitFsize => libc::RLIMIT_FSIZE,
        Type::RlimitData => libc::RLIMIT_DATA,
        Type::RlimitStack => libc::RLIMIT_STACK,
        Type::RlimitCore => libc::RLIMIT_CORE,
        Type::RlimitRss => libc::RLIMIT_RSS,
        Type::RlimitNproc => libc::RLIMIT_NPROC,
        Type::RlimitMemlock => libc::RLIMIT_MEMLOCK,
        Type::RlimitAs => libc::RLIMIT_AS,
        Type::RlimitLocks => libc::RLIMIT_LOCKS,
        Type::RlimitSigpending => libc::RLIMIT_SIGPENDING,
        Type::RlimitMsgqueue => libc::RLIMIT_MSGQUEUE,
        Type::RlimitNice => libc::RLIMIT_NICE,
        Type::RlimitRtprio => libc::RLIMIT_RTPRIO,
        Type::RlimitRttime => libc::RLIMIT_RTTIME,
        _ => libc::RLIMIT_NOFILE,
    }
}
