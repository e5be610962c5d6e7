//! Runs the program. In: arguments, an endpoint. Out: what it printed and its exit code.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// What a command left.
#[derive(Debug)]
pub struct Done {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl From<Output> for Done {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
    }
}

/// A `lighter` that knows nothing of this machine's own Lighter.
pub fn lighter() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lighter"));
    for variable in ["ENDPOINT", "KEY", "LOG", "AGENT_SOCKET", "TOKEN", "DATA_DIR"] {
        command.env_remove(format!("LIGHTER_{variable}"));
    }
    command.env("HOME", "/nonexistent").env("LIGHTER_AGENT_SOCKET", "/nonexistent").stdin(Stdio::null());
    command
}

/// Runs `lighter --endpoint unix:…`.
pub fn run(socket: &Path, arguments: &[&str]) -> Done {
    let endpoint = format!("unix://{}", socket.display());
    lighter().arg("--endpoint").arg(endpoint).args(arguments).output().unwrap().into()
}

/// Starts `lighter --endpoint unix:…` and does not wait for it.
pub fn spawn(socket: &Path, arguments: &[&str]) -> Child {
    let endpoint = format!("unix://{}", socket.display());
    let mut command = lighter();
    command.arg("--endpoint").arg(endpoint).args(arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Sends a signal with kill(1).
pub fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").args(["-s", name, &child.id().to_string()]).status().unwrap();
    assert!(status.success());
}

/// Waits for a condition for at most 20 s.
#[track_caller]
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < Duration::from_secs(20), "waited in vain for: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
