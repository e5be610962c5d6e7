//! `lighter exec -it` on a terminal of its own (a pseudo-terminal made by script(1) would not let the
//! size change, so python3's pty module drives it): raw mode, resizes, keys, restored settings, exit
//! codes. The other side is the scripted control plane. Observed: termios through the pair's own end.

use super::program::{run, spawn};
use super::scripted::{ID, Scripted};
use std::io::{Read, Write};
use std::process::{Command, Stdio};

/// Drives one run: its steps wait for text, then act. Prints what it saw of the terminal.
const DRIVER: &str = r#"
import fcntl, os, pty, select, signal, struct, sys, termios, time
lighter, endpoint, task, how = sys.argv[1:5]
master, slave = pty.openpty()
fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
before = termios.tcgetattr(slave)
pid = os.fork()
if pid == 0:
    os.setsid()
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    for fd in (0, 1, 2):
        os.dup2(slave, fd)
    os.execv(lighter, [lighter, "--endpoint", endpoint, "exec", "-it", task, "--", "sh"])
seen = b""
def wait(text):
    global seen
    end = time.monotonic() + 20
    while text not in seen:
        if not select.select([master], [], [], max(0, end - time.monotonic()))[0]:
            sys.exit("waited in vain for %r in %r" % (text, seen))
        seen += os.read(master, 4096)
wait(b"began 30x100")
raw = termios.tcgetattr(slave)
print("raw", not raw[3] & (termios.ICANON | termios.ECHO | termios.ISIG))
os.write(master, b"\x03")
wait(b"got [3]")
print("interrupt passed on")
fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 31, 90, 0, 0))
wait(b"size 31x90")
print("resized")
if how == "quit":
    os.write(master, b"q")
elif how == "kill":
    os.kill(pid, signal.SIGTERM)
    wait(b"signal 15")
    os.write(master, b"q")
_, status = os.waitpid(pid, 0)
print("exit", os.waitstatus_to_exitcode(status))
print("restored", termios.tcgetattr(slave) == before)
"#;

fn drive(scripted: &Scripted, how: &str) -> String {
    let endpoint = format!("unix://{}", scripted.socket().display());
    let mut command = Command::new("python3");
    command.args(["-c", DRIVER, env!("CARGO_BIN_EXE_lighter"), &endpoint, ID, how]);
    let done = command.env("HOME", "/nonexistent").output().unwrap();
    let text = String::from_utf8(done.stdout).unwrap();
    assert!(done.status.success(), "{text}{}", String::from_utf8_lossy(&done.stderr));
    text
}

fn scripted() -> Scripted {
    let scripted = Scripted::start();
    scripted.quietly(|task| task.task_id = ID.to_owned());
    scripted
}

#[test]
fn a_terminal_is_raw_while_the_program_runs_and_as_before_afterwards() {
    let seen = drive(&scripted(), "quit");
    assert_eq!(seen, "raw True\ninterrupt passed on\nresized\nexit 7\nrestored True\n");
}

#[test]
fn a_signal_is_for_the_program_and_the_terminal_is_given_back() {
    let seen = drive(&scripted(), "kill");
    assert_eq!(seen, "raw True\ninterrupt passed on\nresized\nexit 7\nrestored True\n");
}

#[test]
fn pipes_pass_input_on_and_the_exit_code_is_the_programs() {
    let scripted = scripted();
    let endpoint = format!("unix://{}", scripted.socket().display());
    let mut command = super::program::lighter();
    command.args(["--endpoint", &endpoint, "exec", "-i", ID, "cat", "-n"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"ab").unwrap();
    let mut out = String::new();
    child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    assert_eq!(out, "began\r\ngot [97, 98]\r\nend\r\n");
    assert_eq!(child.wait().unwrap().code(), Some(7));
}

#[test]
fn what_lighter_cannot_run_has_dockers_exit_codes() {
    let scripted = scripted();
    let done = run(&scripted.socket(), &["exec", "-it", ID, "sh"]);
    assert_eq!(done.code, 125, "{}", done.err);
    assert!(
        done.err.contains("standard input is not a terminal") && done.err.contains("--tty"),
        "{}",
        done.err
    );
    let done = run(&scripted.socket(), &["exec", ID]);
    assert_eq!(done.code, 2, "{}", done.err);
    let done = run(&scripted.socket(), &["attach", ID]);
    assert_eq!(done.code, 3, "{}", done.err);
    let mut child = spawn(&scripted.socket(), &["exec", ID, "sleep", "1000"]);
    let mut stdout = child.stdout.take().unwrap();
    let mut read = |text: &str| {
        let mut seen = vec![0; text.len()];
        stdout.read_exact(&mut seen).unwrap();
        assert_eq!(String::from_utf8(seen).unwrap(), text);
    };
    // What it prints it prints after it has set up its signals.
    read("began\r\n");
    super::program::signal(&child, "INT");
    read("signal 2\r\n");
    child.kill().unwrap();
    child.wait().unwrap();
}
