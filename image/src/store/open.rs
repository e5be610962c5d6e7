//! Opening the store: layout, lock, sweep of leftovers, records into memory.
//! In: the root directory. Out: an index in which everything is whole.
//! Never: deletes what it does not understand; that is set aside in `damaged/` or beside the root.

use super::OpenError;
use super::durable;
use super::index::{Index, Layer, LayerRecord, image_name};
use super::layout::{DIRECTORIES, Layout, VERSION};
use crate::digest::Digest;
use crate::pull::PulledImage;
use crate::tree;
use rustix::fs::{FlockOperation, Mode, OFlags};
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

pub(super) struct Opened {
    pub(super) layout: Layout,
    pub(super) index: Index,
    pub(super) lock: OwnedFd,
}

const LOCK_TRIES: u32 = 50;
const LOCK_PAUSE: std::time::Duration = std::time::Duration::from_millis(20);

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.to_owned();
    move |source| OpenError::Io { action, path, source }
}

pub(super) fn open(root: &Path) -> Result<Opened, OpenError> {
    make_dir(root)?;
    let mut lock = take_lock(root)?;
    if !version_is_ours(root)? {
        // The lock goes with the directory that is set aside.
        set_root_aside(root)?;
        make_dir(root)?;
        lock = take_lock(root)?;
    }
    let layout = Layout::new(root);
    for name in DIRECTORIES {
        make_dir(&root.join(name))?;
    }
    write_version(&layout)?;
    for dir in [layout.tmp(), layout.trash()] {
        sweep(&dir).map_err(failed("sweeping", &dir))?;
    }
    let mut index = Index::default();
    load_layers(&layout, &mut index)?;
    load_images(&layout, &mut index)?;
    Ok(Opened { layout, index, lock })
}

fn make_dir(path: &Path) -> Result<(), OpenError> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed("making", path))
}

fn take_lock(root: &Path) -> Result<OwnedFd, OpenError> {
    let path = root.join("lock");
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd =
        rustix::fs::open(&path, flags, Mode::from(0o600)).map_err(|e| failed("opening", &path)(e.into()))?;
    // A process that was just killed, or a child of it between fork and exec, may hold it a moment longer.
    for _ in 0..LOCK_TRIES {
        match rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(fd),
            Err(rustix::io::Errno::WOULDBLOCK) => std::thread::sleep(LOCK_PAUSE),
            Err(e) => return Err(failed("locking", &path)(e.into())),
        }
    }
    Err(OpenError::InUse { path: root.to_owned() })
}

/// Whether the directory is empty or ours. A version we do not know may be a newer program's.
fn version_is_ours(root: &Path) -> Result<bool, OpenError> {
    let path = root.join("version");
    match fs::read(&path) {
        Ok(bytes) => Ok(bytes == VERSION.as_bytes()),
        // A crash between making the directory and writing the version leaves no layers.
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(!root.join("layers").exists()
            || fs::read_dir(root.join("layers")).is_ok_and(|mut d| d.next().is_none())),
        Err(e) => Err(failed("reading", &path)(e)),
    }
}

fn set_root_aside(root: &Path) -> Result<(), OpenError> {
    for number in 1u32.. {
        let mut name = root.as_os_str().to_owned();
        name.push(format!(".damaged-{number}"));
        let aside = PathBuf::from(name);
        if aside.exists() {
            continue;
        }
        tracing::warn!(root = %root.display(), aside = %aside.display(),
            "the image store is damaged or of another version; it is set aside and images are pulled again");
        fs::rename(root, &aside).map_err(failed("setting aside", root))?;
        return Ok(());
    }
    Ok(())
}

fn write_version(layout: &Layout) -> Result<(), OpenError> {
    if layout.root().join("version").exists() {
        return Ok(());
    }
    durable::write_file(&layout.tmp(), &layout.unique(), layout.root(), "version", VERSION.as_bytes())
        .map_err(failed("writing the version of", layout.root()))
}

fn sweep(dir: &Path) -> io::Result<()> {
    let fd = rustix::fs::open(dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    tree::empty_trash(fd.as_fd())
}

/// Names in a directory; an entry that cannot be read is an error, never skipped.
fn names(dir: &Path) -> Result<Vec<String>, OpenError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed("listing", dir))? {
        let entry = entry.map_err(failed("listing", dir))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

fn set_aside(layout: &Layout, path: &Path, why: &str) -> Result<(), OpenError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    for number in 0u32.. {
        let aside = layout.damaged().join(format!("{name}.{number}"));
        if aside.exists() {
            continue;
        }
        tracing::warn!(path = %path.display(), why, "a damaged record of the image store is set aside");
        return fs::rename(path, &aside).map_err(failed("setting aside", path));
    }
    Ok(())
}

fn load_layers(layout: &Layout, index: &mut Index) -> Result<(), OpenError> {
    // The links are only names for mount(2): making them anew is simpler than proving them right.
    sweep(&layout.links()).map_err(failed("sweeping", &layout.links()))?;
    for name in names(&layout.layers())? {
        let path = layout.layers().join(&name);
        let record: Option<LayerRecord> =
            fs::read(path.join("layer.json")).ok().and_then(|b| serde_json::from_slice(&b).ok());
        match record {
            Some(record) if record.key.hex() == name && path.join("diff").is_dir() => {
                let link = index.new_link();
                let target = format!("../layers/{name}/diff");
                let link_path = layout.links().join(&link);
                std::os::unix::fs::symlink(&target, &link_path).map_err(failed("linking", &link_path))?;
                index.insert_layer(Layer { record, link });
            }
            _ => set_aside(layout, &path, "not a whole layer")?,
        }
    }
    Ok(())
}

fn load_images(layout: &Layout, index: &mut Index) -> Result<(), OpenError> {
    for name in names(&layout.images())? {
        let path = layout.images().join(&name);
        let record: Option<PulledImage> = fs::read(&path).ok().and_then(|b| serde_json::from_slice(&b).ok());
        let Some(image) = record else {
            set_aside(layout, &path, "not a record of an image")?;
            continue;
        };
        let named = format!("{}.json", image_name(&image.reference, &image.platform)) == name;
        let blobs = [&image.manifest_digest, &image.config_digest];
        if !named || !blobs.into_iter().all(|digest| blob_is_whole(layout, digest)) {
            set_aside(layout, &path, "its manifest or config is not whole")?;
        } else {
            // An image whose layers are gone stays invisible and is pulled again.
            index.used(name.trim_end_matches(".json"), last_used_unix_ms(&path));
            index.insert_image(image);
        }
    }
    Ok(())
}

/// The record's time: `hold` sets it at each use.
fn last_used_unix_ms(path: &Path) -> u64 {
    let modified = fs::metadata(path).and_then(|meta| meta.modified()).ok();
    modified.and_then(|at| at.duration_since(UNIX_EPOCH).ok()).map_or(0, |since| since.as_millis() as u64)
}

fn blob_is_whole(layout: &Layout, digest: &Digest) -> bool {
    fs::read(layout.blob(digest)).is_ok_and(|bytes| Digest::of(&bytes) == *digest)
}
