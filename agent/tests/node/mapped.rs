//! Copies into and out of a container with user ids of its own: the root file system (an overlay), a
//! volume (a mount with mapped owners) and /dev/shm (a file system of the user namespace).
//! In: a world, archives of files made here. Out: assertions on stat(2) and xattr(7), inside and here.

use super::FIRST;
use super::control::wait;
use super::streams::{Task, copies, copy_in, copy_out};
use super::world::World;
use lighter_archive::{Base, Ids, Links, Rules, pack, unpack};
use lighter_proto::v1;
use lighter_proto::v1::TaskStatus;
use lighter_proto::v1::stream_ended::Result as Ended;
use rustix::fs::{XattrFlags, getxattr, setxattr};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;

/// Where the agent's range of ids begins.
const FIRST_ID: u32 = 0x7000_0000;
const CAPABILITY: &str = "security.capability";
const ACCESS_LIST: &str = "system.posix_acl_access";

pub(super) fn run() {
    let mut world = World::new();
    let script = "trap 'exit 0' TERM; while true; do sleep 0.1; done";
    world.control.define(
        "mapped:1",
        &format!(
            r#"{{"family":"mapped","usernsMode":"auto","volumes":[{{"name":"data","host":{{}}}}],"containerDefinitions":[
              {{"name":"main","image":"{}","memory":64,"stopTimeout":1,"command":["sh","-c","{script}"],
                "mountPoints":[{{"sourceVolume":"data","containerPath":"/data"}}]}}]}}"#,
            world.image()
        ),
    );
    world.start();
    world.control.assign(FIRST, "mapped:1");
    let pid = world.control.wait_status(FIRST, TaskStatus::Running).containers[0].pid;
    let task = Task(&world);
    copies(&task);
    let root = format!("/proc/{pid}/root");
    for place in ["/tmp", "/data", "/dev/shm"] {
        owners_and_rights(&task, Path::new(&root), place);
    }
    let volume = world.config.data_dir.join("volumes/task").join(FIRST).join("data");
    assert_eq!(
        fs::metadata(volume.join("tree/plain")).unwrap().uid(),
        33,
        "a volume has the container's ids"
    );
    hostile(&task, Path::new(&root));
    every_thread_is_root();
    world.control.stop(FIRST, "");
    world.control.wait_status(FIRST, TaskStatus::Stopped);
    world.assert_nothing_left();
}

fn capability(revision: u32, root: Option<u32>) -> Vec<u8> {
    // CAP_NET_BIND_SERVICE, effective.
    let words = [revision | 1, 1 << 10, 0, 0, 0].into_iter().chain(root);
    words.flat_map(u32::to_le_bytes).collect()
}

/// rwx of the owner, r for the user `id`, and what has to be with it.
fn access_list(id: u32) -> Vec<u8> {
    let none = u32::MAX;
    let entries: [(u16, u16, u32); 5] =
        [(1, 6, none), (2, 4, id), (4, 4, none), (0x10, 4, none), (0x20, 0, none)];
    let bytes = entries
        .into_iter()
        .flat_map(|(tag, may, id)| [&tag.to_le_bytes()[..], &may.to_le_bytes(), &id.to_le_bytes()].concat());
    2_u32.to_le_bytes().into_iter().chain(bytes).collect()
}

fn attribute(path: &Path, name: &str) -> Vec<u8> {
    let mut value = vec![0; 1024];
    let length =
        getxattr(path, name, value.as_mut_slice()).unwrap_or_else(|e| panic!("{name} of {path:?}: {e}"));
    value.truncate(length);
    value
}

fn packed(path: &Path) -> Vec<u8> {
    let mut archive = Vec::new();
    pack(
        rustix::fs::CWD,
        path.as_os_str().as_encoded_bytes(),
        Links::Trusted,
        false,
        Ids::HOST,
        &mut archive,
    )
    .unwrap();
    archive
}

fn as_they_are(path: &str) -> v1::CopyInOrder {
    v1::CopyInOrder { path: path.to_owned(), keep_owner: true, ..Default::default() }
}

fn owners_and_rights(task: &Task<'_>, root: &Path, place: &str) {
    // Extended attributes of all kinds need a disk below; /dev/shm has capabilities and access lists.
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    fs::create_dir(&tree).unwrap();
    for name in ["plain", "of-root", "tool", "listed"] {
        fs::write(tree.join(name), name).unwrap();
    }
    chown(tree.join("plain"), Some(33), Some(1000)).unwrap();
    fs::set_permissions(tree.join("plain"), fs::Permissions::from_mode(0o4751)).unwrap();
    symlink("plain", tree.join("link")).unwrap();
    setxattr(tree.join("tool"), CAPABILITY, &capability(0x0200_0000, None), XattrFlags::empty()).unwrap();
    setxattr(tree.join("listed"), ACCESS_LIST, &access_list(33), XattrFlags::empty()).unwrap();
    let archive = packed(&tree);
    assert_eq!(
        copy_in(task, as_they_are(place), &archive),
        Some(Ended::Done(v1::StreamDone { entries: 6 })),
        "{place}"
    );
    let inside = task.output(&format!("cd {place}/tree; busybox stat -c '%u %g %a' plain of-root link ."));
    assert_eq!(inside, "33 1000 4751\n0 0 644\n0 0 777\n0 0 755\n", "{place}");
    let here = root.join(&place[1..]).join("tree");
    let plain = fs::metadata(here.join("plain")).unwrap();
    assert_eq!(
        (plain.uid(), plain.gid(), plain.mode() & 0o7777),
        (FIRST_ID + 33, FIRST_ID + 1000, 0o4751),
        "{place}"
    );
    // Rights of the container's root, not of ours.
    assert_eq!(attribute(&here.join("tool"), CAPABILITY), capability(0x0300_0000, Some(FIRST_ID)), "{place}");
    assert_eq!(attribute(&here.join("listed"), ACCESS_LIST), access_list(FIRST_ID + 33), "{place}");
    let (out, end) = copy_out(task, &format!("{place}/tree"));
    assert_eq!(end, Some(Ended::Done(v1::StreamDone { entries: 6 })), "{place}");
    let back = dir.path().join("back");
    let base = Base::own(back.as_os_str().as_encoded_bytes(), true).unwrap();
    unpack(out.as_slice(), &base, Rules { owner: None, keep_suid: true, ids: Ids::HOST }).unwrap();
    let plain = fs::metadata(back.join("tree/plain")).unwrap();
    assert_eq!((plain.uid(), plain.gid(), plain.mode() & 0o7777), (33, 1000, 0o4751), "{place}");
    assert_eq!(attribute(&back.join("tree/tool"), CAPABILITY), capability(0x0200_0000, None), "{place}");
    assert_eq!(attribute(&back.join("tree/listed"), ACCESS_LIST), access_list(33), "{place}");
}

/// What an archive or the container itself does to reach beyond it.
fn hostile(task: &Task<'_>, root: &Path) {
    let dir = tempfile::tempdir().unwrap();
    let outside = dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let refused = |order: v1::CopyInOrder, archive: &[u8], words: &str| match copy_in(task, order, archive) {
        Some(Ended::Failed(failure)) => {
            assert!(failure.reason == "INVALID" && failure.message.contains(words), "{failure:?}");
        }
        other => panic!("{other:?}"),
    };
    // An owner of the next task.
    fs::write(dir.path().join("foreign"), "x").unwrap();
    chown(dir.path().join("foreign"), Some(65_536), Some(0)).unwrap();
    for place in ["/tmp", "/data"] {
        refused(as_they_are(place), &packed(&dir.path().join("foreign")), "owner that the container has not");
        assert_eq!(
            task.output(&format!("busybox ls -A {place} | busybox grep -c foreign")),
            "0\n",
            "no half file"
        );
    }
    // A link in the container that leads out of it is a link inside: there the directory is missing.
    let script = format!("busybox mkdir -p /tmp/t/a; busybox ln -s {} /tmp/t/a/b", outside.display());
    task.output(&script);
    let tree = dir.path().join("t");
    fs::create_dir_all(tree.join("a/b")).unwrap();
    fs::write(tree.join("a/b/mark"), "x").unwrap();
    refused(as_they_are("/tmp"), &packed(&tree), "");
    let through = v1::CopyInOrder { path: "/tmp/t/a/b/".to_owned(), ..Default::default() };
    match copy_in(task, through, &packed(&dir.path().join("t/a/b/mark"))) {
        Some(Ended::Failed(_)) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    assert!(!root.join("tmp/t/a/b/mark").exists());
    // The kernel's switches stay closed, and so does what only the host's root may do.
    refused(as_they_are("/proc/sys/net/ipv4"), &packed(&dir.path().join("foreign")), "switch of the kernel");
}

/// The thread that was somebody else has ended.
fn every_thread_is_root() {
    let others = || {
        let tasks = fs::read_dir("/proc/self/task").unwrap();
        let status = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("status")).ok());
        status.filter(|text| !text.contains("Uid:\t0\t0\t0\t0\n")).collect::<Vec<_>>()
    };
    wait("only root", || others().is_empty().then_some(()), || format!("{:?}", others()));
}
