//! A process that joins a container and becomes a program there. Everything is prepared before the
//! fork (`Plan`); between fork and exec there are system calls only, no allocation, no lock: each
//! step of `run` is one, and the first that fails is told over a pipe that closes when exec works.
//! In: a plan. Out: the pid, as this process sees it; the child is this process's own.
//! The pid namespace is entered by the parent, for its children, and left again: one fork, not two.
//! Source: setns(2), clone(2), capabilities(7), pts(4), seccomp(2). Never: a file left behind.
#![allow(unsafe_code)]

use super::{check, pass};
use lighter_shim_wire::Wire;
use lighter_shim_wire::exec::{Capabilities, ExecFailure, ExecStep, WireWindow};
use std::ffi::{CStr, CString, c_char, c_int, c_ulong};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// Where the program reads and writes.
pub(crate) enum Streams {
    /// Input, output, error.
    Descriptors([RawFd; 3]),
    /// A terminal of the container's; its master goes to `session` with the bytes of `message`.
    Terminal { session: RawFd, message: Vec<u8>, window: WireWindow },
}

/// Which cgroups the program belongs to.
pub(crate) struct Cgroup {
    /// The directory of the unified hierarchy; the child is born in it.
    pub(crate) directory: Option<OwnedFd>,
    /// `tasks` of each hierarchy of v1.
    pub(crate) files: Vec<OwnedFd>,
}

/// A compiled program in a file, as the helper installs it.
pub(crate) struct FilterFile {
    pub(crate) file: OwnedFd,
    pub(crate) bytes: usize,
}

/// What the child does, in this order.
pub(crate) struct Plan<'a> {
    pub(crate) container: &'a OwnedFd,
    /// The way back.
    pub(crate) own_pid_namespace: &'a OwnedFd,
    /// Signals that this process ignores; what it handles is the default again in a new program.
    pub(crate) ignored_signals: &'a [c_int],
    /// Whether the container has a user namespace of its own.
    pub(crate) user_namespace: bool,
    /// The program's user as the host knows it.
    pub(crate) host_uid: u32,
    pub(crate) cgroup: &'a Cgroup,
    /// Resource, soft, hard.
    pub(crate) limits: Vec<(u32, libc::rlimit64)>,
    /// `None`: as this process has it.
    pub(crate) oom_score_adj: Option<String>,
    /// `exec PROFILE`.
    pub(crate) apparmor: Option<String>,
    pub(crate) seccomp_filter: Option<&'a FilterFile>,
    pub(crate) streams: Streams,
    pub(crate) umask: Option<u32>,
    pub(crate) working_directory: CString,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) capabilities: Capabilities,
    pub(crate) no_new_privileges: bool,
    /// Orphans of the program become its children, so that they are found when it is killed.
    pub(crate) gathers_orphans: bool,
    pub(crate) programs: Vec<CString>,
    pub(crate) arguments: Strings,
    pub(crate) environment: Strings,
}

/// A list as execve(2) wants it.
pub(crate) struct Strings {
    pointers: Vec<*const c_char>,
    /// What the pointers point to.
    _owned: Vec<CString>,
}

impl Strings {
    pub(crate) fn new(texts: Vec<CString>) -> Self {
        // A CString's bytes stay where they are when the CString moves.
        let pointers = texts.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect();
        Self { pointers, _owned: texts }
    }
}

/// A started child and the pipe that tells of a failure, or closes.
pub(crate) struct Joined {
    pub(crate) pid: i32,
    pub(crate) failure: OwnedFd,
}

type Step = Result<(), (ExecStep, c_int)>;

/// The bytes of a failure on the pipe: step, errno.
pub(crate) const FAILURE_BYTES: usize = 5;

/// What the pipe said; `None` when the program runs.
pub(crate) fn failure_of(bytes: &[u8]) -> Option<ExecFailure> {
    ExecFailure::from_bytes(bytes).ok()
}

fn errno() -> c_int {
    io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}

fn ok(step: ExecStep, result: c_int) -> Step {
    if result < 0 { Err((step, errno())) } else { Ok(()) }
}

/// Starts the child. An error is one of this process: no child is left.
pub(crate) fn spawn(plan: &Plan<'_>) -> Result<Joined, (ExecStep, io::Error)> {
    let namespaces = |error| (ExecStep::JoinNamespaces, error);
    let forked = |error| (ExecStep::Fork, error);
    let (failure, report) = super::pipe().map_err(forked)?;
    // SAFETY: no pointers.
    check(unsafe { libc::setns(plan.container.as_raw_fd(), libc::CLONE_NEWPID) }).map_err(namespaces)?;
    let pid = clone(plan.cgroup);
    if let Ok(0) = pid {
        run(plan, report.as_raw_fd());
    }
    // SAFETY: no pointers. Cannot fail: the descriptor is of this process's own namespace.
    unsafe { libc::setns(plan.own_pid_namespace.as_raw_fd(), libc::CLONE_NEWPID) };
    Ok(Joined { pid: pid.map_err(forked)?, failure })
}

/// linux/sched.h; libc's constant is too narrow for it.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// fork(2), into a cgroup where that can be said. 0 in the child.
fn clone(cgroup: &Cgroup) -> io::Result<i32> {
    // SAFETY: all-zero bytes are valid clone_args.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.exit_signal = libc::SIGCHLD as u64;
    if let Some(directory) = &cgroup.directory {
        arguments.flags = CLONE_INTO_CGROUP;
        arguments.cgroup = directory.as_raw_fd() as u64;
    }
    // SAFETY: without CLONE_VM and a stack this is a fork; the process has one thread.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of_val(&arguments)) };
    if pid < 0 { Err(io::Error::last_os_error()) } else { Ok(pid as i32) }
}

/// The child's life before its program.
fn run(plan: &Plan<'_>, report: RawFd) -> ! {
    let (step, errno) = match prepare(plan, report) {
        Ok(()) => (ExecStep::Execute, execute(plan)),
        Err(failed) => failed,
    };
    let mut bytes = [0; FAILURE_BYTES];
    bytes[0] = step_tag(step);
    bytes[1..].copy_from_slice(&errno.to_le_bytes());
    // SAFETY: `bytes` lives through the call. `report` is 3 from `close_all_but` on, and before it
    // is still itself. _exit runs nothing of the parent's.
    unsafe {
        if libc::write(report, bytes.as_ptr().cast(), bytes.len()) < 0 {
            libc::write(REPORT, bytes.as_ptr().cast(), bytes.len());
        }
        libc::_exit(127)
    }
}

/// As `ExecStep` is encoded, without allocation.
fn step_tag(step: ExecStep) -> u8 {
    match step {
        ExecStep::Fork => 1,
        ExecStep::JoinCgroup => 2,
        ExecStep::SetLimits => 3,
        ExecStep::JoinNamespaces => 4,
        ExecStep::OpenTerminal => 5,
        ExecStep::ChangeDirectory => 6,
        ExecStep::SetUser => 7,
        ExecStep::SetCapabilities => 8,
        ExecStep::Confine => 9,
        ExecStep::Execute => 10,
    }
}

fn prepare(plan: &Plan<'_>, report: RawFd) -> Step {
    fresh_signals(plan.ignored_signals);
    join_cgroups(plan.cgroup)?;
    set_limits(plan)?;
    // Read on the host's side; mapped, because nothing may be allocated.
    let filter = map_filter(plan)?;
    if let Streams::Descriptors(descriptors) = &plan.streams {
        descriptors.iter().for_each(|fd| give_pipe(*fd, plan));
    }
    join_namespaces(plan)?;
    connect_streams(plan)?;
    close_all_but(report)?;
    if let Some(mask) = plan.umask {
        // SAFETY: no pointers.
        unsafe { libc::umask(mask as libc::mode_t) };
    }
    let entered = change_directory(&plan.working_directory);
    // Without no-new-privileges a filter needs the privileges that go away next.
    if !plan.no_new_privileges {
        filter.install()?;
    }
    set_user(plan)?;
    set_capabilities(&plan.capabilities)?;
    // A directory that only its user may enter.
    entered.or_else(|_| change_directory(&plan.working_directory))?;
    inside_root()?;
    if plan.gathers_orphans {
        // SAFETY: no pointers.
        ok(ExecStep::Confine, unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) })?;
    }
    if plan.no_new_privileges {
        // SAFETY: no pointers.
        ok(ExecStep::Confine, unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })?;
        filter.install()?;
    }
    Ok(())
}

/// As a fresh process has them; the shim reads its signals from a descriptor and Rust ignores SIGPIPE.
fn fresh_signals(ignored: &[c_int]) {
    // SAFETY: a zeroed sigset_t is valid for sigemptyset; SIG_DFL is valid for every signal.
    unsafe {
        for signal in ignored {
            libc::signal(*signal, libc::SIG_DFL);
        }
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &set, std::ptr::null_mut());
    }
}

fn join_cgroups(cgroup: &Cgroup) -> Step {
    cgroup.files.iter().try_for_each(|file| write_all(ExecStep::JoinCgroup, file.as_raw_fd(), b"0"))
}

fn write_all(step: ExecStep, fd: RawFd, bytes: &[u8]) -> Step {
    // SAFETY: the pointer and the length describe `bytes`.
    let count = unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) };
    if count < 0 { Err((step, errno())) } else { Ok(()) }
}

fn write_file(step: ExecStep, path: &CStr, bytes: &[u8]) -> Step {
    // SAFETY: `path` ends with a NUL byte.
    let fd = unsafe { libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC) };
    ok(step, fd)?;
    write_all(step, fd, bytes)
    // Closed with all others.
}

/// On the host's side, where /proc is the host's and limits may be raised.
fn set_limits(plan: &Plan<'_>) -> Step {
    for (resource, limit) in &plan.limits {
        // SAFETY: `limit` lives through the call; a null pointer asks for no old value.
        let result = unsafe { libc::prlimit64(0, *resource as _, limit, std::ptr::null_mut()) };
        ok(ExecStep::SetLimits, result)?;
    }
    if let Some(score) = &plan.oom_score_adj {
        write_file(ExecStep::SetLimits, c"/proc/self/oom_score_adj", score.as_bytes())?;
    }
    if let Some(words) = &plan.apparmor {
        let new = write_file(ExecStep::Confine, c"/proc/self/attr/apparmor/exec", words.as_bytes());
        new.or_else(|_| write_file(ExecStep::Confine, c"/proc/self/attr/exec", words.as_bytes()))?;
    }
    Ok(())
}

/// A filter in memory, or none.
struct Filter {
    instructions: *mut libc::sock_filter,
    count: u16,
}

impl Filter {
    fn install(&self) -> Step {
        if self.count == 0 {
            return Ok(());
        }
        let header = libc::sock_fprog { len: self.count, filter: self.instructions };
        // SAFETY: `header` describes the mapping that `map_filter` made, which is never unmapped.
        let result =
            unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const header) };
        ok(ExecStep::Confine, result as c_int)
    }
}

fn map_filter(plan: &Plan<'_>) -> Result<Filter, (ExecStep, c_int)> {
    let none = Filter { instructions: std::ptr::null_mut(), count: 0 };
    let Some(FilterFile { file, bytes }) = plan.seccomp_filter else { return Ok(none) };
    let count = bytes / size_of::<libc::sock_filter>();
    if count == 0 || count > u16::MAX as usize {
        return Err((ExecStep::Confine, libc::EINVAL));
    }
    let (fd, no_address) = (file.as_raw_fd(), std::ptr::null_mut());
    // SAFETY: the mapping is as long as the file, which nobody shortens: it is replaced by renaming.
    unsafe {
        let map = libc::mmap(no_address, *bytes, libc::PROT_READ, libc::MAP_PRIVATE, fd, 0);
        if map == libc::MAP_FAILED {
            return Err((ExecStep::Confine, errno()));
        }
        Ok(Filter { instructions: map.cast(), count: count as u16 })
    }
}

fn join_namespaces(plan: &Plan<'_>) -> Step {
    let all = libc::CLONE_NEWNS
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWCGROUP;
    let flags = if plan.user_namespace { all | libc::CLONE_NEWUSER } else { all };
    // SAFETY: no pointers. Root and working directory are the container's afterwards (setns(2)).
    ok(ExecStep::JoinNamespaces, unsafe { libc::setns(plan.container.as_raw_fd(), flags) })?;
    if plan.user_namespace {
        // The ids of this process mean nothing there until it has some of that namespace.
        // SAFETY: no pointers.
        unsafe {
            ok(ExecStep::SetUser, libc::setresgid(0, 0, 0))?;
            ok(ExecStep::SetUser, libc::setresuid(0, 0, 0))?;
        }
    }
    // SAFETY: no pointers. A session of its own: signals to it reach nobody else.
    ok(ExecStep::JoinNamespaces, unsafe { libc::setsid() })
}

fn connect_streams(plan: &Plan<'_>) -> Step {
    match &plan.streams {
        Streams::Descriptors(descriptors) => {
            for (target, fd) in descriptors.iter().enumerate() {
                // SAFETY: no pointers. The sources are above 2: this process's own 0 to 2 are taken.
                ok(ExecStep::Execute, unsafe { libc::dup2(*fd, target as c_int) })?;
            }
            Ok(())
        }
        Streams::Terminal { session, message, window } => {
            let master = open_terminal(plan, window)?;
            pass::send(*session, message, &[master])
                .map_err(|error| (ExecStep::OpenTerminal, error.raw_os_error().unwrap_or(libc::EIO)))
        }
    }
}

/// Programs open /dev/stdout anew, which only the owner of a pipe may. On the host's side: a user
/// namespace may not give away what is not its own.
fn give_pipe(fd: c_int, plan: &Plan<'_>) {
    // SAFETY: all-zero bytes are a valid stat, which lives through the call.
    unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        if libc::fstat(fd, &mut stat) == 0 && stat.st_mode & libc::S_IFMT == libc::S_IFIFO {
            // Without the right to do so the program runs all the same.
            libc::fchown(fd, plan.host_uid, u32::MAX);
        }
    }
}

/// Makes a terminal of the container's devpts the controlling one and gives its master.
/// What the container has put at the path is not trusted: it must be the devpts multiplexer.
fn open_terminal(plan: &Plan<'_>, window: &WireWindow) -> Result<c_int, (ExecStep, c_int)> {
    const STEP: ExecStep = ExecStep::OpenTerminal;
    const PTMX: (u32, u32) = (5, 2);
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
    let size = libc::winsize { ws_row: window.rows, ws_col: window.columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the path ends with a NUL byte; all-zero bytes are valid stat and statfs; each pointer
    // lives through its call.
    unsafe {
        let master = libc::open(c"/dev/pts/ptmx".as_ptr(), flags);
        ok(STEP, master)?;
        let mut stat: libc::stat = std::mem::zeroed();
        let mut system: libc::statfs = std::mem::zeroed();
        ok(STEP, libc::fstat(master, &mut stat))?;
        ok(STEP, libc::fstatfs(master, &mut system))?;
        let is_ptmx = stat.st_mode & libc::S_IFMT == libc::S_IFCHR
            && (libc::major(stat.st_rdev), libc::minor(stat.st_rdev)) == PTMX
            && system.f_type == DEVPTS_SUPER_MAGIC;
        if !is_ptmx {
            return Err((STEP, libc::ENODEV));
        }
        let unlocked: c_int = 0;
        ok(STEP, libc::ioctl(master, libc::TIOCSPTLCK, &raw const unlocked))?;
        let slave = libc::ioctl(master, libc::TIOCGPTPEER as _, libc::O_RDWR | libc::O_NOCTTY);
        ok(STEP, slave)?;
        ok(STEP, libc::ioctl(master, libc::TIOCSWINSZ, &raw const size))?;
        // Its group stays devpts's, so that wall(1) and the like work.
        ok(STEP, libc::fchown(slave, plan.uid, u32::MAX))?;
        ok(STEP, libc::ioctl(slave, libc::TIOCSCTTY, 0 as c_ulong))?;
        for target in 0..3 {
            ok(STEP, libc::dup2(slave, target))?;
        }
        Ok(master)
    }
}

/// linux/magic.h
const DEVPTS_SUPER_MAGIC: libc::__fsword_t = 0x1cd1;

/// Where the report is from `close_all_but` on.
const REPORT: RawFd = 3;

/// Nothing of the host stays open: a working directory of /proc/self/fd/N leads nowhere.
fn close_all_but(report: RawFd) -> Step {
    // SAFETY: no pointers; every descriptor above 3 is done with.
    unsafe {
        if report != REPORT {
            ok(ExecStep::Execute, libc::dup3(report, REPORT, libc::O_CLOEXEC))?;
        }
        libc::syscall(libc::SYS_close_range, (REPORT + 1) as u32, u32::MAX, 0u32);
    }
    Ok(())
}

fn change_directory(path: &CStr) -> Step {
    // SAFETY: `path` ends with a NUL byte.
    ok(ExecStep::ChangeDirectory, unsafe { libc::chdir(path.as_ptr()) })
}

/// A working directory outside the root has a name that does not begin with a slash (getcwd(2)).
fn inside_root() -> Step {
    let mut name = [0u8; libc::PATH_MAX as usize];
    // SAFETY: `name` has room for its length.
    let result = unsafe { libc::syscall(libc::SYS_getcwd, name.as_mut_ptr(), name.len()) };
    ok(ExecStep::ChangeDirectory, result as c_int)?;
    if name[0] == b'/' { Ok(()) } else { Err((ExecStep::ChangeDirectory, libc::ENOENT)) }
}

fn set_user(plan: &Plan<'_>) -> Step {
    const STEP: ExecStep = ExecStep::SetUser;
    drop_bounding(plan.capabilities.bounding)?;
    // SAFETY: the pointer and the length describe `groups`; the others have no pointers.
    unsafe {
        // Capabilities outlive the change of user until they are set.
        ok(STEP, libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0))?;
        ok(STEP, libc::setgroups(plan.groups.len(), plan.groups.as_ptr()))?;
        ok(STEP, libc::setresgid(plan.gid, plan.gid, plan.gid))?;
        ok(STEP, libc::setresuid(plan.uid, plan.uid, plan.uid))?;
        ok(STEP, libc::prctl(libc::PR_SET_KEEPCAPS, 0, 0, 0, 0))
    }
}

/// Only possible while CAP_SETPCAP is effective.
fn drop_bounding(bounding: u64) -> Step {
    let missing = |capability: &c_ulong| bounding & (1 << capability) == 0;
    for capability in (0..u64::BITS as c_ulong).filter(missing) {
        // SAFETY: no pointers. EINVAL ends the list: the kernel knows no more.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } < 0 {
            return if errno() == libc::EINVAL { Ok(()) } else { Err((ExecStep::SetCapabilities, errno())) };
        }
    }
    Ok(())
}

/// linux/capability.h: struct __user_cap_header_struct and two of __user_cap_data_struct.
#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: c_int,
}
#[repr(C)]
struct CapabilityData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}
const LINUX_CAPABILITY_VERSION_3: u32 = 0x2008_0522;

fn set_capabilities(wanted: &Capabilities) -> Step {
    const STEP: ExecStep = ExecStep::SetCapabilities;
    let header = CapabilityHeader { version: LINUX_CAPABILITY_VERSION_3, pid: 0 };
    let half = |shift: u32| CapabilityData {
        effective: (wanted.effective >> shift) as u32,
        permitted: (wanted.permitted >> shift) as u32,
        inheritable: (wanted.inheritable >> shift) as u32,
    };
    let data = [half(0), half(32)];
    // SAFETY: `header` and `data` are as the kernel's structures and live through the call.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) };
    ok(STEP, result as c_int)?;
    let clear = libc::PR_CAP_AMBIENT_CLEAR_ALL as c_ulong;
    // SAFETY: no pointers.
    ok(STEP, unsafe { libc::prctl(libc::PR_CAP_AMBIENT, clear, 0, 0, 0) })?;
    for capability in (0..u64::BITS as c_ulong).filter(|bit| wanted.ambient & (1 << bit) != 0) {
        let raise = libc::PR_CAP_AMBIENT_RAISE as c_ulong;
        // SAFETY: no pointers.
        ok(STEP, unsafe { libc::prctl(libc::PR_CAP_AMBIENT, raise, capability, 0, 0) })?;
    }
    Ok(())
}

/// Tries each path as execvp(3) does; returns why none of them is the program.
fn execute(plan: &Plan<'_>) -> c_int {
    let mut why = libc::ENOENT;
    for program in &plan.programs {
        // SAFETY: both lists end with a null pointer and point to strings that the plan owns.
        unsafe {
            libc::execve(
                program.as_ptr(),
                plan.arguments.pointers.as_ptr(),
                plan.environment.pointers.as_ptr(),
            );
        }
        match errno() {
            libc::ENOENT | libc::ENOTDIR => {}
            libc::EACCES => why = libc::EACCES,
            other => return other,
        }
    }
    why
}

#[cfg(test)]
mod tests {
    use super::{FAILURE_BYTES, failure_of, step_tag};
    use lighter_shim_wire::Wire;
    use lighter_shim_wire::exec::{ExecFailure, ExecStep};

    /// The child writes a failure without allocation; what reads it is the protocol's own reader.
    #[test]
    fn the_bytes_of_a_failure_are_the_protocols() {
        use ExecStep::{
            ChangeDirectory, Confine, Execute, Fork, JoinCgroup, JoinNamespaces, OpenTerminal,
            SetCapabilities, SetLimits, SetUser,
        };
        let steps = [
            Fork,
            JoinCgroup,
            SetLimits,
            JoinNamespaces,
            OpenTerminal,
            ChangeDirectory,
            SetUser,
            SetCapabilities,
            Confine,
            Execute,
        ];
        for step in steps {
            let failure = ExecFailure { step, errno: libc::ENOENT };
            let mut bytes = vec![step_tag(step)];
            bytes.extend_from_slice(&libc::ENOENT.to_le_bytes());
            assert_eq!((failure.to_bytes(), bytes.len()), (bytes.clone(), FAILURE_BYTES));
            assert_eq!(failure_of(&bytes), Some(failure));
        }
        assert_eq!(failure_of(&[]), None);
    }
}
