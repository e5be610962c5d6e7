//! `lighter-shim`: the small process that stays beside a task (`run`), the process that keeps the
//! delegated unit alive (`keeper`), and the program that proves confinement inside a container
//! (`self-test`). In: arguments. Out: exit code; errors as one line on stderr.
//! Owns no thread. Never: links libcontainer, tokio or anything but libc and lighter-shim-wire.

mod cgroup;
mod daemon;
mod init;
mod keeper;
mod lease;
mod log;
mod monitor;
mod namespaces;
mod ports;
mod procfs;
mod record;
mod selftest;
mod sys;

use std::process::ExitCode;

const USAGE: &str = "usage:
  lighter-shim run --task ID --dir DIR --oci PATH [--cgroup DIR]...
      watch over one task; returns when its socket DIR/shim.sock is ready
  lighter-shim keeper
      move into the leaf cgroup `keeper` of the own unit and wait for ever
  lighter-shim init -- PROGRAM [ARGUMENT]...
      be the first process of a container: start the program, hand signals on, reap
  lighter-shim namespaces --dir DIR [--pid] [--ipc] [--cgroup DIR]...
      make the namespaces that the containers of a task share, kept in DIR
  lighter-shim self-test
      print what a process can do here (run inside a container)
  lighter-shim --version";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.first().map(String::as_str) {
        Some("run") => daemon::run(&arguments[1..]),
        Some("keeper") => keeper::run(),
        Some("init") => match init::run(&arguments[1..]) {
            Ok(code) => return code,
            Err(message) => Err(message),
        },
        Some("namespaces") => namespaces::run(&arguments[1..]),
        Some("self-test") => selftest::run(&arguments[1..]),
        Some("--version") => {
            println!("lighter-shim {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
        _ => Err(USAGE.to_owned()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}
