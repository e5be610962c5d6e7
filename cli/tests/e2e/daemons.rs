//! The daemons as processes: `lighter control` serves, tells systemd, and ends on SIGTERM.

use super::program::{Done, lighter, run, signal, until};
use std::os::unix::net::UnixDatagram;
use std::process::Stdio;
use std::time::Duration;

#[test]
fn control_serves_tells_systemd_and_ends_on_sigterm() {
    let folder = tempfile::tempdir().unwrap();
    let (socket, notify) = (folder.path().join("control.sock"), folder.path().join("notify"));
    let systemd = UnixDatagram::bind(&notify).unwrap();
    systemd.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let config = folder.path().join("control.toml");
    std::fs::write(&config, format!("listen = []\nlisten_plaintext = ['{}']\n", socket.display())).unwrap();
    let mut command = lighter();
    command.arg("control").arg("--config").arg(&config).arg("--data-dir").arg(folder.path().join("data"));
    let child =
        command.env("NOTIFY_SOCKET", &notify).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut word = [0; 64];
    let length = systemd.recv(&mut word).unwrap();
    assert_eq!(&word[..length], b"READY=1");
    assert_eq!(run(&socket, &["node", "ls"]).code, 0);
    signal(&child, "TERM");
    let done = Done::from(child.wait_with_output().unwrap());
    assert_eq!(done.code, 0, "{}", done.err);
    assert!(done.err.contains("admin.pem"), "the path of the key is printed: {}", done.err);
    until("the socket does not answer", || run(&socket, &["node", "ls"]).code == 5);
}

#[test]
fn control_waits_for_its_etcd_lets_systemd_go_on_and_ends_on_sigterm() {
    let folder = tempfile::tempdir().unwrap();
    let (config, notify) = (folder.path().join("control.toml"), folder.path().join("notify"));
    let systemd = UnixDatagram::bind(&notify).unwrap();
    systemd.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    // Nobody listens there.
    let store = "[store]\nkind = 'etcd'\nendpoints = ['http://127.0.0.1:1']\n";
    std::fs::write(&config, format!("listen = []\n{store}")).unwrap();
    let mut command = lighter();
    command.arg("control").arg("--config").arg(&config).arg("--data-dir").arg(folder.path().join("data"));
    let child =
        command.env("NOTIFY_SOCKET", &notify).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut word = [0; 64];
    let length = systemd.recv(&mut word).unwrap();
    assert_eq!(&word[..length], b"READY=1");
    signal(&child, "TERM");
    let done = Done::from(child.wait_with_output().unwrap());
    assert_eq!(done.code, 0, "{}", done.err);
    assert_eq!(done.err.matches("the start waits for the store").count(), 1, "told once: {}", done.err);
    assert!(!done.err.contains("admin.pem"), "it did not serve: {}", done.err);
}

#[test]
fn a_configuration_that_cannot_be_is_refused_with_its_reason() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("bad.toml");
    std::fs::write(&config, "listne = []\n").unwrap();
    for daemon in ["control", "agent"] {
        let done = Done::from(lighter().arg(daemon).arg("--config").arg(&config).output().unwrap());
        assert_eq!(done.code, 3, "{daemon}: {}", done.err);
        assert!(done.err.contains("listne"), "{daemon}: {}", done.err);
    }
    let plain = Done::from(
        lighter()
            .args(["control", "--listen-plaintext", "10.0.0.1:1"])
            .arg("--data-dir")
            .arg(folder.path())
            .output()
            .unwrap(),
    );
    assert_eq!(plain.code, 3);
    assert!(plain.err.contains("cannot be served without TLS"), "{}", plain.err);
}

#[test]
fn joining_with_a_wrong_token_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = lighter();
    command
        .args(["agent", "join", "https://127.0.0.1:1", "--token", "nonsense", "--data-dir"])
        .arg(folder.path());
    let done = Done::from(command.output().unwrap());
    assert_eq!(done.code, 3);
    assert!(done.err.contains("lighter token create"), "{}", done.err);
}
