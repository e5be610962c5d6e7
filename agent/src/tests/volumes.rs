//! Volumes as directories of the node: who fills them, who keeps them, what is refused.
//! In: definitions. Out: files below the data directory. Never: a mount; that is the runtime's.

use super::bench::{Bench, task};
use crate::config::AllowHostPaths;
use lighter_proto::v1::TaskStatus;

fn definition(volume: &str) -> String {
    format!(
        r#"{{"family":"f","containerDefinitions":[{{"name":"a","image":"side","memory":8,"stopTimeout":1,
        "mountPoints":[{{"sourceVolume":"v","containerPath":"/v"}}]}}],"volumes":[{{"name":"v",{volume}}}]}}"#
    )
}

#[test]
fn a_shared_volume_is_filled_once_and_kept() {
    let mut bench = Bench::new();
    let shared = r#""dockerVolumeConfiguration":{"scope":"shared","autoprovision":true}"#;
    bench.control.define("shared:1", &definition(shared));
    bench.start();
    let volume = bench.config.data_dir.join("volumes/shared/v");
    for number in 1..=2 {
        bench.control.assign(task(number).as_str(), "shared:1");
        bench.control.wait_status(task(number).as_str(), TaskStatus::Running);
        bench.control.stop(task(number).as_str(), "");
        bench.control.wait_status(task(number).as_str(), TaskStatus::Stopped);
        assert!(volume.join("from-image").exists());
        std::fs::write(volume.join("written"), "by a task").unwrap();
    }
    let seeded =
        bench.machine.with(|world| world.calls.iter().filter(|call| call.starts_with("seed_volume")).count());
    assert_eq!(seeded, 1);
    assert_eq!(std::fs::read_to_string(volume.join("written")).unwrap(), "by a task");
}

#[test]
fn a_shared_volume_that_does_not_exist_is_made_only_when_asked() {
    let mut bench = Bench::new();
    bench.control.define("shared:1", &definition(r#""dockerVolumeConfiguration":{"scope":"shared"}"#));
    bench.start();
    bench.control.assign(task(1).as_str(), "shared:1");
    let stopped = bench.control.wait_status(task(1).as_str(), TaskStatus::Stopped);
    let reason = &stopped.stopped_reason;
    assert!(
        reason.starts_with("ResourceInitializationError") && reason.contains("autoprovision"),
        "{reason}"
    );
    bench.wait_forgotten(&[task(1)]);
}

#[test]
fn host_paths_are_mounted_where_the_node_allows_them() {
    let mut bench = Bench::new();
    let allowed = bench.config.data_dir.with_extension("allowed");
    std::fs::create_dir_all(&allowed).unwrap();
    std::os::unix::fs::symlink("/etc", allowed.join("link")).unwrap();
    bench.config.allow_host_paths = AllowHostPaths::Below(vec![allowed.clone()]);
    let path =
        |name: &str| definition(&format!(r#""host":{{"sourcePath":"{}"}}"#, allowed.join(name).display()));
    bench.control.define("new:1", &path("new/dir"));
    bench.control.define("link:1", &path("link"));
    bench.start();
    bench.control.assign(task(1).as_str(), "new:1");
    bench.control.wait_status(task(1).as_str(), TaskStatus::Running);
    assert!(allowed.join("new/dir").is_dir());
    bench.control.assign(task(2).as_str(), "link:1");
    let stopped = bench.control.wait_status(task(2).as_str(), TaskStatus::Stopped);
    assert!(
        stopped.stopped_reason.contains("/etc") && stopped.stopped_reason.contains("allow_host_paths"),
        "{}",
        stopped.stopped_reason
    );
    bench.control.stop(task(1).as_str(), "");
    bench.control.wait_status(task(1).as_str(), TaskStatus::Stopped);
    assert!(allowed.join("new/dir").is_dir(), "what is the host's stays");
}
