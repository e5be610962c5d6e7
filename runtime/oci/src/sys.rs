//! The system calls of the helper, behind safe functions: signals as a container expects them,
//! descriptors, exec. In: descriptors, text. Out: owned descriptors or errors.
//! The only module of the helper with unsafe code. Never: keeps state.
#![allow(unsafe_code)]

use lighter_shim_wire::helper::READ_ONLY_VARIABLE;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

/// libcontainer calls setgroups(2) only for a container with groups of its own; without this the
/// others would keep the agent's, root's group among them.
fn drop_supplementary_groups() -> io::Result<()> {
    // SAFETY: a count of 0 reads nothing.
    let result = unsafe { libc::setgroups(0, std::ptr::null()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Moves standard input away and puts `input` there, which the container inherits. Also drops
/// inherited groups, and undoes what the shim and Rust's start did to signals: a container starts
/// with none blocked or ignored.
pub(crate) fn take_standard_input(input: &str) -> io::Result<File> {
    unblock_signals();
    drop_supplementary_groups()?;
    // SAFETY: descriptor 0 is open or the call fails.
    let moved = unsafe { libc::fcntl(0, libc::F_DUPFD_CLOEXEC, 3) };
    if moved < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: fcntl just made this descriptor; nothing else owns it.
    let socket = File::from(unsafe { OwnedFd::from_raw_fd(moved) });
    let input = File::open(input)?;
    // SAFETY: no pointers; std does not own descriptor 0.
    if unsafe { libc::dup2(input.as_raw_fd(), 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(socket)
}

/// From here on the mounts of this process are its own (unshare(2)).
pub(crate) fn unshare_mounts() -> io::Result<()> {
    // SAFETY: no pointers; the process has one thread.
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Makes a hard limit at least `wanted`, which its children inherit (prlimit(2)).
pub(crate) fn raise_hard_limit(resource: u32, wanted: u64) -> io::Result<()> {
    let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is written to; a null pointer changes nothing.
    if unsafe { libc::prlimit64(0, resource as _, std::ptr::null(), &mut limit) } < 0 {
        return Err(io::Error::last_os_error());
    }
    if limit.rlim_max >= wanted {
        return Ok(());
    }
    limit.rlim_max = wanted;
    // SAFETY: `limit` is read; a null pointer asks for no old value.
    if unsafe { libc::prlimit64(0, resource as _, &limit, std::ptr::null_mut()) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// The signal mask survives exec (signal(7)); the shim reads its signals from a descriptor and so
/// has them blocked.
fn unblock_signals() {
    // SAFETY: a zeroed sigset_t is valid for sigemptyset, and `set` lives through the calls.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &set, std::ptr::null_mut());
    }
}

/// An ignored signal stays ignored over exec (signal(7)): Rust ignores SIGPIPE at start, and a shell
/// that starts a daemon in the background ignores SIGINT and SIGQUIT for it.
pub(crate) fn default_signals() {
    const LAST: libc::c_int = 64;
    for signal in 1..=LAST {
        // Refused for SIGKILL, SIGSTOP and the two that belong to libc: they have no other setting.
        // SAFETY: SIG_DFL is a valid disposition for every number.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

/// Keeps every signal pending until the program says how it wants them (sigprocmask(2)).
pub(crate) fn block_signals() {
    // SAFETY: a zeroed sigset_t is valid for sigfillset; a null pointer asks for no old mask.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::sigprocmask(libc::SIG_SETMASK, &all, std::ptr::null_mut());
    }
}

/// A pipe whose ends close on exec: (read, write).
pub(crate) fn pipe() -> io::Result<(File, File)> {
    let mut ends = [0; 2];
    // SAFETY: `ends` has room for the two descriptors, which nothing else owns.
    unsafe {
        if libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok((File::from_raw_fd(ends[0]), File::from_raw_fd(ends[1])))
    }
}

/// A file without a name that a forked child can write and the parent can read.
pub(crate) fn anonymous_file() -> io::Result<File> {
    // SAFETY: the name ends with a NUL byte; the descriptor has no other owner.
    unsafe {
        let fd = libc::memfd_create(c"lighter-oci".as_ptr(), libc::MFD_CLOEXEC);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(File::from_raw_fd(fd)) }
    }
}

/// One instruction of a classic BPF program.
pub(crate) type Instruction = libc::sock_filter;

/// seccomp(2): the filter holds for this process and what it executes. Needs no-new-privileges.
pub(crate) fn install_filter(program: &mut [Instruction]) -> io::Result<()> {
    let length = u16::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let header = libc::sock_fprog { len: length, filter: program.as_mut_ptr() };
    // SAFETY: `header` describes `program`, and both live through the call.
    let result =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const header) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// execve(2); returns only when it fails.
pub(crate) fn execute(path: &CStr, arguments: &[CString], environment: &[CString]) -> io::Error {
    let (arguments, environment) = (pointers(arguments), pointers(environment));
    // SAFETY: both lists end with a null pointer and point to strings that live through the call.
    unsafe { libc::execve(path.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
    io::Error::last_os_error()
}

/// Whether the effective user may execute `path`.
pub(crate) fn may_execute(path: &CStr) -> io::Result<()> {
    // SAFETY: `path` ends with a NUL byte.
    let result = unsafe { libc::faccessat(libc::AT_FDCWD, path.as_ptr(), libc::X_OK, libc::AT_EACCESS) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// linux/mount.h: struct mount_attr.
#[repr(C)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}
const MOUNT_ATTR_RDONLY: u64 = 0x1;
const OPEN_TREE_CLONE: libc::c_uint = 1;

/// Gives this process a program file that nobody can write to: a container's first process is a fork
/// of this one, so an image whose entry point leads to /proc/self/exe gets hold of the file, and when
/// this process has ended nothing keeps root in the container from writing to it. The same file on a
/// read-only mount refuses (EROFS). A shim starts it there; after any other start it is executed anew.
pub(crate) fn protect_program() -> io::Result<()> {
    const PROGRAM: &CStr = c"/proc/self/exe";
    if std::env::var_os(READ_ONLY_VARIABLE).is_some() && is_on_read_only_mount(PROGRAM)? {
        return Ok(());
    }
    let open = OPEN_TREE_CLONE | libc::O_CLOEXEC as libc::c_uint;
    // SAFETY: the path ends with a NUL byte.
    let tree = unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, PROGRAM.as_ptr(), open) };
    if tree < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: open_tree just made this descriptor; nothing else owns it.
    let tree = unsafe { OwnedFd::from_raw_fd(tree as libc::c_int) };
    let attributes = MountAttributes { set: MOUNT_ATTR_RDONLY, clear: 0, propagation: 0, user_namespace: 0 };
    let (fd, empty, size) = (tree.as_raw_fd(), c"".as_ptr(), size_of::<MountAttributes>());
    // SAFETY: `attributes` is as the kernel's structure, `size` is its size, and both live through the call.
    let set = unsafe {
        libc::syscall(libc::SYS_mount_setattr, fd, empty, libc::AT_EMPTY_PATH, &raw const attributes, size)
    };
    if set < 0 {
        return Err(io::Error::last_os_error());
    }
    let arguments = std::env::args_os().map(|word| CString::new(word.into_vec()));
    let arguments = arguments.collect::<Result<Vec<_>, _>>()?;
    let environment = [CString::new(format!("{READ_ONLY_VARIABLE}=1"))?];
    let (arguments, environment) = (pointers(&arguments), pointers(&environment));
    // SAFETY: both lists end with a null pointer and point to strings that live through the call.
    unsafe {
        let (arguments, environment) = (arguments.as_ptr(), environment.as_ptr());
        libc::syscall(libc::SYS_execveat, fd, empty, arguments, environment, libc::AT_EMPTY_PATH);
    }
    Err(io::Error::last_os_error())
}

fn is_on_read_only_mount(path: &CStr) -> io::Result<bool> {
    // SAFETY: all-zero bytes are a valid statvfs, which lives through the call.
    unsafe {
        let mut system: libc::statvfs = std::mem::zeroed();
        if libc::statvfs(path.as_ptr(), &mut system) < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(system.f_flag & libc::ST_RDONLY != 0)
    }
}

/// A list as execve(2) wants it, for as long as `list` lives.
fn pointers(list: &[CString]) -> Vec<*const libc::c_char> {
    list.iter().map(|text| text.as_ptr()).chain(std::iter::once(std::ptr::null())).collect()
}
