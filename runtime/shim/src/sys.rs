//! The system calls std does not have, behind safe functions.
//! In: descriptors and numbers. Out: owned descriptors or `io::Error`.
//! With its submodules the only one of the shim with unsafe code. Never: keeps state.
#![allow(unsafe_code)]

pub(crate) mod join;
pub(crate) mod pass;

use std::ffi::CString;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::AtomicU64;

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn owned(result: libc::c_int) -> io::Result<OwnedFd> {
    let fd = check(result)?;
    // SAFETY: the kernel just gave us this descriptor; nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Closes every descriptor above stderr that came with the process.
pub(crate) fn close_inherited() {
    // SAFETY: called first in main, before any descriptor above 2 has an owner, or in a fork that uses
    // and drops none of the owners it has inherited.
    unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, 0u32) };
}

/// A number that this process and its forks share, for as long as one of them lives.
pub(crate) fn shared_word() -> io::Result<&'static AtomicU64> {
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping of one page, zeroed and aligned, which is never unmapped.
    unsafe {
        let page = libc::mmap(std::ptr::null_mut(), size_of::<AtomicU64>(), protection, flags, -1, 0);
        if page == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(&*page.cast::<AtomicU64>())
    }
}

/// Which side of a fork this is.
pub(crate) enum Forked {
    Parent,
    Child,
}

pub(crate) fn fork() -> io::Result<Forked> {
    // SAFETY: the process has one thread, so the child may go on as an ordinary process.
    match check(unsafe { libc::fork() })? {
        0 => Ok(Forked::Child),
        _ => Ok(Forked::Parent),
    }
}

/// As `fork`; the child's pid on the parent's side, 0 on the child's.
pub(crate) fn fork_with_pid() -> io::Result<i32> {
    // SAFETY: the process has one thread, so the child may go on as an ordinary process.
    check(unsafe { libc::fork() })
}

/// unshare(2).
pub(crate) fn unshare(flags: libc::c_int) -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::unshare(flags) }).map(drop)
}

/// setns(2).
pub(crate) fn join_namespace(namespace: &impl AsRawFd, kind: libc::c_int) -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::setns(namespace.as_raw_fd(), kind) }).map(drop)
}

/// User and group 0 of the user namespace that was just joined.
pub(crate) fn become_root() -> io::Result<()> {
    // SAFETY: no pointers.
    unsafe {
        check(libc::setresgid(0, 0, 0))?;
        check(libc::setresuid(0, 0, 0)).map(drop)
    }
}

/// linux/mount.h: struct mount_attr, and what libc does not have of its flags.
#[repr(C)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}
const MOUNT_ATTR_RDONLY: u64 = 0x1;
const MOUNT_ATTR_IDMAP: u64 = 0x10_0000;
const OPEN_TREE_CLONE: libc::c_uint = 1;
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 4;

/// A mount of `source` that no namespace has yet, with `set` (open_tree(2), mount_setattr(2)).
fn clone_mount(source: &str, set: u64, user_namespace: RawFd) -> io::Result<OwnedFd> {
    let source = CString::new(source)?;
    let open = OPEN_TREE_CLONE | libc::O_CLOEXEC as libc::c_uint;
    // SAFETY: the path ends with a NUL byte and lives through the call.
    let tree = unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, source.as_ptr(), open) };
    let tree = owned(tree as libc::c_int)?;
    let attributes = MountAttributes { set, clear: 0, propagation: 0, user_namespace: user_namespace as u64 };
    let (fd, empty, size) = (tree.as_raw_fd(), c"".as_ptr(), size_of::<MountAttributes>());
    // SAFETY: `attributes` is as the kernel's structure, `size` is its size, and both live through the call.
    let done = unsafe {
        libc::syscall(libc::SYS_mount_setattr, fd, empty, libc::AT_EMPTY_PATH, &raw const attributes, size)
    };
    check(done as libc::c_int).map(|_| tree)
}

/// The file `path` on a read-only mount of its own: who executes it from there cannot write to it,
/// by whatever name.
pub(crate) fn open_read_only(path: &str) -> io::Result<OwnedFd> {
    clone_mount(path, MOUNT_ATTR_RDONLY, 0)
}

/// Shows the directory `source` at `target` as well, read-only, with its owners as `user_namespace`
/// maps them (mount_setattr(2), MOUNT_ATTR_IDMAP). What is mounted below `source` is not shown.
pub(crate) fn mount_mapped(source: &str, target: &str, user_namespace: &impl AsRawFd) -> io::Result<()> {
    let target = CString::new(target)?;
    let tree = clone_mount(source, MOUNT_ATTR_IDMAP | MOUNT_ATTR_RDONLY, user_namespace.as_raw_fd())?;
    let (fd, empty) = (tree.as_raw_fd(), c"".as_ptr());
    // SAFETY: both paths end with a NUL byte and live through the call.
    let moved = unsafe {
        let to = target.as_ptr();
        libc::syscall(libc::SYS_move_mount, fd, empty, libc::AT_FDCWD, to, MOVE_MOUNT_F_EMPTY_PATH)
    };
    check(moved as libc::c_int).map(drop)
}

/// Shows `source` at `target` as well (mount(2), MS_BIND).
pub(crate) fn bind_mount(source: &str, target: &str) -> io::Result<()> {
    let (source, target) = (CString::new(source)?, CString::new(target)?);
    let (kind, flags, data) = (std::ptr::null(), libc::MS_BIND, std::ptr::null());
    // SAFETY: both paths end with a NUL byte and live through the call; a bind mount reads no more.
    check(unsafe { libc::mount(source.as_ptr(), target.as_ptr(), kind, flags, data) }).map(drop)
}

/// Makes an empty, read-only file system the root of this process's mount namespace, which must be its
/// own already (pivot_root(2)). It covers a directory that every user of every namespace may enter.
pub(crate) fn enter_empty_root() -> io::Result<()> {
    let (none, here, target) = (std::ptr::null(), c".".as_ptr(), c"/proc".as_ptr());
    let (empty, options) = (c"tmpfs".as_ptr(), c"size=0,nr_inodes=2,mode=555".as_ptr());
    let flags = libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    // SAFETY: every string ends with a NUL byte and lives through its call.
    unsafe {
        // What is mounted from here on is nobody else's.
        check(libc::mount(none, c"/".as_ptr(), none, libc::MS_REC | libc::MS_PRIVATE, std::ptr::null()))?;
        check(libc::mount(empty, target, empty, flags, options.cast()))?;
        check(libc::chdir(target))?;
        // The old root ends up on top of the new one, and is taken away (pivot_root(2), NOTES).
        check(libc::syscall(libc::SYS_pivot_root, here, here) as libc::c_int)?;
        check(libc::umount2(here, libc::MNT_DETACH))?;
        check(libc::chdir(c"/".as_ptr())).map(drop)
    }
}

/// Nobody's user and group, no capability now or after any exec, nothing that looks into it.
pub(crate) fn give_up_privileges() -> io::Result<()> {
    const NOBODY: u32 = 65534;
    // SAFETY: a count of 0 reads nothing; the others have no pointers.
    unsafe {
        for capability in 0..u64::BITS as libc::c_ulong {
            // EINVAL ends the list: the kernel knows no more.
            if libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) < 0 {
                break;
            }
        }
        check(libc::setgroups(0, std::ptr::null()))?;
        check(libc::setresgid(NOBODY, NOBODY, NOBODY))?;
        // With the last user id 0 all capabilities go (capabilities(7)).
        check(libc::setresuid(NOBODY, NOBODY, NOBODY))?;
        check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
    }
    forbid_inspection()
}

/// Blocks every signal that can be blocked and gives a descriptor they can be read from.
pub(crate) fn all_signals_fd() -> io::Result<OwnedFd> {
    const LAST: i32 = 64;
    let faults = [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP, libc::SIGSYS];
    let signals: Vec<i32> = (1..=LAST).filter(|signal| !faults.contains(signal)).collect();
    signal_fd(&signals)
}

/// A program begins with no signal blocked.
pub(crate) fn unblock_signals() {
    // SAFETY: a zeroed sigset_t is valid for sigemptyset, and `set` lives through the calls.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &set, std::ptr::null_mut());
        // Rust's start ignores it, and exec keeps that (signal(7)).
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
    }
}

pub(crate) fn setsid() -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::setsid() }).map(drop)
}

/// Makes `fd` also standard input, output and error.
pub(crate) fn replace_stdio(fd: &OwnedFd) -> io::Result<()> {
    for target in 0..3 {
        // SAFETY: no pointers; 0 to 2 are not owned by an OwnedFd here.
        check(unsafe { libc::dup2(fd.as_raw_fd(), target) })?;
    }
    Ok(())
}

/// Orphans of our descendants become our children and are reaped here.
pub(crate) fn become_subreaper() -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }).map(drop)
}

/// A pipe; the read end does not block.
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let pair = blocking_pipe()?;
    set_nonblocking(pair.0.as_raw_fd())?;
    Ok(pair)
}

/// A pipe whose ends both block, as a program expects of its input.
pub(crate) fn blocking_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: `ends` has room for the two descriptors.
    check(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) })?;
    Ok((owned(ends[0])?, owned(ends[1])?))
}

/// Lets a pipe hold `bytes` before a writer has to wait; the kernel may refuse, then it holds less.
pub(crate) fn enlarge_pipe(pipe: &OwnedFd, bytes: i32) {
    // SAFETY: no pointers.
    unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_SETPIPE_SZ, bytes) };
}

pub(crate) fn set_nonblocking(fd: RawFd) -> io::Result<()> {
    // SAFETY: no pointers.
    let flags = check(unsafe { libc::fcntl(fd, libc::F_GETFL) })?;
    // SAFETY: no pointers.
    check(unsafe { libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK) }).map(drop)
}

/// The signals that this process ignores.
pub(crate) fn ignored_signals() -> Vec<i32> {
    const LAST: i32 = 64;
    let is_ignored = |signal: &i32| {
        // SAFETY: all-zero bytes are a valid sigaction, which lives through the call; nothing is changed.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            libc::sigaction(*signal, std::ptr::null(), &mut action) == 0
                && action.sa_sigaction == libc::SIG_IGN
        }
    };
    (1..=LAST).filter(is_ignored).collect()
}

/// Blocks `signals` and gives a descriptor they can be read from.
pub(crate) fn signal_fd(signals: &[i32]) -> io::Result<OwnedFd> {
    // SAFETY: a zeroed sigset_t is a valid object for sigemptyset to write.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` lives through the calls; the signal numbers are constants of libc.
    unsafe {
        libc::sigemptyset(&mut set);
        for signal in signals {
            libc::sigaddset(&mut set, *signal);
        }
        check(libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()))?;
        owned(libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK))
    }
}

/// The next pending signal of a `signal_fd`, or `None`.
pub(crate) fn next_signal(fd: &OwnedFd) -> Option<i32> {
    // SAFETY: all-zero bytes are a valid signalfd_siginfo.
    let mut info: libc::signalfd_siginfo = unsafe { std::mem::zeroed() };
    let size = size_of_val(&info);
    // SAFETY: `info` has room for `size` bytes.
    let read = unsafe { libc::read(fd.as_raw_fd(), (&raw mut info).cast(), size) };
    (usize::try_from(read) == Ok(size)).then_some(info.ssi_signo as i32)
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChildEnd {
    Exited(i32),
    Signaled(i32),
}

/// Reaps one ended child, if there is one.
pub(crate) fn reap() -> Option<(i32, ChildEnd)> {
    let mut status = 0;
    // SAFETY: `status` lives through the call.
    let pid = unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) };
    if pid <= 0 {
        return None;
    }
    let end = if libc::WIFSIGNALED(status) {
        ChildEnd::Signaled(libc::WTERMSIG(status))
    } else {
        ChildEnd::Exited(libc::WEXITSTATUS(status))
    };
    Some((pid, end))
}

/// SIGKILL to every process of a process group; none left is success.
pub(crate) fn kill_group(group: i32) {
    signal_group(group, libc::SIGKILL);
}

/// A signal to every process of a process group; none left is success.
pub(crate) fn signal_group(group: i32, signal: i32) {
    // SAFETY: no pointers.
    unsafe { libc::kill(-group, signal) };
}

/// Makes a process group of this process alone, in front of the terminal if standard input is one.
/// SIGTTOU must be blocked (tcsetpgrp(3)). Best effort: without it the program runs all the same.
pub(crate) fn lead_group_on_terminal() {
    // SAFETY: no pointers; descriptor 0 may be anything or nothing.
    unsafe {
        libc::setpgid(0, 0);
        if libc::isatty(0) == 1 {
            libc::tcsetpgrp(0, libc::getpid());
        }
    }
}

/// A signal to a child that has not been reaped, so that its pid is still its own.
pub(crate) fn signal_child(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::kill(pid, signal) }).map(drop)
}

/// No process of a container may look into this process or its forks (PR_SET_DUMPABLE, prctl(2)):
/// a fork that joins a container is visible there before it has become a program.
pub(crate) fn forbid_inspection() -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) }).map(drop)
}

/// Milliseconds since boot, suspended or not.
pub(crate) fn boot_time_ms() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` lives through the call, which cannot fail with this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut time) };
    time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000
}

/// A timer of CLOCK_BOOTTIME, which counts while the machine sleeps; not set.
pub(crate) fn boot_timer() -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    owned(unsafe { libc::timerfd_create(libc::CLOCK_BOOTTIME, libc::TFD_CLOEXEC | libc::TFD_NONBLOCK) })
}

/// Makes a `boot_timer` readable from a moment of its clock on, or with 0 never; not readable before.
pub(crate) fn set_boot_timer(timer: &OwnedFd, at_ms: u64) -> io::Result<()> {
    let never = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let at = libc::timespec {
        tv_sec: (at_ms / 1000) as libc::time_t,
        tv_nsec: (at_ms % 1000 * 1_000_000) as libc::c_long,
    };
    let value = libc::itimerspec { it_interval: never, it_value: at };
    let (fd, flags) = (timer.as_raw_fd(), libc::TFD_TIMER_ABSTIME);
    // SAFETY: `value` lives through the call; the old value is not asked for.
    check(unsafe { libc::timerfd_settime(fd, flags, &value, std::ptr::null_mut()) }).map(drop)
}

/// A descriptor for a process; stays with that process even when its pid is used again.
pub(crate) fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0u32) };
    owned(libc::c_int::try_from(fd).unwrap_or(-1))
}

pub(crate) fn pidfd_send_signal(pidfd: &OwnedFd, signal: i32) -> io::Result<()> {
    // SAFETY: a null siginfo is allowed (pidfd_send_signal(2)).
    let result = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, std::ptr::null::<u8>(), 0u32)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Waits until one of `polls` is ready, at most so long; `None`: for ever.
pub(crate) fn poll(polls: &mut [libc::pollfd], timeout_ms: Option<i32>) -> io::Result<()> {
    let count = polls.len() as libc::nfds_t;
    // SAFETY: the pointer and the count describe `polls`.
    match check(unsafe { libc::poll(polls.as_mut_ptr(), count, timeout_ms.unwrap_or(-1)) }) {
        Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
        _ => Ok(()),
    }
}

/// The user of the process at the other end of a Unix socket.
pub(crate) fn peer_uid(fd: RawFd) -> io::Result<u32> {
    let mut credentials = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
    let mut size = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: `credentials` has room for `size` bytes.
    check(unsafe {
        libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_PEERCRED, (&raw mut credentials).cast(), &mut size)
    })?;
    Ok(credentials.uid)
}

pub(crate) fn own_uid() -> u32 {
    // SAFETY: no pointers; cannot fail.
    unsafe { libc::geteuid() }
}

/// A socket bound to an address and not listening; it keeps the port from everyone else.
/// No SO_REUSEADDR: with it a second bind of the same port would succeed (socket(7)).
pub(crate) fn bound_socket(udp: bool, ip: IpAddr, port: u16) -> io::Result<OwnedFd> {
    let family = if ip.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let kind = if udp { libc::SOCK_DGRAM } else { libc::SOCK_STREAM };
    // SAFETY: no pointers.
    let socket = owned(unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, 0) })?;
    if udp {
        // A datagram socket that nobody reads must not fill the kernel's memory.
        set_option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUF, 0)?;
    }
    match ip {
        IpAddr::V4(ip) => {
            let address = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: port.to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(ip.octets()) },
                sin_zero: [0; 8],
            };
            bind(&socket, &address)?;
        }
        IpAddr::V6(ip) => {
            set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1)?;
            let address = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: port.to_be(),
                sin6_flowinfo: 0,
                sin6_addr: libc::in6_addr { s6_addr: ip.octets() },
                sin6_scope_id: 0,
            };
            bind(&socket, &address)?;
        }
    }
    Ok(socket)
}

fn bind<T>(socket: &OwnedFd, address: &T) -> io::Result<()> {
    let size = size_of::<T>() as libc::socklen_t;
    // SAFETY: `address` is a sockaddr_in or sockaddr_in6 of `size` bytes.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const *address).cast(), size) }).map(drop)
}

fn set_option(socket: &OwnedFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    let size = size_of::<i32>() as libc::socklen_t;
    // SAFETY: `value` is an i32 of `size` bytes.
    check(unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), size) })
        .map(drop)
}

/// The port a socket is bound to.
pub(crate) fn bound_port(socket: &OwnedFd) -> io::Result<u16> {
    // SAFETY: all-zero bytes are a valid sockaddr_in6, which is at least as large as sockaddr_in.
    let mut address: libc::sockaddr_in6 = unsafe { std::mem::zeroed() };
    let mut size = size_of_val(&address) as libc::socklen_t;
    // SAFETY: `address` has room for `size` bytes.
    check(unsafe { libc::getsockname(socket.as_raw_fd(), (&raw mut address).cast(), &mut size) })?;
    // The port is at the same place in both address families.
    Ok(u16::from_be(address.sin6_port))
}

/// mknod(2) of a device.
pub(crate) fn make_device(path: &std::ffi::CStr, mode: u32, major: u32, minor: u32) -> io::Result<()> {
    // SAFETY: `path` ends with a NUL byte.
    check(unsafe { libc::mknod(path.as_ptr(), mode, libc::makedev(major, minor)) }).map(drop)
}

/// keyctl(2) with an operation that an unconfined process may always do (get the id of the
/// session keyring); Docker's default profile denies it.
pub(crate) fn keyctl_is_denied() -> bool {
    // SAFETY: no pointers.
    let result = unsafe { libc::syscall(libc::SYS_keyctl, 0u32, -3i32, 0u32) };
    result < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::EPERM)
}

/// clone(2) into a new user namespace, which needs no capability; Docker's default profile lets
/// clone pass without namespace flags only.
pub(crate) fn clone_newuser_is_denied() -> bool {
    let flags = libc::CLONE_NEWUSER | libc::SIGCHLD;
    // SAFETY: without CLONE_VM and a stack of its own this is a fork; the child only exits.
    let result = unsafe { libc::syscall(libc::SYS_clone, flags, 0usize, 0usize, 0usize, 0usize) };
    if result == 0 {
        // SAFETY: ends the child at once, without running anything of the parent's.
        unsafe { libc::_exit(0) };
    }
    result < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::EPERM)
}

/// Sleeps until a signal ends the process.
pub(crate) fn pause() {
    // SAFETY: no pointers.
    unsafe { libc::pause() };
}

/// Gives free memory of the heap back to the kernel, all but what the next request needs again.
pub(crate) fn trim_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no pointers; glibc locks its own heap.
    unsafe {
        const KEPT_BYTES: usize = 16 * 1024;
        libc::malloc_trim(KEPT_BYTES);
    }
}
