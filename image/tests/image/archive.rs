//! Images as files, against skopeo and umoci: what is saved is what was pulled, whoever reads it.
//! In: layers with whiteouts, hard links, attributes, devices, long names. Out: archives, and trees of
//! what others and we make of them. Needs skopeo and umoci.

use crate::fixture::{
    Fixture, Image, Layer, assert_nothing_half_made, chain, large_layer, layer_dir, options, pull,
};
use crate::peers::run;
use crate::registry::FakeRegistry;
use lighter_image::{ArchiveError, Digest, ImageStore, PulledImage};
use serde_json::Value;
use std::io::Write;
use std::path::Path;
use std::process::Command;

/// A PAX record with an attribute whose value has a newline and a zero.
fn with_attribute(layer: Layer, path: &str) -> Layer {
    let record = |key: &str, value: &[u8]| {
        let rest = key.len() + value.len() + 3;
        let length = (rest + 1..).find(|n| *n == rest + n.to_string().len()).unwrap();
        [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
    };
    let pax = record("SCHILY.xattr.user.note", b"a\nb\0c");
    layer.entry(tar::EntryType::XHeader, "pax", 0o644, 0, &pax).file(path, b"attributed")
}

fn strange() -> Image {
    let long = format!("deep/{}/{}", "d".repeat(120), "f".repeat(200));
    let base = Layer::new()
        .dir("etc", 0o750, 7)
        .file("etc/gone", b"g")
        .file("etc/kept", b"k")
        .dir("opaque", 0o755, 0)
        .file("opaque/old", b"o")
        .file(&long, b"long")
        .entry(tar::EntryType::Regular, "su", 0o4755, 0, b"program")
        .link(tar::EntryType::Link, "su-too", "su")
        .link(tar::EntryType::Symlink, "lib", "usr/lib")
        .file("lib/through-the-link", b"l")
        .entry(tar::EntryType::Fifo, "fifo", 0o620, 3, b"")
        .entry(tar::EntryType::Char, "null", 0o666, 0, b"");
    let base = with_attribute(base, "etc/attributed");
    let top = Layer::new()
        .file("etc/.wh.gone", b"")
        .file("opaque/.wh..wh..opq", b"")
        .file("opaque/new", b"n")
        .file("etc/app", b"a");
    Image::of(vec![base.tar(), large_layer(2, 7), top.tar()])
}

fn save(store: &ImageStore, reference: &str, path: &Path) {
    let mut file = std::fs::File::create(path).unwrap();
    store.save(&reference.parse().unwrap(), &options().platform, &mut file).unwrap();
}

async fn load(store: &ImageStore, path: &Path, name: Option<&str>) -> Result<Vec<PulledImage>, ArchiveError> {
    let mut spool = store.spool().unwrap();
    spool.write_all(&std::fs::read(path).unwrap()).unwrap();
    let name = name.map(|name| name.parse().unwrap());
    store.load(spool, name.as_ref(), &options().platform).await
}

/// Everything below a directory as `find` and `getfattr`-like calls see it.
fn tree(top: &Path) -> String {
    // Implied directories and whiteouts have the time of their making.
    let (dirs, others) = ("%P %y %m %U:%G\\n", "%P %y %m %U:%G %n %T@ %l\\n");
    let found = Command::new("find")
        .arg(top)
        .args(["(", "-type", "d,c", "-printf", dirs, ")", "-o", "-printf", others])
        .output()
        .unwrap();
    assert!(found.status.success());
    let mut lines: Vec<String> =
        String::from_utf8(found.stdout).unwrap().lines().map(str::to_owned).collect();
    lines.sort();
    let sums = Command::new("sh")
        .current_dir(top)
        .args(["-c", "find . -type f -print0 | sort -z | xargs -0 sha256sum"])
        .output()
        .unwrap();
    let mut note = [0; 16];
    let length = rustix::fs::lgetxattr(top.join("etc/attributed"), "user.note", &mut note).unwrap_or(0);
    format!("{}\n{}\n{:?}", lines.join("\n"), String::from_utf8(sums.stdout).unwrap(), &note[..length])
}

#[tokio::test]
async fn what_is_saved_is_loaded_as_it_was_and_others_take_it() {
    let registry = FakeRegistry::start().await;
    let (here, there) = (Fixture::new(&[&registry]), Fixture::new(&[&registry]));
    let (store, other) = (here.open(), there.open());
    let served = strange().serve();
    let reference = registry.put("1", &served);
    let image = pull(&store, &reference).await.unwrap();
    let file = here.dir.path().join("image.tar");
    save(&store, &reference, &file);
    let again = here.dir.path().join("again.tar");
    save(&store, &reference, &again);
    assert!(
        std::fs::read(&file).unwrap() == std::fs::read(&again).unwrap(),
        "the same image, the same bytes"
    );

    let loaded = load(&other, &file, None).await.unwrap();
    assert_eq!((loaded.len(), &loaded[0].reference), (1, &image.reference));
    assert_eq!(
        (&loaded[0].layers, &loaded[0].config, &loaded[0].config_digest),
        (&image.layers, &image.config, &image.config_digest)
    );
    for index in 0..3 {
        let (ours, theirs) =
            (layer_dir(&here.root(), &image, index), layer_dir(&there.root(), &loaded[0], index));
        assert_eq!(tree(&ours), tree(&theirs), "layer {index}");
    }
    // Loaded where it is already, nothing is unpacked again; saved from there, it is the same file.
    assert_eq!(load(&store, &file, None).await.unwrap()[0].layers, image.layers);
    let third = here.dir.path().join("third.tar");
    save(&other, &reference, &third);
    assert!(std::fs::read(&file).unwrap() == std::fs::read(&third).unwrap());
    assert_nothing_half_made(&there.root());

    // skopeo verifies every digest on the way; the layers are the very bytes that were pushed.
    let inspected = Command::new("skopeo")
        .args(["inspect", "--raw"])
        .arg(format!("oci-archive:{}", file.display()))
        .output()
        .unwrap();
    assert!(inspected.status.success(), "{}", String::from_utf8_lossy(&inspected.stderr));
    let manifest: Value = serde_json::from_slice(&inspected.stdout).unwrap();
    assert_eq!(Digest::of(&inspected.stdout), loaded[0].manifest_digest);
    for (layer, (tar, _)) in manifest["layers"].as_array().unwrap().iter().zip(&strange().layers) {
        assert_eq!(layer["digest"], Digest::of(tar).to_string());
        assert_eq!(layer["size"], tar.len());
    }
    let layout = here.dir.path().join("layout");
    run(Command::new("skopeo")
        .args(["--insecure-policy", "copy"])
        .arg(format!("oci-archive:{}", file.display()))
        .arg(format!("oci:{}:latest", layout.display())));
    let bundle = here.dir.path().join("bundle");
    run(Command::new("umoci")
        .args(["raw", "unpack", "--image"])
        .arg(format!("{}:latest", layout.display()))
        .arg(&bundle));
    assert!(
        bundle.join("opaque/new").is_file()
            && !bundle.join("opaque/old").exists()
            && !bundle.join("etc/gone").exists()
    );
}

#[tokio::test]
async fn archives_of_docker_and_of_others_are_loaded() {
    let registry = FakeRegistry::start().await;
    let (here, there) = (Fixture::new(&[&registry]), Fixture::new(&[&registry]));
    let (store, other) = (here.open(), there.open());
    let reference = registry.put("1", &strange().serve());
    let image = pull(&store, &reference).await.unwrap();
    let path = |name: &str| here.dir.path().join(name);
    let file = path("image.tar");
    save(&store, &reference, &file);
    let copy = |to: String| {
        run(Command::new("skopeo")
            .args(["--insecure-policy", "copy"])
            .arg(format!("oci-archive:{}", file.display()))
            .arg(to));
    };
    copy(format!("docker-archive:{}:example.test/a/b:7", path("docker.tar").display()));
    let loaded = load(&other, &path("docker.tar"), None).await.unwrap();
    assert_eq!((loaded[0].reference.as_str(), &loaded[0].layers), ("example.test/a/b:7", &image.layers));
    // Compressed layers, and a tag in place of a name.
    copy(format!("oci-archive:{}:latest", path("tag.tar").display()));
    let error = load(&other, &path("tag.tar"), None).await.unwrap_err();
    assert!(chain(&error).contains("name it with --name"), "{}", chain(&error));
    let loaded = load(&other, &path("tag.tar"), Some("example.test/c")).await.unwrap();
    assert_eq!((loaded[0].reference.as_str(), &loaded[0].layers), ("example.test/c:latest", &image.layers));
    assert_nothing_half_made(&there.root());
}

#[tokio::test]
async fn archives_that_cannot_be_used_are_refused_in_words() {
    let fixture = Fixture::new(&[]);
    let store = fixture.open();
    let tar = |entries: &[(&str, &str)]| {
        let mut layer = Layer::new();
        for (path, text) in entries {
            layer = layer.file(path, text.as_bytes());
        }
        layer.tar()
    };
    let digest = format!("sha256:{}", "0".repeat(64));
    let index = format!(r#"{{"manifests":[{{"digest":"{digest}","size":2}}]}}"#);
    let blob = format!("blobs/sha256/{}", "0".repeat(64));
    let link = Layer::new().file("manifest.json", br#"[{"Config":"c","Layers":[]}]"#).link(
        tar::EntryType::Symlink,
        "c",
        "/etc/passwd",
    );
    for (archive, expected) in [
        (crate::fixture::gzip(&tar(&[("x", "y")])), "is compressed"),
        (tar(&[("x", "y")]), "neither index.json (OCI) nor manifest.json"),
        (tar(&[("index.json", "[")]), "not valid JSON"),
        (tar(&[("index.json", &index)]), "has no blobs/sha256/000"),
        (tar(&[("index.json", &index), (&blob, "{}")]), "has another digest"),
        (link.tar(), "has a link in place of c"),
        (b"no archive at all, but long enough to be looked at as one. ".repeat(20), "not a tar file"),
    ] {
        let file = fixture.dir.path().join("bad.tar");
        std::fs::write(&file, archive).unwrap();
        let error = load(&store, &file, None).await.unwrap_err();
        assert!(chain(&error).contains(expected), "{expected}: {}", chain(&error));
    }
    assert_nothing_half_made(&fixture.root());
    assert!(store.images().is_empty());
}

#[tokio::test]
async fn a_layer_that_is_not_what_it_was_is_not_given_out() {
    let registry = FakeRegistry::start().await;
    let fixture = Fixture::new(&[&registry]);
    let store = fixture.open();
    let reference = registry.put("1", &strange().serve());
    let image = pull(&store, &reference).await.unwrap();
    let save = || store.save(&reference.parse().unwrap(), &options().platform, &mut std::io::sink());
    std::fs::write(layer_dir(&fixture.root(), &image, 2).join("etc/app"), "b").unwrap();
    assert!(matches!(save().unwrap_err(), ArchiveError::Changed { .. }));
    std::fs::remove_file(layer_dir(&fixture.root(), &image, 1).join("../split.zst")).unwrap();
    assert!(matches!(save().unwrap_err(), ArchiveError::NoRecord { .. }));
    assert!(matches!(
        store.save(&"nobody/knows".parse().unwrap(), &options().platform, &mut std::io::sink()).unwrap_err(),
        ArchiveError::NotHere { .. }
    ));
}
