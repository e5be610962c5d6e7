//! Tests of unpacking: what honest layers become, and that hostile ones change nothing outside.
//! In: archives made here. Out: a directory in a temporary place, looked at with plain system calls.
//! Needs root: owners, devices and trusted attributes are set for real.

use super::*;
use proptest::prelude::*;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::PathBuf;
use tar::{EntryType, Header};

/// An archive under construction.
#[derive(Default)]
struct Archive(Vec<u8>);

impl Archive {
    fn add(mut self, kind: EntryType, path: &str, link: &str, mode: u32, data: &[u8]) -> Self {
        self.push(kind, path, link, mode, data, (0, 0));
        self
    }

    fn push(&mut self, kind: EntryType, path: &str, link: &str, mode: u32, data: &[u8], device: (u32, u32)) {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_size(data.len() as u64);
        header.set_mode(mode);
        header.set_uid(1000);
        header.set_gid(1001);
        header.set_mtime(1_000_000);
        // Raw fields: the crate's setters refuse what attackers write.
        let bytes = header.as_mut_bytes();
        bytes[..path.len()].copy_from_slice(path.as_bytes());
        bytes[157..157 + link.len()].copy_from_slice(link.as_bytes());
        if matches!(kind, EntryType::Char | EntryType::Block) {
            header.set_device_major(device.0).unwrap();
            header.set_device_minor(device.1).unwrap();
        }
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
    }

    fn xattr(mut self, key: &str, value: &[u8]) -> Self {
        let rest = "SCHILY.xattr.".len() + key.len() + value.len() + 3;
        let length = (rest + 1..).find(|n| *n == rest + n.to_string().len()).unwrap();
        let pax = [format!("{length} SCHILY.xattr.{key}=").as_bytes(), value, b"\n"].concat();
        self.push(EntryType::XHeader, "pax", "", 0o644, &pax, (0, 0));
        self
    }

    fn file(self, path: &str, data: &[u8]) -> Self {
        self.add(EntryType::Regular, path, "", 0o644, data)
    }
    fn dir(self, path: &str) -> Self {
        self.add(EntryType::Directory, path, "", 0o755, b"")
    }
    fn symlink(self, path: &str, to: &str) -> Self {
        self.add(EntryType::Symlink, path, to, 0o777, b"")
    }
    /// With GNU's records for names of more than a hundred bytes.
    fn long_symlink(self, path: &str, to: &str) -> Self {
        self.add(EntryType::GNULongLink, "long", "", 0o644, to.as_bytes()).symlink(path, "")
    }
    fn long_file(self, path: &str, data: &[u8]) -> Self {
        self.add(EntryType::GNULongName, "long", "", 0o644, path.as_bytes()).file("", data)
    }
    fn hard_link(self, path: &str, to: &str) -> Self {
        self.add(EntryType::Link, path, to, 0o644, b"")
    }
}

/// A place to unpack into, with something beside it that must not change.
struct Arena {
    base: tempfile::TempDir,
}

impl Arena {
    fn new() -> Self {
        assert!(rustix::process::geteuid().is_root(), "these tests need root");
        let base = tempfile::tempdir().unwrap();
        std::fs::create_dir(base.path().join("work")).unwrap();
        std::fs::create_dir(base.path().join("outside")).unwrap();
        std::fs::write(base.path().join("outside/secret"), b"secret").unwrap();
        Self { base }
    }

    fn unpack(&self, archive: Archive) -> Result<Unpacked, UnpackError> {
        let target = Target::make(&self.base.path().join("work")).unwrap();
        let limits = UnpackLimits { max_bytes: 1 << 24, max_entries: 1000 };
        let mut bytes = archive.0;
        bytes.extend([0; 1024]);
        pipeline::unpack(bytes.as_slice(), Compression::None, &target, limits)
    }

    fn diff(&self) -> PathBuf {
        self.base.path().join("work/diff")
    }

    fn at(&self, path: &str) -> PathBuf {
        self.diff().join(path)
    }

    /// Names, kinds, sizes, owners, modes and times of everything beside the layer and its record.
    fn outside(&self) -> Vec<String> {
        let mut seen = Vec::new();
        for top in ["outside", "work"] {
            let mut waiting = vec![self.base.path().join(top)];
            while let Some(path) = waiting.pop() {
                let meta = std::fs::symlink_metadata(&path).unwrap();
                if path.ends_with("work") {
                    seen.push(format!("{path:?} {:?}", meta.mode()));
                } else {
                    let content = if meta.is_file() { std::fs::read(&path).unwrap() } else { Vec::new() };
                    seen.push(format!(
                        "{path:?} {:o} {} {} {} {} {:?} {content:?}",
                        meta.mode(),
                        meta.uid(),
                        meta.gid(),
                        meta.nlink(),
                        meta.mtime(),
                        meta.ctime_nsec()
                    ));
                }
                if meta.is_dir() {
                    let entries = std::fs::read_dir(&path).unwrap().map(|e| e.unwrap().path());
                    waiting
                        .extend(entries.filter(|p| !p.ends_with("work/diff") && !p.ends_with(split::SPLIT)));
                }
            }
        }
        seen.sort();
        seen
    }
}

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 256];
    let length = rustix::fs::lgetxattr(path, name, value.as_mut_slice()).ok()?;
    value.truncate(length);
    Some(value)
}

#[test]
fn owners_modes_times_and_kinds_are_the_archives() {
    let arena = Arena::new();
    let mut archive = Archive::default()
        .add(EntryType::Directory, "./", "", 0o711, b"")
        .add(EntryType::Directory, "d/", "", 0o1777, b"")
        .add(EntryType::Regular, "d/suid", "", 0o4755, b"program")
        .symlink("d/link", "/etc/passwd")
        .hard_link("d/second", "d/suid")
        .add(EntryType::Fifo, "fifo", "", 0o600, b"")
        .xattr("security.capability", b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0")
        .xattr("user.note", b"a\nb")
        .file("caps", b"x");
    // Only the last record before an entry counts for it: both of the above stand before `caps`.
    archive.push(EntryType::Char, "null", "", 0o666, b"", (1, 3));
    let unpacked = arena.unpack(archive).unwrap();
    assert_eq!((unpacked.entries, unpacked.bytes), (9 - 1, 8));
    assert!(unpacked.implicit_dirs.is_empty());
    let meta = |path: &str| std::fs::symlink_metadata(arena.at(path)).unwrap();
    assert_eq!(meta("").mode() & 0o7777, 0o711);
    assert_eq!(meta("d").mode() & 0o7777, 0o1777);
    assert_eq!(meta("d/suid").mode() & 0o7777, 0o4755);
    assert_eq!((meta("d/suid").uid(), meta("d/suid").gid(), meta("d/suid").nlink()), (1000, 1001, 2));
    assert_eq!(meta("d/second").ino(), meta("d/suid").ino());
    for path in ["", "d", "d/suid", "d/link", "fifo", "null"] {
        assert_eq!(meta(path).mtime(), 1_000_000, "{path}");
        assert_eq!(meta(path).uid(), 1000, "{path}");
    }
    assert!(meta("fifo").file_type().is_fifo());
    assert!(meta("null").file_type().is_char_device());
    assert_eq!(meta("null").rdev(), rustix::fs::makedev(1, 3));
    assert_eq!(std::fs::read_link(arena.at("d/link")).unwrap(), Path::new("/etc/passwd"));
    assert_eq!(xattr(&arena.at("caps"), "security.capability").unwrap().len(), 20);
    assert_eq!(xattr(&arena.at("caps"), "user.note").unwrap(), b"a\nb");
}

#[test]
fn whiteouts_speak_of_lower_layers_only() {
    let arena = Arena::new();
    let archive = Archive::default()
        .file("etc/.wh.gone", b"")
        .file("kept", b"kept")
        .file(".wh.kept", b"")
        .file("opaque/.wh..wh..opq", b"")
        .file("opaque/new", b"n")
        .file(".wh.redone", b"")
        .dir("redone/")
        .dir("later/")
        .file(".wh.later", b"")
        .file(".wh..wh.plnk", b"");
    let unpacked = arena.unpack(archive).unwrap();
    let gone = std::fs::symlink_metadata(arena.at("etc/gone")).unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    assert_eq!(std::fs::read(arena.at("kept")).unwrap(), b"kept");
    for opaque in ["opaque", "redone", "later"] {
        assert_eq!(xattr(&arena.at(opaque), "trusted.overlay.opaque").unwrap(), b"y", "{opaque}");
    }
    assert!(!arena.at(".wh..wh.plnk").exists());
    let names = |path: &[u8]| unpacked.implicit_dirs.iter().any(|p| p == path);
    assert!(names(b"") && names(b"etc") && names(b"opaque") && !names(b"redone"));
}

#[test]
fn later_entries_replace_earlier_ones() {
    let arena = Arena::new();
    let archive = Archive::default()
        .file("f", b"one")
        .file("f", b"two")
        .dir("d/")
        .file("d/x", b"x")
        .dir("d/sub/")
        .file("d/sub/y", b"y")
        .file("d", b"now a file")
        .symlink("l", "f")
        .dir("l/")
        .file("l/in", b"in")
        .file("h", b"h")
        .hard_link("h", "h")
        .dir("same/")
        .file("same/x", b"x")
        .add(EntryType::Directory, "same/", "", 0o700, b"");
    arena.unpack(archive).unwrap();
    assert_eq!(std::fs::read(arena.at("f")).unwrap(), b"two");
    assert_eq!(std::fs::read(arena.at("d")).unwrap(), b"now a file");
    assert_eq!(std::fs::read(arena.at("l/in")).unwrap(), b"in");
    assert_eq!(std::fs::read(arena.at("h")).unwrap(), b"h");
    assert_eq!(std::fs::read(arena.at("same/x")).unwrap(), b"x");
    assert_eq!(std::fs::metadata(arena.at("same")).unwrap().mode() & 0o7777, 0o700);
}

#[test]
fn symlinked_directories_are_followed_inside_the_layer() {
    let arena = Arena::new();
    let archive = Archive::default()
        .symlink("lib", "usr/lib")
        .file("lib/a", b"a")
        .symlink("abs", "/usr/share")
        .file("abs/b", b"b")
        .symlink("up", "../../../../outside")
        .file("up/c", b"c");
    let before = arena.outside();
    arena.unpack(archive).unwrap();
    assert_eq!(std::fs::read(arena.at("usr/lib/a")).unwrap(), b"a");
    assert_eq!(std::fs::read(arena.at("usr/share/b")).unwrap(), b"b");
    assert_eq!(std::fs::read(arena.at("outside/c")).unwrap(), b"c");
    assert_eq!(arena.outside(), before);
}

#[test]
fn hostile_layers_are_refused_or_stay_inside() {
    let outside = |arena: &Arena| arena.base.path().join("outside").display().to_string();
    type Attack = Box<dyn Fn(&str) -> Archive>;
    let attacks: Vec<(&str, Attack)> = vec![
        ("dots", Box::new(|_| Archive::default().file("../outside/secret", b"x"))),
        ("absolute", Box::new(|o| Archive::default().file(&format!("{o}/secret"), b"x"))),
        ("through a symlink", Box::new(|o| Archive::default().symlink("s", o).file("s/secret", b"x"))),
        (
            "onto a symlink",
            Box::new(|o| Archive::default().symlink("s", &format!("{o}/secret")).file("s", b"x")),
        ),
        ("hard link out", Box::new(|o| Archive::default().hard_link("h", &format!("{o}/secret")))),
        ("hard link with dots", Box::new(|_| Archive::default().hard_link("h", "../../outside/secret"))),
        (
            "hard link through a symlink",
            Box::new(|o| Archive::default().symlink("s", o).hard_link("h", "s/secret").file("h", b"x")),
        ),
        (
            "hard link to a symlink",
            Box::new(|o| {
                Archive::default().symlink("s", &format!("{o}/secret")).hard_link("h", "s").file("h", b"x")
            }),
        ),
        (
            "directory then symlink",
            Box::new(|o| {
                Archive::default().dir("d/").file("d/a", b"a").symlink("d", o).file("d/secret", b"x")
            }),
        ),
        (
            "chmod through a symlink",
            Box::new(|o| Archive::default().symlink("s", o).add(EntryType::Directory, "s/", "", 0o000, b"")),
        ),
        (
            "whiteout through a symlink",
            Box::new(|o| Archive::default().symlink("s", o).file("s/.wh.secret", b"")),
        ),
        (
            "opaque through a symlink",
            Box::new(|o| Archive::default().symlink("s", o).file("s/.wh..wh..opq", b"")),
        ),
        ("whiteout of dots", Box::new(|_| Archive::default().file(".wh...", b""))),
        ("whiteout of nothing", Box::new(|_| Archive::default().file(".wh.", b""))),
        ("magic link", Box::new(|_| Archive::default().symlink("s", "/proc/self/cwd").file("s/x", b"x"))),
        (
            "symlink circle",
            Box::new(|_| Archive::default().symlink("a", "b").symlink("b", "a").file("a/x", b"x")),
        ),
        (
            "overlay attribute",
            Box::new(|_| Archive::default().xattr("trusted.overlay.redirect", b"/etc").dir("d/")),
        ),
        ("symlink to itself deeper", Box::new(|_| Archive::default().symlink("a", "a/a").file("a/x", b"x"))),
        (
            "symlinks that stand for tens of thousands of parts",
            Box::new(|_| {
                let long = "/a".repeat(2000);
                let link = |archive: Archive, n: i32| {
                    archive.long_symlink(&format!("l{n}"), &format!("l{}{long}", n + 1))
                };
                (0..30).fold(Archive::default(), link).long_file(&format!("l0{long}/f"), b"x")
            }),
        ),
        ("root is a file", Box::new(|_| Archive::default().file("./", b""))),
        ("file as directory", Box::new(|_| Archive::default().file("f", b"").file("f/x", b""))),
        ("hard link to a directory", Box::new(|_| Archive::default().dir("d/").hard_link("h", "d"))),
    ];
    for (name, attack) in attacks {
        let arena = Arena::new();
        let before = arena.outside();
        let result = arena.unpack(attack(&outside(&arena)));
        assert_eq!(arena.outside(), before, "{name}: {result:?}");
        if let Err(error) = result {
            assert!(matches!(error, UnpackError::Hostile { .. } | UnpackError::Io { .. }), "{name}: {error}");
        }
    }
}

#[test]
fn limits_hold() {
    let archive = Archive::default().file("a", &[0; 4000]).file("b", b"");
    let limits = |max_bytes, max_entries| UnpackLimits { max_bytes, max_entries };
    let unpack = |limits| {
        let arena = Arena::new();
        let target = Target::make(&arena.base.path().join("work")).unwrap();
        pipeline::unpack(archive.0.as_slice(), Compression::None, &target, limits)
    };
    assert!(matches!(unpack(limits(100, 100)), Err(UnpackError::Limit { limit: 100, .. })));
    assert!(matches!(unpack(limits(1 << 20, 1)), Err(UnpackError::Limit { limit: 1, .. })));
}

#[test]
fn gzip_members_and_zstd_give_the_same_layer_and_damage_is_named() {
    use std::io::Write;
    let tar = [Archive::default().file("f", &[7; 300_000]).0, vec![0; 1024]].concat();
    let gzip = |part: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(part).unwrap();
        encoder.finish().unwrap()
    };
    let members = [gzip(&tar[..1000]), gzip(&tar[1000..])].concat();
    let zstd = zstd::stream::encode_all(tar.as_slice(), 3).unwrap();
    let mut damaged = members.clone();
    let end = damaged.len() - 6;
    damaged[end] ^= 0xff;
    let unpack = |bytes: &[u8], compression| {
        let arena = Arena::new();
        let target = Target::make(&arena.base.path().join("work")).unwrap();
        let limits = UnpackLimits { max_bytes: 1 << 24, max_entries: 1000 };
        pipeline::unpack(bytes, compression, &target, limits)
    };
    let plain = unpack(&tar, Compression::None).unwrap();
    assert_eq!(plain.diff_id, Digest::of(&tar));
    assert_eq!(unpack(&members, Compression::Gzip).unwrap(), plain);
    assert_eq!(unpack(&zstd, Compression::Zstd).unwrap(), plain);
    assert!(matches!(unpack(&damaged, Compression::Gzip), Err(UnpackError::Decompress(_))));
    assert!(matches!(unpack(&tar, Compression::Gzip), Err(UnpackError::Decompress(_))));
    assert!(matches!(unpack(&zstd[..zstd.len() / 2], Compression::Zstd), Err(UnpackError::Decompress(_))));
}

#[test]
fn implicit_directories_take_the_attributes_of_the_layers_below() {
    let (lower, upper) = (Arena::new(), Arena::new());
    lower
        .unpack(
            Archive::default()
                .add(EntryType::Directory, "./", "", 0o701, b"")
                .xattr("user.x", b"y")
                .add(EntryType::Directory, "a/", "", 0o1711, b"")
                .add(EntryType::Directory, "a/b/", "", 0o700, b"")
                .symlink("s", "a"),
        )
        .unwrap();
    let unpacked =
        upper.unpack(Archive::default().file("a/b/new", b"").file("s/f", b"").file("own/f", b"")).unwrap();
    let diff = inherit::open_layer(&upper.diff()).unwrap();
    let below = [inherit::open_layer(&lower.diff()).unwrap()];
    inherit::inherit(std::os::fd::AsFd::as_fd(&diff), &unpacked.implicit_dirs, &below).unwrap();
    let meta = |path: &str| std::fs::symlink_metadata(upper.at(path)).unwrap();
    for (path, mode) in [("", 0o701), ("a", 0o1711), ("a/b", 0o700)] {
        assert_eq!(
            (meta(path).mode() & 0o7777, meta(path).uid(), meta(path).mtime()),
            (mode, 1000, 1_000_000),
            "{path}"
        );
    }
    assert_eq!(xattr(&upper.at("a"), "user.x").unwrap(), b"y");
    // Below there is a symlink of that name, which this layer's directory replaces.
    assert_eq!((meta("s").mode() & 0o7777, meta("s").uid()), (0o755, 0));
    assert_eq!((meta("own").mode() & 0o7777, meta("own").uid()), (0o755, 0));
}

/// Steps an attacker may combine: few names, so that they meet.
fn step() -> impl Strategy<Value = (u8, &'static str, &'static str, u32)> {
    let path = prop::sample::select(vec![
        "a",
        "a/b",
        "a/b/c",
        "b",
        "b/a",
        "./a/",
        "/b",
        "a//b",
        ".wh.a",
        "a/.wh.b",
        "b/.wh..wh..opq",
        "../a",
        "a/../../b",
        "..",
        ".wh...",
        "a/.wh.",
        ".",
        "c/a",
        "c",
        "c/b/a",
    ]);
    let link = prop::sample::select(vec![
        "a",
        "b",
        "/",
        "..",
        "../..",
        "../../outside",
        "../../outside/secret",
        "/a/b",
        "b/..",
        "OUTSIDE",
        "OUTSIDE/secret",
        "/proc/self/root",
        "/proc/self/fd",
        "c",
        ".",
        "a/b/c",
    ]);
    (0u8..8, path, link, prop::sample::select(vec![0u32, 0o777, 0o4755, 0o1000]))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn no_combination_of_entries_changes_anything_outside(steps in prop::collection::vec(step(), 1..12)) {
        let arena = Arena::new();
        let outside = arena.base.path().join("outside").display().to_string();
        let before = arena.outside();
        let mut archive = Archive::default();
        for (kind, path, link, mode) in steps {
            let kind = [
                EntryType::Regular, EntryType::Directory, EntryType::Symlink, EntryType::Symlink,
                EntryType::Link, EntryType::Fifo, EntryType::Char, EntryType::Block,
            ][kind as usize];
            let link = link.replace("OUTSIDE", &outside);
            let data: &[u8] = if kind == EntryType::Regular { b"hostile" } else { b"" };
            archive.push(kind, path, &link, mode, data, (1, 3));
        }
        let result = arena.unpack(archive);
        prop_assert_eq!(arena.outside(), before, "{:?}", result);
    }
}

/// A file of 3 MB with `parts` parts of data, of which the last ends at a hole.
fn holey(path: &Path, parts: u64) -> Vec<u8> {
    use std::os::unix::fs::FileExt;
    let file = File::create(path).unwrap();
    for part in 0..parts {
        file.write_all_at(&vec![part as u8 + 1; 5000], part * 100_000).unwrap();
    }
    file.set_len(3_000_000).unwrap();
    std::fs::read(path).unwrap()
}

#[test]
fn sparse_files_of_every_format_keep_their_holes_and_are_exported_byte_for_byte() {
    let from = tempfile::tempdir().unwrap();
    // A long name, more parts than one header has, and a file that is nothing but a hole.
    let name = format!("{}/many", "d".repeat(120));
    std::fs::create_dir(from.path().join("d".repeat(120))).unwrap();
    let many = holey(&from.path().join(&name), 29);
    let few = holey(&from.path().join("few"), 2);
    File::create(from.path().join("hole")).unwrap().set_len(2_000_000).unwrap();
    std::fs::write(from.path().join("after"), b"after").unwrap();
    for format in [
        &["--format=gnu"][..],
        &["--format=posix", "--sparse-version=0.0"],
        &["--format=posix", "--sparse-version=0.1"],
        &["--format=posix", "--sparse-version=1.0"],
    ] {
        let base = tempfile::tempdir().unwrap();
        let (layer, dir) = (base.path().join("layer.tar"), base.path().join("layer"));
        std::fs::create_dir(&dir).unwrap();
        let mut tar = std::process::Command::new("tar");
        tar.args(format).args(["--sparse", "-C"]).arg(from.path()).arg("-cf").arg(&layer);
        assert!(tar.args([name.as_str(), "few", "hole", "after"]).status().unwrap().success());
        assert!(layer.metadata().unwrap().len() < 400_000, "{format:?} is not sparse");
        let limits = UnpackLimits { max_bytes: 1 << 24, max_entries: 1000 };
        let unpacked = unpack_file(&layer, &dir, limits).unwrap();
        assert!(unpacked.bytes < 400_000, "{format:?}: {}", unpacked.bytes);
        for (file, content) in [(name.as_str(), &many), ("few", &few), ("hole", &vec![0; 2_000_000])] {
            let path = dir.join("diff").join(file);
            assert!(std::fs::read(&path).unwrap() == *content, "{format:?} {file}");
            let room = path.metadata().unwrap().blocks() * 512;
            assert!(room < 500_000, "{format:?} {file} takes {room}");
        }
        assert_eq!(std::fs::read(dir.join("diff/after")).unwrap(), b"after");
        let mut again = Vec::new();
        crate::archive::layer::write_tar(&dir, &mut again).unwrap();
        assert!(again == std::fs::read(&layer).unwrap(), "{format:?}");

        // The limit speaks of files with their holes.
        let (tight, dir) = (UnpackLimits { max_bytes: 7_000_000, ..limits }, base.path().join("tight"));
        std::fs::create_dir(&dir).unwrap();
        let refused = unpack_file(&layer, &dir, tight).unwrap_err().to_string();
        assert!(refused.contains("bytes of files with their holes"), "{refused}");
    }
}
