//! What README has a new user type, as it is printed there, against a control plane as it is installed.

use super::control_plane::Cluster;
use super::program::run;
use std::fs::File;
use std::path::Path;
use std::process::Command;

/// The file that README prints after `$ cat NAME`.
fn printed(name: &str) -> String {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let text = std::fs::read_to_string(readme).unwrap();
    let begin = format!("$ cat {name}\n");
    let from = text.find(&begin).expect("README prints the file") + begin.len();
    text[from..].split("\n\n").next().unwrap().to_owned()
}

#[test]
fn the_service_of_the_readme_is_deployed() {
    let cluster = Cluster::start();
    let file = cluster.file("web-2.yaml", &printed("web-2.yaml"));
    let deployed = cluster.run(&["deploy", &file, "--yes", "--detach"]);
    assert_eq!(deployed.code, 0, "{}", deployed.err);
    assert_eq!(cluster.run(&["service", "ls", "-q"]).out.trim(), "web");
}

/// The exit code is all that is left to say it with.
#[test]
fn a_failure_that_cannot_be_printed_is_no_panic() {
    let cluster = Cluster::start();
    let socket = cluster.folder.path().join("control.sock");
    assert_eq!(run(&socket, &["task", "show", "nothing"]).code, 4);
    let mut command = Command::new(env!("CARGO_BIN_EXE_lighter"));
    command.env_clear().env("LIGHTER_ENDPOINT", format!("unix://{}", socket.display()));
    let full = File::options().write(true).open("/dev/full").unwrap();
    let status = command.args(["task", "show", "nothing"]).stderr(full).status().unwrap();
    assert_eq!(status.code(), Some(4));
}

#[test]
fn what_is_missing_is_looked_for_among_its_own_kind() {
    let cluster = Cluster::start();
    let lists = [
        (["cluster", "show", "nope"], "lighter cluster ls"),
        (["node", "drain", "nope"], "lighter node ls"),
        (["task-definition", "rm", "nope:1"], "lighter task-definition ls"),
        (["task", "protect", "nope"], "lighter ps -a"),
    ];
    for (words, list) in lists {
        let failed = cluster.run(&words);
        assert!(
            failed.code != 0 && failed.err.contains(&format!("try: {list}")),
            "{words:?}: {}",
            failed.err
        );
    }
}
