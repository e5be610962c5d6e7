//! T4: from one control plane to three, as README shows it: `packaging/demo/growth.sh` with the binaries of
//! the build. In: root, etcd, a static busybox. Out: that it ends well, and that README's words are its own.
//! Leaves nothing behind: the script has namespaces of its own.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use lighter_vm_test::host;
use std::process::Command;

/// Without what differs from run to run: ids, process ids, ages, times, a loser's luck.
fn stable(line: &str) -> Option<String> {
    let changes = |word: &str| {
        let digits = word.trim_end_matches(',');
        digits.len() > 2 && digits.chars().all(|c| c.is_ascii_hexdigit())
            || word.strip_suffix('s').is_some_and(|age| age.parse::<u32>().is_ok())
            || word.trim_end_matches(',').starts_with("127.0.0.")
    };
    let kept: Vec<&str> = line.split_whitespace().filter(|word| !changes(word)).collect();
    // The migration counts records, the last line of a log counts seconds.
    let counted = ["migrated:", "tick"].iter().any(|word| kept.first() == Some(word));
    (!kept.is_empty() && !counted).then(|| kept.join(" "))
}

#[test]
fn one_control_plane_becomes_three_while_a_task_runs() {
    let script = host::workspace().join("packaging/demo/growth.sh");
    let done = Command::new(script).env("BIN_DIR", host::bin_dir()).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{out}\n{err}");
    let readme = std::fs::read_to_string(host::workspace().join("README.md")).unwrap();
    let growth = readme.split("## From one to three").nth(1).expect("README tells of it");
    let shown: Vec<String> = growth.split("```").nth(1).unwrap().lines().skip(1).filter_map(stable).collect();
    let printed: Vec<String> = out.lines().filter_map(stable).collect();
    assert_eq!(shown, printed, "README shows another run");
}
