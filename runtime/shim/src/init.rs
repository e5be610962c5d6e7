//! `lighter-shim init -- PROGRAM [ARGUMENT]...`: the first process of a container that asks for one
//! (initProcessEnabled). It starts the program, hands every signal on to it, reaps the orphans that
//! the kernel gives to the first process of a pid namespace, and ends as the program ended.
//! In: a program and its arguments. Out: the program's exit code, 128 + n for signal n, and as a
//! shell 127 or 126 for a program that cannot be run.
//! Source: pid_namespaces(7), signal(7). Never: starts the program again, or outlives it.

use crate::sys::{self, ChildEnd};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

/// As shells have it: the program is not there, or cannot be executed.
const NOT_FOUND: u8 = 127;
const NOT_EXECUTABLE: u8 = 126;

pub(crate) fn run(arguments: &[String]) -> Result<ExitCode, String> {
    let words = arguments.strip_prefix(&["--".to_owned()]).unwrap_or(arguments);
    let (program, arguments) = words.split_first().ok_or("init needs a program")?;
    let signals = sys::all_signals_fd().map_err(|error| format!("cannot take signals: {error}"))?;
    let child = match sys::fork_with_pid().map_err(|error| format!("cannot fork: {error}"))? {
        0 => {
            // A group of its own: what a terminal sends to the group reaches it once. On a terminal
            // that group must be the one in front, or the program is stopped when it reads.
            sys::lead_group_on_terminal();
            sys::unblock_signals();
            let error = Command::new(program).args(arguments).exec();
            eprintln!("{program}: {error}");
            let found = error.kind() != std::io::ErrorKind::NotFound;
            return Ok(ExitCode::from(if found { NOT_EXECUTABLE } else { NOT_FOUND }));
        }
        pid => pid,
    };
    let pidfd = sys::pidfd_open(child).map_err(|error| format!("cannot watch the program: {error}"))?;
    loop {
        let mut polls = [libc::pollfd { fd: signals.as_raw_fd(), events: libc::POLLIN, revents: 0 }];
        sys::poll(&mut polls, None).map_err(|error| format!("cannot wait: {error}"))?;
        while let Some(signal) = sys::next_signal(&signals) {
            if signal != libc::SIGCHLD {
                // A program that has just ended cannot take it, which its end says better.
                let _ = sys::pidfd_send_signal(&pidfd, signal);
            }
        }
        // SIGCHLD stands for any number of ended children.
        while let Some((pid, end)) = sys::reap() {
            if pid == child {
                return Ok(exit_code(end));
            }
        }
    }
}

fn exit_code(end: ChildEnd) -> ExitCode {
    let code = match end {
        ChildEnd::Exited(code) => code,
        ChildEnd::Signaled(signal) => 128 + signal,
    };
    // The kernel keeps eight bits (exit(3)).
    ExitCode::from((code & 0xff) as u8)
}
