//! The first process of a pid namespace that the containers of a task share: it reaps for ever.
//! They see it, and one that may trace (SYS_PTRACE) may look through it and lead it, so it has nothing
//! to be had: an empty root, no network, no privilege, no user of the host that owns a thing.
//! In: nothing. Out: a byte when it is as it should be; it ends with its cgroup.
//! Source: pid_namespaces(7), pivot_root(2), capabilities(7). Never: handles a signal, so that none
//! from inside reaches it.

use crate::sys;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};

/// Forks it into the pid namespace that this process's children are born in; its pid there where this
/// process is.
pub(super) fn start() -> Result<i32, String> {
    let failed = |error: io::Error| format!("cannot make the first process: {error}");
    let (ready, tell) = sys::blocking_pipe().map_err(failed)?;
    let pid = sys::fork_with_pid().map_err(failed)?;
    if pid == 0 {
        drop(ready);
        if let Err(message) = become_nobody(tell).and_then(|()| reap_for_ever()) {
            eprintln!("{message}");
        }
        std::process::exit(1);
    }
    drop(tell);
    // What went wrong is on stderr already.
    File::from(ready).read_exact(&mut [0]).map(|()| pid).map_err(|_| "no first process".to_owned())
}

fn become_nobody(tell: OwnedFd) -> Result<(), String> {
    let failed = |what: &'static str| move |error: io::Error| format!("cannot {what}: {error}");
    sys::setsid().map_err(failed("make a session"))?;
    let null = File::options().read(true).write(true).open("/dev/null");
    let null = null.map_err(failed("open /dev/null"))?;
    let own = libc::CLONE_NEWNS | libc::CLONE_NEWNET | libc::CLONE_NEWUTS | libc::CLONE_NEWIPC;
    sys::unshare(own | libc::CLONE_NEWCGROUP).map_err(failed("leave the host's namespaces"))?;
    sys::enter_empty_root().map_err(failed("leave the host's files"))?;
    sys::give_up_privileges().map_err(failed("give up privileges"))?;
    File::from(tell).write_all(&[1]).map_err(failed("tell"))?;
    sys::replace_stdio(&OwnedFd::from(null)).map_err(failed("leave the terminal"))?;
    sys::close_inherited();
    Ok(())
}

fn reap_for_ever() -> Result<(), String> {
    let failed = |error: io::Error| format!("cannot wait: {error}");
    let signals = sys::signal_fd(&[libc::SIGCHLD]).map_err(failed)?;
    loop {
        while sys::reap().is_some() {}
        let mut polls = [libc::pollfd { fd: signals.as_raw_fd(), events: libc::POLLIN, revents: 0 }];
        sys::poll(&mut polls, None).map_err(failed)?;
        while sys::next_signal(&signals).is_some() {}
    }
}
