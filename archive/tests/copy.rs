//! Trees into an archive and back, and archives that want to write where they must not.
//! In: temporary directories, archives made by the tar crate. Out: files as stat(2) shows them.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use lighter_archive::{ArchiveError, Base, Ids, Links, Rules, Unpacked, pack, unpack};
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use tempfile::TempDir;

const KEEP: Rules = Rules { owner: None, keep_suid: true, ids: Ids::HOST };

fn me() -> Rules {
    let owner = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    Rules { owner: Some(owner), keep_suid: false, ids: Ids::HOST }
}

fn packed(path: &Path) -> Vec<u8> {
    let mut archive = Vec::new();
    let bytes = path.as_os_str().as_encoded_bytes();
    pack(rustix::fs::CWD, bytes, Links::Trusted, false, Ids::HOST, &mut archive).unwrap();
    archive
}

fn unpacked(archive: &[u8], to: &Path, rules: Rules) -> Result<Unpacked, ArchiveError> {
    let base = Base::own(to.as_os_str().as_encoded_bytes(), false)?;
    unpack(archive, &base, rules)
}

/// An archive with these entries: kind, path, link, contents.
fn archive(entries: &[(tar::EntryType, &str, &str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (kind, path, link, contents) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_size(contents.len() as u64);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1);
        header.set_device_major(1).unwrap();
        header.set_device_minor(3).unwrap();
        // Not through the crate's own setters: those refuse what an attacker writes.
        header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_gnu_mut().unwrap().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(contents.as_bytes());
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

use tar::EntryType::{Directory, Fifo, Link, Regular, Symlink};

#[test]
fn a_tree_comes_back_as_it_was() {
    let dir = TempDir::new().unwrap();
    let from = dir.path().join("from");
    fs::create_dir_all(from.join("sub/empty")).unwrap();
    fs::write(from.join("plain"), "hello").unwrap();
    fs::write(from.join("empty"), "").unwrap();
    fs::hard_link(from.join("plain"), from.join("sub/twin")).unwrap();
    symlink("/nowhere", from.join("dangling")).unwrap();
    symlink("plain", from.join("link")).unwrap();
    let long = "n".repeat(200);
    fs::write(from.join("sub").join(&long), "long").unwrap();
    symlink("t".repeat(150), from.join("longlink")).unwrap();
    fs::write(from.join("sub/tool"), "#!").unwrap();
    fs::set_permissions(from.join("sub/tool"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::set_permissions(from.join("sub"), fs::Permissions::from_mode(0o1750)).unwrap();
    // One byte at the end of 8 MiB of nothing.
    let sparse = fs::File::create(from.join("sparse")).unwrap();
    std::os::unix::fs::FileExt::write_at(&sparse, b"x", (8 << 20) - 1).unwrap();
    let to = dir.path().join("to");
    let bytes = packed(&from);
    unpacked(&bytes, &to, KEEP).unwrap();
    assert_eq!(fs::read_to_string(to.join("plain")).unwrap(), "hello");
    assert_eq!(
        fs::metadata(to.join("plain")).unwrap().ino(),
        fs::metadata(to.join("sub/twin")).unwrap().ino()
    );
    assert_eq!(fs::read_link(to.join("dangling")).unwrap(), Path::new("/nowhere"));
    assert_eq!(fs::read_link(to.join("longlink")).unwrap().as_os_str().len(), 150);
    assert_eq!(fs::read_to_string(to.join("sub").join(&long)).unwrap(), "long");
    assert_eq!(fs::metadata(to.join("sub/tool")).unwrap().mode() & 0o7777, 0o4755);
    assert_eq!(fs::metadata(to.join("sub")).unwrap().mode() & 0o7777, 0o1750);
    let [was, is] = [&from, &to].map(|dir| fs::metadata(dir.join("plain")).unwrap().mtime());
    assert_eq!(was, is);
    let sparse = fs::metadata(to.join("sparse")).unwrap();
    assert_eq!(sparse.len(), 8 << 20);
    assert!(sparse.blocks() * 512 < 1 << 20, "{} blocks for a hole", sparse.blocks());
    // A stranger's set-user-id bit is not taken over.
    let other = dir.path().join("other");
    unpacked(&bytes, &other, me()).unwrap();
    assert_eq!(fs::metadata(other.join("sub/tool")).unwrap().mode() & 0o7777, 0o755);
    let leftovers = fs::read_dir(&to)
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with(".lighter"));
    assert_eq!(leftovers.count(), 0);
}

#[test]
fn ten_thousand_files_go_there_and_back() {
    let dir = TempDir::new().unwrap();
    let from = dir.path().join("many");
    for directory in 0..100 {
        let directory = from.join(directory.to_string());
        fs::create_dir_all(&directory).unwrap();
        for file in 0..100 {
            fs::write(directory.join(file.to_string()), "x").unwrap();
        }
    }
    let to = dir.path().join("to");
    fs::create_dir(&to).unwrap();
    let done = unpacked(&packed(&from), &to, me()).unwrap();
    assert_eq!(done.entries, 1 + 100 + 10_000);
    assert_eq!(fs::read_to_string(to.join("many/99/99")).unwrap(), "x");
}

#[test]
fn names_go_where_cp_would_put_them() {
    let dir = TempDir::new().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("file"), "f").unwrap();
    fs::create_dir_all(at("tree/inner")).unwrap();
    fs::create_dir(at("there")).unwrap();
    unpacked(&packed(&at("file")), &at("there"), me()).unwrap();
    assert!(at("there/file").is_file());
    unpacked(&packed(&at("file")), &at("renamed"), me()).unwrap();
    assert!(at("renamed").is_file());
    unpacked(&packed(&at("tree")), &at("there"), me()).unwrap();
    assert!(at("there/tree/inner").is_dir());
    unpacked(&packed(&at("tree")), &at("copy"), me()).unwrap();
    assert!(at("copy/inner").is_dir() && !at("copy/tree").exists());
    unpacked(&packed(&at("tree/.")), &at("there"), me()).unwrap();
    assert!(at("there/inner").is_dir());
    // Over a file that is there; into a directory that is not.
    fs::write(at("file"), "new").unwrap();
    unpacked(&packed(&at("file")), &at("renamed"), me()).unwrap();
    assert_eq!(fs::read_to_string(at("renamed")).unwrap(), "new");
    let missing = dir.path().join("no/such/place");
    assert!(matches!(unpacked(&packed(&at("file")), &missing, me()), Err(ArchiveError::NotFound { .. })));
    let slash = format!("{}/", at("absent").display());
    assert!(unpacked(&packed(&at("file")), Path::new(&slash), me()).is_err());
    assert!(!at("absent").exists());
}

#[test]
fn hostile_archives_write_nothing_outside() {
    let attacks: &[&[(tar::EntryType, &str, &str, &str)]] = &[
        &[(Regular, "../out", "", "x")],
        &[(Regular, "a/../../out", "", "x")],
        // A link, then a file through it.
        &[(Symlink, "l", "OUT", ""), (Regular, "l/out", "", "x")],
        &[(Symlink, "l", "..", ""), (Regular, "l/out", "", "x")],
        &[(Symlink, "l", "..", ""), (Directory, "l/dir", "", "")],
        // A hard link to what is outside, by a path and by a link.
        &[(Link, "h", "../secret", "")],
        &[(Symlink, "l", "..", ""), (Link, "h", "l/secret", "")],
        &[(Symlink, "l", "../secret", ""), (Link, "h", "l", "")],
    ];
    for attack in attacks {
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join("secret"), "secret").unwrap();
        let to = dir.path().join("to");
        fs::create_dir(&to).unwrap();
        let outside = dir.path().display().to_string();
        let entries: Vec<_> = attack
            .iter()
            .map(|(kind, path, link, data)| {
                (*kind, *path, if *link == "OUT" { outside.as_str() } else { link }, *data)
            })
            .collect();
        let error = unpacked(&archive(&entries), &to, me()).expect_err(&format!("{attack:?}"));
        assert!(!dir.path().join("out").exists() && !dir.path().join("dir").exists(), "{attack:?}: {error}");
        assert_eq!(fs::metadata(dir.path().join("secret")).unwrap().nlink(), 1, "{attack:?}: {error}");
    }
}

#[test]
fn a_file_takes_the_place_of_a_link_and_not_of_its_target() {
    let dir = TempDir::new().unwrap();
    let (to, secret) = (dir.path().join("to"), dir.path().join("secret"));
    fs::create_dir(&to).unwrap();
    fs::write(&secret, "secret").unwrap();
    symlink(&secret, to.join("f")).unwrap();
    unpacked(&archive(&[(Regular, "f", "", "mine")]), &to, me()).unwrap();
    assert_eq!(fs::read_to_string(&secret).unwrap(), "secret");
    assert_eq!(fs::read_to_string(to.join("f")).unwrap(), "mine");
    // A directory that is a link here is not entered.
    symlink(dir.path(), to.join("d")).unwrap();
    assert!(
        unpacked(&archive(&[(Directory, "d/", "", ""), (Regular, "d/out", "", "x")]), &to, me()).is_err()
    );
    assert!(!dir.path().join("out").exists());
    // Pipes are made, devices are not, and neither is waited for.
    let done =
        unpacked(&archive(&[(Fifo, "p", "", ""), (tar::EntryType::Char, "c", "", "")]), &to, me()).unwrap();
    assert_eq!(done.left_out, 1);
    assert!(!to.join("c").exists() && to.join("p").exists());
    assert!(!packed(&to).is_empty());
}

#[test]
fn a_path_in_a_container_is_resolved_inside_its_root() {
    let dir = TempDir::new().unwrap();
    let root = dir.path().join("root");
    fs::create_dir_all(root.join("etc")).unwrap();
    fs::write(root.join("etc/passwd"), "inside").unwrap();
    symlink("/etc", root.join("absolute")).unwrap();
    symlink("../../../../etc", root.join("climbing")).unwrap();
    let opened = fs::File::open(&root).unwrap();
    for path in ["/absolute/passwd", "climbing/passwd", "../../etc/passwd"] {
        let mut bytes = Vec::new();
        pack(opened.as_fd(), path.as_bytes(), Links::InRoot, false, Ids::HOST, &mut bytes).unwrap();
        let to = dir.path().join("got");
        unpacked(&bytes, &to, me()).unwrap();
        assert_eq!(fs::read_to_string(&to).unwrap(), "inside", "{path}");
        let base = Base::inside(opened.as_fd(), path.as_bytes(), false).unwrap();
        unpack(bytes.as_slice(), &base, me()).unwrap();
    }
    assert_eq!(fs::read_to_string(root.join("etc/passwd")).unwrap(), "inside");
    // A link itself is copied as a link, unless it is to be followed.
    let mut bytes = Vec::new();
    pack(opened.as_fd(), b"/absolute", Links::InRoot, false, Ids::HOST, &mut bytes).unwrap();
    assert_eq!(bytes[156], b'2');
    bytes.clear();
    pack(opened.as_fd(), b"/absolute", Links::InRoot, true, Ids::HOST, &mut bytes).unwrap();
    assert_eq!(bytes[156], b'5');
}

#[test]
fn switches_of_the_kernel_are_no_files() {
    let proc = fs::File::open("/").unwrap();
    let mut sink = Vec::new();
    let refused = pack(proc.as_fd(), b"/proc/self/status", Links::InRoot, false, Ids::HOST, &mut sink);
    assert!(matches!(refused, Err(ArchiveError::Refused { .. })), "{refused:?}");
    assert!(matches!(Base::inside(proc.as_fd(), b"/proc/sys", false), Err(ArchiveError::Refused { .. })));
}

#[test]
fn a_stream_that_is_cut_off_leaves_no_half_file() {
    let dir = TempDir::new().unwrap();
    let contents = "y".repeat(100_000);
    let whole = archive(&[(Regular, "a", "", "whole"), (Regular, "b", "", &contents)]);
    for cut in [600, 1200, 50_000] {
        let to = dir.path().join(cut.to_string());
        fs::create_dir(&to).unwrap();
        assert!(unpacked(&whole[..cut], &to, me()).is_err());
        let names: Vec<_> = fs::read_dir(&to).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(names.iter().all(|name| name == "a"), "{names:?}");
    }
}

/// `CAP_NET_BIND_SERVICE`, permitted and effective (vfs_cap_data, revision 2).
const CAPABILITY: &[u8] = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

fn set(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::lsetxattr(path, name, value, rustix::fs::XattrFlags::empty()).unwrap();
}

fn get(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 65_536];
    let length = rustix::fs::lgetxattr(path, name, value.as_mut_slice()).ok()?;
    value.truncate(length);
    Some(value)
}

#[test]
fn extended_attributes_go_along_and_capabilities_only_where_set_user_ids_do() {
    let dir = TempDir::new().unwrap();
    let from = dir.path().join("from");
    fs::create_dir(&from).unwrap();
    fs::write(from.join("tool"), "#!").unwrap();
    let binary = b"a=b\nc\0d";
    set(&from.join("tool"), "security.capability", CAPABILITY);
    set(&from.join("tool"), "user.note", binary);
    set(&from.join("tool"), "user.empty", b"");
    set(&from, "user.dir", b"d");
    let long = "n".repeat(180);
    fs::write(from.join(&long), "").unwrap();
    set(&from.join(&long), "user.big", &vec![b'v'; 1500]);
    // Of no other machine's concern.
    set(&from.join("tool"), "trusted.mine", b"x");
    let bytes = packed(&from);
    let (kept, own) = (dir.path().join("kept"), dir.path().join("own"));
    unpacked(&bytes, &kept, KEEP).unwrap();
    assert_eq!(get(&kept.join("tool"), "security.capability").as_deref(), Some(CAPABILITY));
    assert_eq!(get(&kept.join("tool"), "user.note").as_deref(), Some(&binary[..]));
    assert_eq!(get(&kept.join("tool"), "user.empty").as_deref(), Some(&b""[..]));
    assert_eq!(get(&kept, "user.dir").as_deref(), Some(&b"d"[..]));
    assert_eq!(get(&kept.join(&long), "user.big").unwrap().len(), 1500);
    assert_eq!(get(&kept.join("tool"), "trusted.mine"), None);
    assert_eq!(fs::read_to_string(kept.join("tool")).unwrap(), "#!");
    unpacked(&bytes, &own, me()).unwrap();
    assert_eq!(get(&own.join("tool"), "security.capability"), None);
    assert_eq!(get(&own.join("tool"), "user.note").as_deref(), Some(&binary[..]));
}

/// GNU tar reads them too.
#[test]
fn others_read_our_extended_attributes() {
    let dir = TempDir::new().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    fs::create_dir(&from).unwrap();
    fs::create_dir(&to).unwrap();
    fs::write(from.join("tool"), "#!").unwrap();
    set(&from.join("tool"), "user.note", b"hello");
    let archive = dir.path().join("archive.tar");
    fs::write(&archive, packed(&from)).unwrap();
    let tar = std::process::Command::new("tar")
        .args(["--xattrs", "--xattrs-include=*", "-xf"])
        .arg(&archive)
        .arg("-C")
        .arg(&to)
        .status();
    assert!(tar.unwrap().success());
    assert_eq!(get(&to.join("from/tool"), "user.note").as_deref(), Some(&b"hello"[..]));
}

#[test]
fn attributes_that_steer_the_host_are_refused_or_left_behind() {
    let with = |name: &[u8]| {
        let rest = 1 + "SCHILY.xattr.=y\n".len() + name.len();
        let length = (rest..).find(|length| length - rest == length.to_string().len()).unwrap();
        let pax = [length.to_string().as_bytes(), b" SCHILY.xattr.", name, b"=y\n"].concat();
        let pax = String::from_utf8(pax).unwrap();
        archive(&[(tar::EntryType::XHeader, "x", "", &pax), (Regular, "f", "", "data")])
    };
    for (number, name) in [&b"trusted.overlay.opaque"[..], b"trusted.overlay.redirect", b"", b"user.a\0b"]
        .into_iter()
        .enumerate()
    {
        let dir = TempDir::new().unwrap();
        let refused = unpacked(&with(name), dir.path(), KEEP);
        assert!(matches!(refused, Err(ArchiveError::Refused { .. })), "{number}: {refused:?}");
        assert!(!dir.path().join("f").exists());
    }
    for name in [&b"security.selinux"[..], b"trusted.other", b"user.overlay.opaque", b"nonsense"] {
        let dir = TempDir::new().unwrap();
        unpacked(&with(name), dir.path(), KEEP).unwrap();
        let mut names = vec![0; 4096];
        let length = rustix::fs::llistxattr(dir.path().join("f"), names.as_mut_slice()).unwrap();
        assert!(!names[..length].windows(name.len()).any(|part| part == name), "{name:?}");
    }
}
