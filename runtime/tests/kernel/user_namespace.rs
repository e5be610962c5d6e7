//! A task with a user namespace: ids, files and capabilities as /proc and the disk have them.

use crate::probe::compare_on;
use crate::support::{Node, exit_of, shell};
use lighter_model::exit::ExitStatus;
use lighter_model::task_definition::options::{IpcMode, PidMode, UsernsMode};
use lighter_runtime::{BindMount, SharedNamespaces};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::json;
use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::PathBuf;

/// A node whose task has ids of its own: an overlay of the mapped layers, a network namespace and a
/// volume. The mounts go with it.
pub(crate) struct Mapped {
    pub(crate) node: Node,
    first: u32,
    merged: PathBuf,
    volume: PathBuf,
}

impl Mapped {
    pub(crate) async fn new() -> Self {
        let mut node = Node::new();
        node.userns = UsernsMode::Auto;
        let mapped = node.runtime.map_ids(&node.task, &node.rootfs).await.unwrap();
        assert_eq!(node.runtime.map_ids(&node.task, &node.rootfs).await.unwrap(), mapped, "twice is once");
        let directory = node.directory.path();
        let [upper, work, merged, volume] =
            ["upper", "work", "merged", "volume"].map(|name| directory.join(name));
        for path in [&upper, &work, &merged, &volume] {
            fs::create_dir(path).unwrap();
        }
        fs::write(volume.join("old"), "by root of the host").unwrap();
        let first = mapped.ids.first;
        chown(&upper, Some(first), Some(first)).unwrap();
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            mapped.layers.display(),
            upper.display(),
            work.display()
        );
        mount(Some("overlay"), &merged, Some("overlay"), MsFlags::empty(), Some(options.as_str())).unwrap();
        let netns = directory.join("netns");
        node.runtime.make_netns(&node.task, &netns).await.unwrap();
        node.runtime.make_netns(&node.task, &netns).await.expect("twice is once");
        node.mounts.push(BindMount {
            source: volume.clone(),
            destination: "/data".to_owned(),
            read_only: false,
            mapped: true,
        });
        node.rootfs = merged.clone();
        node.netns = Some(netns);
        Self { node, first, merged, volume }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        let _ = umount2(&self.merged, MntFlags::MNT_DETACH);
        if let Some(netns) = &self.node.netns {
            let _ = umount2(netns, MntFlags::MNT_DETACH);
        }
    }
}

fn status(pid: i32, name: &str) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_start_matches(':').split_whitespace().map(|word| word.parse().unwrap()).collect()
}

#[tokio::test]
async fn root_of_a_user_namespace_is_nobody_on_the_host_and_owns_its_files() {
    let mapped = Mapped::new().await;
    let node = &mapped.node;
    let shim = node.shim().await;
    let mut events = shim.events();
    let script = "id -u; stat -c %u /bin/busybox /data/old /etc; touch /made /data/made /etc/made && echo made; \
                  echo x > /dev/null && echo null; \
                  mount -t tmpfs none /tmp 2>/dev/null || echo no mounts; exec sleep 1000";
    let mut container = shell("c", script);
    container["workingDirectory"] = json!("/new/place");
    container["linuxParameters"] = json!({ "initProcessEnabled": false });
    let started = node.start(&shim, container).await.unwrap();
    let map = fs::read_to_string(format!("/proc/{}/uid_map", started.pid)).unwrap();
    let first = mapped.first.to_string();
    assert!(map.split_whitespace().eq(["0", &first, "65536"]), "{map}");
    let gids = fs::read_to_string(format!("/proc/{}/gid_map", started.pid)).unwrap();
    assert_eq!(gids, map);
    assert_eq!(status(started.pid, "Uid"), [mapped.first; 4], "no id of the process is root's");
    let own = |of: &str, kind: &str| fs::read_link(format!("/proc/{of}/ns/{kind}")).unwrap();
    for kind in ["user", "pid", "mnt", "net", "ipc", "uts", "cgroup"] {
        assert_ne!(own(&started.pid.to_string(), kind), own("self", kind), "{kind}");
    }
    crate::support::eventually("the script is done", async || node.output("c").contains("no mounts")).await;
    let output = node.output("c");
    assert_eq!(output, "0\n0\n0\n0\nmade\nnull\nno mounts", "{output}");
    // On the disk a volume has the container's own ids, and the writable layer those of the host.
    assert_eq!(fs::metadata(mapped.volume.join("made")).unwrap().uid(), 0);
    let upper = node.directory.path().join("upper");
    for name in ["made", "etc/made", "new/place"] {
        assert_eq!(fs::metadata(upper.join(name)).unwrap().uid(), mapped.first, "{name}");
    }
    shim.kill(&"c".parse().unwrap()).await.unwrap();
    exit_of(&mut events, "c").await;
    node.leave_nothing(&shim).await;
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mut points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    assert!(points.all(|point| !point.contains(node.task.as_str())), "a mount of the task is left");
}

#[tokio::test]
async fn a_user_of_a_user_namespace_is_that_user_and_limits_can_be_raised() {
    let mapped = Mapped::new().await;
    let node = &mapped.node;
    let shim = node.shim().await;
    let mut events = shim.events();
    let mut container = shell("c", "id -u; ulimit -Hn; echo again > /dev/stdout");
    container["user"] = json!("web");
    container["ulimits"] = json!([{ "name": "nofile", "softLimit": 2048, "hardLimit": 4096 }]);
    node.start(&shim, container).await.unwrap();
    assert_eq!(exit_of(&mut events, "c").await.status, ExitStatus::Exited(0));
    assert_eq!(node.output("c"), "1000\n4096\nagain");
    node.leave_nothing(&shim).await;
}

#[tokio::test]
async fn containers_of_a_task_share_namespaces_of_its_user_namespace() {
    let mut mapped = Mapped::new().await;
    mapped.node.modes = (PidMode::Task, IpcMode::Task);
    let node = &mapped.node;
    let shim = node.shim().await;
    let shared = SharedNamespaces { pid: true, ipc_shared_memory_mib: Some(1) };
    node.runtime.share_namespaces(&node.task, shared).await.unwrap();
    let mut events = shim.events();
    let one = node.start(&shim, shell("one", "echo here > /dev/shm/x; exec sleep 1000")).await.unwrap();
    crate::support::eventually("it is written", async || {
        fs::read_to_string(format!("/proc/{}/root/dev/shm/x", one.pid)).is_ok_and(|text| text == "here\n")
    })
    .await;
    node.start(&shim, shell("two", "cat /dev/shm/x; ps | grep -c '[s]leep 1000'")).await.unwrap();
    exit_of(&mut events, "two").await;
    assert_eq!(node.output("two"), "here\n1");
    node.leave_nothing(&shim).await;
}

#[tokio::test]
async fn a_probe_in_a_user_namespace_is_confined_as_an_exec_of_libcontainer_is() {
    let mapped = Mapped::new().await;
    compare_on(&mapped.node, shell("c", "exec sleep 1000")).await;
}

#[tokio::test]
async fn two_tasks_have_no_id_in_common() {
    let node = Node::new();
    let other = lighter_model::ids::TaskId::from_parts(2, 77);
    let first = node.runtime.map_ids(&node.task, &node.rootfs).await.unwrap().ids;
    let second = node.runtime.map_ids(&other, &node.rootfs).await.unwrap().ids;
    assert!(first.first + first.count <= second.first, "{first:?} {second:?}");
    node.runtime.remove_task(&node.task).await.unwrap();
    let third = node.runtime.map_ids(&node.task, &node.rootfs).await.unwrap().ids;
    assert_eq!(third, first, "what was given back is free again");
    node.runtime.remove_task(&other).await.unwrap();
    node.remove().await;
}
