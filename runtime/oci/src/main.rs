//! `lighter-oci`: creates and starts one container through libcontainer and ends.
//! In: one `HelperRequest` on standard input, which is a socket. Out: reports on the same socket.
//! `compile-seccomp` turns a profile into a filter, once for each start of the agent.
//! Standard output and error are the container's. It exists because libcontainer clones and runs
//! Rust code in the child, changes the working directory and marks its caller; nothing resident
//! and nothing with threads may be that caller.
//! Never: threads, tokio, waiting for the container's end. The only user of libcontainer.

mod compile;
mod executor;
mod limits;
mod seccomp;
mod stage;
mod start;
mod sys;
mod terminal;
mod trace;

use lighter_shim_wire::helper::HelperFailed;
use lighter_shim_wire::{FailureKind, FrameBuffer, HelperReport, HelperRequest, encode_frame};
use std::fs::File;
use std::io::{Read, Write};
use std::process::ExitCode;
use std::rc::Rc;

/// The socket to the shim.
pub(crate) struct Shim {
    socket: File,
}

impl Shim {
    fn request(&mut self) -> Result<HelperRequest, String> {
        let mut buffer = FrameBuffer::default();
        let mut chunk = [0; 4096];
        loop {
            match buffer.next_frame::<HelperRequest>() {
                Ok(Some((_, request))) => return Ok(request),
                Ok(None) => {}
                Err(error) => return Err(format!("{error}")),
            }
            match self.socket.read(&mut chunk) {
                Ok(0) => return Err("the shim is gone".to_owned()),
                Ok(count) => buffer.push(&chunk[..count]),
                Err(error) => return Err(format!("cannot read the request: {error}")),
            }
        }
    }

    /// The same socket for the container's process.
    pub(crate) fn share(&self) -> std::io::Result<Rc<File>> {
        self.socket.try_clone().map(Rc::new)
    }

    /// A shim that is gone cannot be told; its container is then found by its cgroup.
    pub(crate) fn report(&mut self, report: &HelperReport) {
        let _ = self.socket.write_all(&encode_frame(0, report));
    }
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["--version"] => {
            println!("lighter-oci {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        ["compile-seccomp", profile, filter] => match compile::compile(profile.as_ref(), filter.as_ref()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(message) => {
                eprintln!("{message}");
                ExitCode::FAILURE
            }
        },
        words => match Options::parse(words) {
            Some(options) => run(&options),
            None => {
                eprintln!("{USAGE}");
                ExitCode::FAILURE
            }
        },
    }
}

const USAGE: &str = "usage: lighter-oci [--terminal] [--stdin PATH] (started by lighter-shim)
       lighter-oci compile-seccomp PROFILE.json FILTER.bpf
       lighter-oci --version";

/// What a start is besides the request. Arguments, because the request of older shims has no room.
#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    /// The program gets a terminal, whose master goes to the shim.
    terminal: bool,
    /// What the program reads; else /dev/null.
    stdin: Option<String>,
}

impl Options {
    fn parse(words: &[&str]) -> Option<Self> {
        let mut options = Self::default();
        let mut rest = words.iter();
        while let Some(word) = rest.next() {
            match *word {
                "--terminal" => options.terminal = true,
                "--stdin" => options.stdin = Some((*rest.next()?).to_owned()),
                _ => return None,
            }
        }
        Some(options)
    }
}

fn run(options: &Options) -> ExitCode {
    let protected = sys::protect_program();
    let socket = match sys::take_standard_input(options.stdin.as_deref().unwrap_or("/dev/null")) {
        Ok(socket) => socket,
        Err(error) => {
            eprintln!("lighter-oci is started by lighter-shim, with a socket as standard input: {error}");
            return ExitCode::FAILURE;
        }
    };
    let mut shim = Shim { socket };
    let unprotected =
        |error| format!("cannot keep lighter-oci from being written to by a container: {error}");
    let result = protected
        .map_err(unprotected)
        .and_then(|()| shim.request())
        .map_err(|message| HelperFailed { kind: FailureKind::CannotCreate, message })
        .and_then(|request| start::create_and_start(&request, &mut shim, options.terminal));
    match result {
        Ok(()) => {
            shim.report(&HelperReport::Started);
            ExitCode::SUCCESS
        }
        Err(failed) => {
            shim.report(&HelperReport::Failed(failed));
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Options;

    /// A shim of the first release gives no argument, and its containers start as they did.
    #[test]
    fn arguments_only_add_to_a_start() {
        assert_eq!(Options::parse(&[]), Some(Options::default()));
        let both = Options { terminal: true, stdin: Some("/proc/1/fd/5".to_owned()) };
        assert_eq!(Options::parse(&["--terminal", "--stdin", "/proc/1/fd/5"]), Some(both));
        assert_eq!(Options::parse(&["--stdin"]), None);
        assert_eq!(Options::parse(&["start"]), None);
    }
}
