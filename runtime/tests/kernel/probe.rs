//! Probes: confined as the container is, bounded in time and output, and gone without a trace.

use crate::support::{
    Node, eventually, exit_of, is_alive, own_memory_kib, processes_with, shell, tenant_exec,
};
use lighter_model::ids::ContainerName;
use lighter_model::task_definition::options::UsernsMode;
use lighter_runtime::{ProbeEnd, ProbeOutcome, RequestError, ShimHandle};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(20);

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|word| (*word).to_owned()).collect()
}

async fn probe(shim: &ShimHandle, argv: &[&str]) -> ProbeOutcome {
    let name: ContainerName = "c".parse().unwrap();
    shim.probe(&name, &words(argv), LONG).await.unwrap()
}

async fn text(shim: &ShimHandle, argv: &[&str]) -> String {
    let outcome = probe(shim, argv).await;
    let output = String::from_utf8(outcome.output).unwrap();
    assert_eq!(outcome.end, ProbeEnd::Exited(0), "{argv:?}: {output}");
    output
}

/// What a process is, as the kernel says: name and commands whose output must be the same.
const FACTS: [(&str, &[&str]); 7] = [
    ("status", &["cat", "/proc/self/status"]),
    ("limits", &["cat", "/proc/self/limits"]),
    ("cgroup", &["cat", "/proc/self/cgroup"]),
    ("oom", &["cat", "/proc/self/oom_score_adj"]),
    ("environment", &["cat", "/proc/self/environ"]),
    ("directory", &["readlink", "/proc/self/cwd"]),
    ("root", &["readlink", "/proc/self/root"]),
];
const NAMESPACES: [&str; 8] = ["cgroup", "ipc", "mnt", "net", "pid", "pid_for_children", "user", "uts"];

/// Lines of /proc/pid/status that differ between any two runs of the same program.
fn is_of_the_run(line: &str) -> bool {
    let name = line.split(':').next().unwrap_or("");
    let own = ["Pid", "Tgid", "PPid", "NStgid", "NSpid", "NSpgid", "NSsid", "SigQ", "FDSize", "State"];
    own.contains(&name) || name.starts_with("Vm") || name.starts_with("Rss") || name.contains("ctxt_switches")
}

fn comparable(name: &str, text: &str) -> Vec<String> {
    let lines = text.lines().filter(|line| name != "status" || !is_of_the_run(line));
    lines.map(str::to_owned).collect()
}

/// Beyond what fits into a frame there is an answer in words, and the connection goes on.
#[tokio::test]
async fn a_probe_carries_a_large_environment() {
    let node = Node::new();
    let shim = node.shim().await;
    let mut container = shell("c", "exec sleep 1000");
    let long = "x".repeat(100 * 1024);
    let variables = (0..10).map(|number| json!({ "name": format!("V{number}"), "value": long }));
    container["environment"] = variables.collect();
    node.start(&shim, container).await.unwrap();
    let mut events = shim.events();
    assert_eq!(text(&shim, &["sh", "-c", "echo ${#V9}"]).await, "102400\n");
    let name: ContainerName = "c".parse().unwrap();
    // Longer than execve(2) takes; a program can still be given it as a word.
    let word = "x".repeat(5 << 20);
    let error = shim.probe(&name, &words(&["echo", &word]), LONG).await.unwrap_err();
    assert!(matches!(error, RequestError::TooLong { .. }), "{error}");
    assert!(events.try_recv().is_err(), "the connection is lost");
    assert_eq!(text(&shim, &["echo", "on"]).await, "on\n");
    node.leave_nothing(&shim).await;
}

async fn compare_with_libcontainer(container: Value) {
    compare_on(&Node::new(), container).await;
}

pub(crate) async fn compare_on(node: &Node, container: Value) {
    let shim = node.shim().await;
    let pid = node.start(&shim, container).await.unwrap().pid;
    let mut facts: Vec<(&str, Vec<&str>)> = FACTS.iter().map(|(name, argv)| (*name, argv.to_vec())).collect();
    let links: Vec<String> = NAMESPACES.iter().map(|name| format!("/proc/self/ns/{name}")).collect();
    facts.extend(links.iter().map(|link| ("namespace", vec!["readlink", link.as_str()])));
    for (name, argv) in facts {
        let ours = comparable(name, &text(&shim, &argv).await);
        // libcontainer's exec stays in the host's user namespace: there the container itself is the standard.
        let theirs = if node.userns == UsernsMode::Auto && argv.contains(&"/proc/self/ns/user") {
            vec![fs::read_link(format!("/proc/{pid}/ns/user")).unwrap().display().to_string()]
        } else {
            comparable(name, &tenant_exec(node, "c", &argv))
        };
        assert!(!ours.is_empty(), "{name}");
        assert_eq!(ours, theirs, "{name} {argv:?}");
    }
    let status = text(&shim, &["cat", "/proc/self/status"]).await;
    for line in ["Seccomp:\t2", "Seccomp_filters:\t1", "NoNewPrivs:\t1"] {
        assert!(status.lines().any(|found| found == line), "{line}: {status}");
    }
    node.leave_nothing(&shim).await;
}

#[tokio::test]
async fn a_probe_is_confined_as_an_exec_of_libcontainer_is() {
    compare_with_libcontainer(shell("c", "exec sleep 1000")).await;
}

#[tokio::test]
async fn a_probe_of_a_users_container_is_that_user_where_it_works() {
    let mut container = shell("c", "exec sleep 1000");
    container["user"] = json!("web");
    container["workingDirectory"] = json!("/tmp");
    container["environment"] = json!([{ "name": "KEY", "value": "a b" }]);
    compare_with_libcontainer(container).await;
}

#[tokio::test]
async fn output_is_bounded_and_ends_are_exact() {
    let node = Node::new();
    let shim = node.shim().await;
    node.start(&shim, shell("c", "exec sleep 1000")).await.unwrap();
    let outcome = probe(&shim, &["sh", "-c", "echo out; echo err >&2; exit 3"]).await;
    assert_eq!((outcome.end, outcome.output.as_slice()), (ProbeEnd::Exited(3), b"out\nerr\n".as_slice()));
    let outcome = probe(&shim, &["sh", "-c", "yes | head -c 1000000; echo done > /tmp/done"]).await;
    assert_eq!((outcome.end, outcome.output.len()), (ProbeEnd::Exited(0), 4096));
    assert!(node.rootfs.join("tmp/done").exists(), "a probe that writes much is not cut off");
    assert_eq!(probe(&shim, &["sh", "-c", "kill -9 $$"]).await.end, ProbeEnd::Signaled(9));
    let missing = probe(&shim, &["no-such-program"]).await.end;
    let expected = "exec: \"no-such-program\": executable file not found in $PATH";
    assert_eq!(missing, ProbeEnd::CannotStart(expected.to_owned()));
    let denied = probe(&shim, &["/etc/passwd"]).await.end;
    assert_eq!(denied, ProbeEnd::CannotStart("exec: \"/etc/passwd\": permission denied".to_owned()));
    assert!(matches!(probe(&shim, &[]).await.end, ProbeEnd::CannotStart(_)));
    node.leave_nothing(&shim).await;
}

#[tokio::test]
async fn a_probe_that_takes_too_long_is_killed_with_all_it_started() {
    let node = Node::new();
    let shim = node.shim().await;
    let pid = node.start(&shim, shell("c", "exec sleep 1000")).await.unwrap().pid;
    let name: ContainerName = "c".parse().unwrap();
    // A child, a grandchild whose parent has ended, and one with a session of its own.
    let mark = format!("77{}", pid);
    let script =
        format!("sleep {mark} & (sleep {mark} &) ; (setsid sleep {mark} &) ; echo started; sleep {mark}");
    let begin = Instant::now();
    let outcome =
        shim.probe(&name, &words(&["sh", "-c", &script]), Duration::from_millis(700)).await.unwrap();
    assert_eq!((outcome.end, outcome.output.as_slice()), (ProbeEnd::TimedOut, b"started\n".as_slice()));
    assert!(begin.elapsed() >= Duration::from_millis(700));
    eventually("all are gone", async || processes_with(&mark).is_empty()).await;
    assert!(is_alive(pid), "the container goes on");
    assert_eq!(probe(&shim, &["true"]).await.end, ProbeEnd::Exited(0));
    node.leave_nothing(&shim).await;
}

#[tokio::test]
async fn probes_end_with_their_container() {
    let node = Node::new();
    let shim = node.shim().await;
    let mut events = shim.events();
    node.start(&shim, shell("c", "exec sleep 1000")).await.unwrap();
    let name: ContainerName = "c".parse().unwrap();
    let (shim_of_probe, name_of_probe) = (shim.clone(), name.clone());
    let running = tokio::spawn(async move {
        shim_of_probe.probe(&name_of_probe, &words(&["sh", "-c", "touch /tmp/runs; sleep 100"]), LONG).await
    });
    eventually("the probe runs", async || node.rootfs.join("tmp/runs").exists()).await;
    // Others that begin while the container ends have an answer too, whichever.
    let (shim_of_many, name_of_many) = (shim.clone(), name.clone());
    let many = tokio::spawn(async move {
        loop {
            match shim_of_many.probe(&name_of_many, &words(&["true"]), LONG).await {
                Ok(_) => {}
                Err(error) => return error,
            }
        }
    });
    shim.kill(&name).await.unwrap();
    exit_of(&mut events, "c").await;
    assert_eq!(running.await.unwrap().unwrap().end, ProbeEnd::Signaled(9));
    assert!(matches!(many.await.unwrap(), RequestError::NotRunning(_)));
    let unknown: ContainerName = "other".parse().unwrap();
    let answer = shim.probe(&unknown, &words(&["true"]), LONG).await;
    assert!(matches!(answer, Err(RequestError::NotFound(_))), "{answer:?}");
    node.leave_nothing(&shim).await;
}

/// Every path below `directory`.
fn tree(directory: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(tree(&path));
        }
        found.insert(path.display().to_string());
    }
    found
}

/// utime, stime and those of reaped children, in ticks: proc(5).
fn ticks(pid: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let after = stat.rsplit_once(')').unwrap().1;
    after.split_whitespace().skip(11).take(4).map(|text| text.parse::<u64>().unwrap()).sum()
}

#[tokio::test]
async fn a_thousand_probes_leave_nothing_behind() {
    let node = Node::new();
    let shim = node.shim().await;
    node.start(&shim, shell("c", "exec sleep 1000")).await.unwrap();
    let pid = shim.status().await.unwrap().shim_pid;
    // The first opens what the next ones use again, until the container ends.
    probe(&shim, &["true"]).await;
    let seen = || {
        let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        (tree(node.directory.path()), open, children)
    };
    let (before, ticks_before) = (seen(), ticks(pid));
    let argv = words(&["sh", "-c", "true"]);
    let name: ContainerName = "c".parse().unwrap();
    let begin = Instant::now();
    for _ in 0..125 {
        let eight = (0..8).map(|_| {
            let (shim, name, argv) = (shim.clone(), name.clone(), argv.clone());
            tokio::spawn(async move { shim.probe(&name, &argv, LONG).await.unwrap().end })
        });
        for probe in eight.collect::<Vec<_>>() {
            assert_eq!(probe.await.unwrap(), ProbeEnd::Exited(0));
        }
    }
    let used = ticks(pid) - ticks_before;
    println!("1000 probes: {:?}, {used} ticks of 10 ms of processor time", begin.elapsed());
    assert_eq!(seen(), before, "files, descriptors or children of the shim");
    let own = own_memory_kib(pid);
    println!("shim after 1000 probes: {own} KiB of its own");
    assert!(own <= 205, "0.2 MiB are allowed, {own} KiB are its own");
    node.leave_nothing(&shim).await;
}
