//! From a request to a plan of a process that joins a container. In: the container, what the agent
//! resolved. Out: a started child, or which step failed. What is the container's own (namespaces,
//! cgroups, seccomp filter) is taken from the container, never from the request.
//! Never: follows a cgroup of a process that has ended: its pidfd is asked afterwards.

use super::Monitor;
use super::container::Container;
use crate::sys::join::{Cgroup, FilterFile, Joined, Plan, Streams, Strings, spawn};
use crate::{cgroup, sys};
use lighter_shim_wire::exec::{ExecFailure, ExecProcess, ExecStep};
use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt};

/// What is the same for everything that joins: opened by the first, kept for the next.
pub(super) struct Host {
    pid_namespace: OwnedFd,
    /// By inode.
    user_namespace: u64,
    oom_score_adj: File,
    ignored_signals: Vec<i32>,
    pub(super) null: OwnedFd,
}

impl Host {
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self {
            pid_namespace: File::open("/proc/self/ns/pid")?.into(),
            user_namespace: user_namespace("self")?,
            oom_score_adj: File::open("/proc/self/oom_score_adj")?,
            ignored_signals: sys::ignored_signals(),
            null: File::open("/dev/null")?.into(),
        })
    }

    /// What a process that is born of this one has already.
    fn has_oom_score_adj(&self, wanted: i32) -> bool {
        let mut text = [0; 16];
        let count = self.oom_score_adj.read_at(&mut text, 0).unwrap_or(0);
        std::str::from_utf8(&text[..count]).is_ok_and(|text| text.trim().parse() == Ok(wanted))
    }
}

/// What is kept of a container that was joined, until it ends.
pub(super) struct Ground {
    /// /proc/pid/cgroup of the main process; it stays with that process.
    membership: File,
    /// What that said when the cgroups were opened.
    text: Vec<u8>,
    cgroup: Cgroup,
    filter: Option<FilterFile>,
}

impl Ground {
    fn open(container: &Container) -> Result<Self, ExecFailure> {
        let at = |step| move |error: io::Error| failure(step, &error);
        let membership = File::open(format!("/proc/{}/cgroup", container.pid()));
        let filter = container.seccomp_filter().map(|path| -> io::Result<FilterFile> {
            let file = File::open(path)?;
            let bytes = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
            Ok(FilterFile { file: file.into(), bytes })
        });
        Ok(Self {
            membership: membership.map_err(at(ExecStep::JoinCgroup))?,
            text: Vec::new(),
            cgroup: Cgroup { directory: None, files: Vec::new() },
            filter: filter.transpose().map_err(at(ExecStep::Confine))?,
        })
    }

    /// Where the main process is now, which may be below the container's own cgroup.
    fn refresh(&mut self, container: &Container) -> io::Result<()> {
        let mut room = [0; 4096];
        let count = self.membership.read_at(&mut room, 0)?;
        if count == 0 || self.text != room[..count] {
            let text = std::str::from_utf8(&room[..count]).map_err(io::Error::other)?;
            self.cgroup = open_cgroup(text, container)?;
            self.text = room[..count].to_vec();
        }
        Ok(())
    }
}

impl Monitor {
    /// A container and what is needed to join it.
    pub(super) fn joinable(&mut self, name: &str) -> Option<(io::Result<&Host>, &mut Container)> {
        let container = self.containers.iter_mut().find(|container| container.is_named(name))?;
        let host = match &mut self.host {
            Some(host) => Ok(&*host),
            none => Host::open().map(|host| &*none.insert(host)),
        };
        Some((host, container))
    }

    /// A cgroup that was removed and made again is another one.
    pub(super) fn distrust(&mut self, failure: &ExecFailure) {
        if failure.step == ExecStep::JoinCgroup {
            self.containers.iter_mut().for_each(|container| container.ground = None);
        }
    }
}

/// Starts `process` beside the main process of `container`, which must run.
pub(super) fn start(
    host: &Host,
    container: &mut Container,
    process: &ExecProcess,
    streams: Streams,
    gathers_orphans: bool,
) -> Result<Joined, ExecFailure> {
    let ground = container.ground.take();
    let mut ground = ground.map_or_else(|| Ground::open(container), Ok)?;
    ground.refresh(container).map_err(|error| failure(ExecStep::JoinCgroup, &error))?;
    let joined = start_on(&ground, host, container, process, streams, gathers_orphans)?;
    container.ground = Some(ground);
    Ok(joined)
}

fn start_on(
    ground: &Ground,
    host: &Host,
    container: &Container,
    process: &ExecProcess,
    streams: Streams,
    gathers_orphans: bool,
) -> Result<Joined, ExecFailure> {
    let gone = || failure(ExecStep::JoinNamespaces, &io::Error::from_raw_os_error(libc::ESRCH));
    let pidfd = container.pidfd().ok_or_else(gone)?;
    let user_namespace = user_namespace(&container.pid().to_string())
        .map_err(|error| failure(ExecStep::JoinNamespaces, &error))?;
    let user_namespace = user_namespace != host.user_namespace;
    let host_uid = if user_namespace { host_uid(container.pid(), process.uid) } else { process.uid };
    // What was read above by pid was of this container only if it is still there.
    sys::pidfd_send_signal(pidfd, 0).map_err(|_| gone())?;
    let oom_score_adj = process.oom_score_adj.filter(|wanted| !host.has_oom_score_adj(*wanted));
    let plan = Plan {
        container: pidfd,
        own_pid_namespace: &host.pid_namespace,
        ignored_signals: &host.ignored_signals,
        user_namespace,
        host_uid,
        cgroup: &ground.cgroup,
        limits: process
            .limits
            .iter()
            .map(|limit| (limit.resource, libc::rlimit64 { rlim_cur: limit.soft, rlim_max: limit.hard }))
            .collect(),
        oom_score_adj: oom_score_adj.map(|score| score.to_string()),
        apparmor: process.apparmor_profile.as_ref().map(|profile| format!("exec {profile}")),
        seccomp_filter: ground.filter.as_ref(),
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

/// The cgroups of a membership, without those that this process is in itself: what it starts is born there.
fn open_cgroup(membership: &str, container: &Container) -> io::Result<Cgroup> {
    let own = fs::read_to_string("/proc/self/cgroup")?;
    let differs = |line: &&str| !own.lines().any(|own| own == *line);
    let differing: Vec<&str> = membership.lines().filter(differs).collect();
    let (unified, others) = cgroup::directories(&differing.join("\n"), container.cgroup_version());
    let directory = unified.map(File::open).transpose()?.map(OwnedFd::from);
    // A thread moves itself without waiting until no process of the machine forks; it is the only one.
    let open = |path: String| -> io::Result<OwnedFd> {
        Ok(OwnedFd::from(File::options().write(true).open(format!("{path}/tasks"))?))
    };
    Ok(Cgroup { directory, files: others.into_iter().map(open).collect::<io::Result<_>>()? })
}

fn user_namespace(process: &str) -> io::Result<u64> {
    fs::metadata(format!("/proc/{process}/ns/user")).map(|meta| meta.ino())
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
