//! Turns `lighter-shim run` into a process that does not depend on its starter: own session, own
//! cgroup, no inherited descriptor, parent gone. In: arguments. Out: exit 0 of the first process
//! once the socket accepts, or one line that says why not.
//! Never: starts a container; `monitor` does.

use crate::monitor::{self, Settings};
use crate::{cgroup, sys};
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};

pub(crate) fn run(arguments: &[String]) -> Result<(), String> {
    sys::close_inherited();
    let (settings, cgroups) = parse(arguments)?;
    cgroup::join(&cgroups)?;
    std::env::set_current_dir(&settings.directory)
        .map_err(|error| format!("cannot enter {}: {error}", settings.directory))?;
    let (read, write) = sys::pipe().map_err(|error| format!("cannot make a pipe: {error}"))?;
    match sys::fork().map_err(|error| format!("cannot fork: {error}"))? {
        sys::Forked::Parent => {
            drop(write);
            wait_until_ready(read)
        }
        sys::Forked::Child => {
            drop(read);
            become_monitor(settings, File::from(write));
            Ok(())
        }
    }
}

/// The starter's side: the child writes `ready`, or text that says why not, and closes the pipe.
fn wait_until_ready(read: OwnedFd) -> Result<(), String> {
    let mut polls = [libc::pollfd { fd: read.as_raw_fd(), events: libc::POLLIN, revents: 0 }];
    let mut file = File::from(read);
    let mut text = Vec::new();
    let mut chunk = [0; 256];
    loop {
        sys::poll(&mut polls, None).map_err(|error| format!("cannot wait for the monitor: {error}"))?;
        match file.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => text.extend_from_slice(&chunk[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(format!("cannot hear the monitor: {error}")),
        }
    }
    match String::from_utf8_lossy(&text).as_ref() {
        READY => Ok(()),
        "" => Err("the monitor ended before it was ready".to_owned()),
        why => Err(format!("the monitor did not start: {why}")),
    }
}

const READY: &str = "ready";

fn become_monitor(settings: Settings, mut ready: File) {
    let prepared = detach().and_then(|()| monitor::Monitor::open(settings));
    match prepared {
        Ok(mut monitor) => {
            let _ = ready.write_all(READY.as_bytes());
            drop(ready);
            monitor.run();
        }
        Err(message) => {
            let _ = ready.write_all(message.as_bytes());
        }
    }
}

fn detach() -> Result<(), String> {
    sys::setsid().map_err(|error| format!("cannot make a session: {error}"))?;
    let null = File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .map_err(|error| format!("cannot open /dev/null: {error}"))?;
    sys::replace_stdio(&OwnedFd::from(null))
        .map_err(|error| format!("cannot leave the terminal: {error}"))?;
    sys::forbid_inspection().map_err(|error| format!("cannot forbid inspection: {error}"))?;
    sys::become_subreaper().map_err(|error| format!("cannot become a subreaper: {error}"))?;
    // The kernel's OOM killer should take the containers first. Without the privilege it stays as
    // it is, which is no reason to refuse to work.
    let _ = std::fs::write("/proc/self/oom_score_adj", "-998");
    Ok(())
}

fn parse(arguments: &[String]) -> Result<(Settings, Vec<String>), String> {
    let mut settings = Settings { task: String::new(), directory: String::new(), helper: String::new() };
    let mut cgroups = Vec::new();
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let value = words.next().ok_or_else(|| format!("{word} needs a value"))?.clone();
        match word.as_str() {
            "--task" => settings.task = value,
            "--dir" => settings.directory = value,
            "--oci" => settings.helper = value,
            "--cgroup" => cgroups.push(value),
            _ => return Err(format!("unknown argument {word}")),
        }
    }
    if settings.task.is_empty() || settings.directory.is_empty() || settings.helper.is_empty() {
        return Err("--task, --dir and --oci are needed".to_owned());
    }
    Ok((settings, cgroups))
}
