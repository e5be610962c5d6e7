//! From a request to a plan of a process that joins a container. In: the container, what the agent
//! resolved. Out: a started child, or which step failed. What is the container's own (namespaces,
//! cgroups, seccomp filter) is taken from the container, never from the request.
//! Never: follows a cgroup of a process that has ended: its pidfd is asked afterwards.

use super::container::Container;
use crate::sys::join::{Cgroup, Joined, Plan, Streams, Strings, spawn};
use crate::{cgroup, sys};
use lighter_shim_wire::exec::{ExecFailure, ExecProcess, ExecStep};
use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;

/// Starts `process` beside the main process of `container`, which must run.
pub(super) fn start(
    container: &Container,
    process: &ExecProcess,
    streams: Streams,
    gathers_orphans: bool,
) -> Result<Joined, ExecFailure> {
    let gone = || failure(ExecStep::JoinNamespaces, &io::Error::from_raw_os_error(libc::ESRCH));
    let pidfd = container.pidfd().ok_or_else(gone)?;
    let cgroup = open_cgroup(container).map_err(|error| failure(ExecStep::JoinCgroup, &error))?;
    let user_namespace =
        has_user_namespace(container.pid()).map_err(|error| failure(ExecStep::JoinNamespaces, &error))?;
    let host_uid = if user_namespace { host_uid(container.pid(), process.uid) } else { process.uid };
    // What was read above by pid was of this container only if it is still there.
    sys::pidfd_send_signal(pidfd, 0).map_err(|_| gone())?;
    let plan = Plan {
        container: pidfd,
        user_namespace,
        host_uid,
        cgroup,
        limits: process
            .limits
            .iter()
            .map(|limit| (limit.resource, libc::rlimit64 { rlim_cur: limit.soft, rlim_max: limit.hard }))
            .collect(),
        oom_score_adj: process.oom_score_adj.map(|score| score.to_string()),
        apparmor: process.apparmor_profile.as_ref().map(|profile| format!("exec {profile}")),
        seccomp_filter: container.seccomp_filter().map(text).transpose()?,
        streams,
        umask: process.umask,
        working_directory: text(&process.working_directory)?,
        uid: process.uid,
        gid: process.gid,
        groups: process.groups.clone(),
        capabilities: process.capabilities,
        no_new_privileges: process.no_new_privileges,
        gathers_orphans,
        programs: texts(&process.programs)?,
        arguments: Strings::new(texts(&process.arguments)?),
        environment: Strings::new(texts(&process.environment)?),
    };
    spawn(&plan).map_err(|(step, error)| failure(step, &error))
}

fn failure(step: ExecStep, error: &io::Error) -> ExecFailure {
    ExecFailure { step, errno: error.raw_os_error().unwrap_or(libc::EIO) }
}

fn text(text: &str) -> Result<CString, ExecFailure> {
    CString::new(text).map_err(|_| ExecFailure { step: ExecStep::Execute, errno: libc::EINVAL })
}

fn texts(list: &[String]) -> Result<Vec<CString>, ExecFailure> {
    list.iter().map(|entry| text(entry)).collect()
}

/// Where the main process is now, which may be below the container's own cgroup.
fn open_cgroup(container: &Container) -> io::Result<Cgroup> {
    let membership = fs::read_to_string(format!("/proc/{}/cgroup", container.pid()))?;
    let (unified, others) = cgroup::directories(&membership, container.cgroup_version());
    let directory = unified.map(File::open).transpose()?.map(OwnedFd::from);
    let open = |path: String| -> io::Result<OwnedFd> {
        Ok(OwnedFd::from(File::options().write(true).open(format!("{path}/cgroup.procs"))?))
    };
    Ok(Cgroup { directory, files: others.into_iter().map(open).collect::<io::Result<_>>()? })
}

fn has_user_namespace(pid: i32) -> io::Result<bool> {
    let inode = |of: &str| fs::metadata(format!("/proc/{of}/ns/user")).map(|meta| meta.ino());
    Ok(inode(&pid.to_string())? != inode("self")?)
}

/// What the host calls user `uid` of the container (user_namespaces(7)); the same where nothing is said.
fn host_uid(pid: i32, uid: u32) -> u32 {
    let map = fs::read_to_string(format!("/proc/{pid}/uid_map")).unwrap_or_default();
    mapped(&map, uid).unwrap_or(uid)
}

fn mapped(map: &str, uid: u32) -> Option<u32> {
    map.lines().find_map(|line| {
        let mut words = line.split_whitespace().map(str::parse::<u32>);
        let (inside, outside, count) = (words.next()?.ok()?, words.next()?.ok()?, words.next()?.ok()?);
        let offset = uid.checked_sub(inside).filter(|offset| *offset < count)?;
        outside.checked_add(offset)
    })
}
