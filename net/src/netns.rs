//! Network namespaces as files: a bind mount of a namespace that a throw-away thread made.
//! In: a path. Out: the namespace as a descriptor, and threads that work inside it.
//! Owns the mounts under the configured directory. Never: setns or unshare on a thread that lives on
//! (a worker of the runtime would carry the namespace to unrelated work), and never a fork.

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A step of making or leaving a network namespace failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step} {path:?}")]
pub struct NetnsError {
    /// Such as "make the directory".
    pub step: &'static str,
    pub path: PathBuf,
    #[source]
    pub source: io::Error,
}

fn failed(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> NetnsError {
    let path = path.to_owned();
    move |source| NetnsError { step, path, source }
}

/// The network namespace of the calling thread; /proc/self would be that of the main thread.
const OWN_NETNS: &str = "/proc/thread-self/ns/net";

/// Opens the network namespace of the calling thread.
pub(crate) fn current() -> io::Result<File> {
    File::open(OWN_NETNS)
}

/// Runs `work` on a thread of its own and waits for it without holding up the runtime. The work is
/// done to its end even when the caller gives up waiting.
pub(crate) async fn on_own_thread<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let (send, receive) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        let _ = send.send(work());
    })?;
    receive.await.map_err(|_| io::Error::other("the thread ended without a result"))
}

/// Runs `work` inside a network namespace, on a thread that ends with it.
pub(crate) fn inside<T: Send>(netns: &File, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("lighter-netns".to_owned());
        let thread = thread.spawn_scoped(scope, || enter(netns).map(|()| work()))?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
    })
}

/// Moves the calling thread for good. For throw-away threads only.
pub(crate) fn enter(netns: &File) -> io::Result<()> {
    setns(netns.as_fd(), CloneFlags::CLONE_NEWNET).map_err(io::Error::from)
}

/// A network namespace without a name; it ends with its last descriptor.
pub(crate) fn anonymous() -> io::Result<File> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("lighter-netns".to_owned());
        let thread = thread.spawn_scoped(scope, || {
            unshare(CloneFlags::CLONE_NEWNET)?;
            current()
        })?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
    })
}

/// Moves the calling thread for good into the namespace at `path`, which is made if it is not there;
/// `prepare` then works inside it before it has its name. True when it was made now. A file that is no
/// mount (left by a crash between creation and mount) is used for the new one. For throw-away threads
/// only.
pub(crate) fn enter_or_create(path: &Path, prepare: impl FnOnce()) -> Result<(File, bool), NetnsError> {
    if is_mounted(path) {
        let file = File::open(path).map_err(failed("open the namespace", path))?;
        enter(&file).map_err(failed("enter the namespace", path))?;
        return Ok((file, false));
    }
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).map_err(failed("make the directory", dir))?;
    }
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o444);
    options.open(path).map_err(failed("make the file", path))?;
    let made = unshare(CloneFlags::CLONE_NEWNET).map_err(io::Error::from).and_then(|()| current());
    let netns = made.map_err(failed("make a namespace for", path))?;
    prepare();
    bind(&netns, path).map_err(failed("mount the namespace at", path))?;
    Ok((netns, true))
}

/// By the descriptor, not by the thread's own link: what is mounted is what `netns` is.
fn bind(netns: &File, path: &Path) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let source = format!("/proc/thread-self/fd/{}", netns.as_raw_fd());
    mount(Some(source.as_str()), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    Ok(())
}

/// True when a network namespace is mounted at `path` (statfs says nsfs).
pub(crate) fn is_mounted(path: &Path) -> bool {
    use nix::sys::statfs::{NSFS_MAGIC, statfs};
    statfs(path).is_ok_and(|stat| stat.filesystem_type() == NSFS_MAGIC)
}

/// Unmounts and deletes; what is gone already is a success. The namespace itself ends when the last
/// process and descriptor in it are gone, a moment later.
pub(crate) fn remove(path: &Path) -> Result<(), NetnsError> {
    // More than one mount can lie on a file after a crash; EINVAL says that none is left.
    loop {
        match umount2(path, MntFlags::MNT_DETACH) {
            Ok(()) => {}
            Err(Errno::EINVAL | Errno::ENOENT) => break,
            Err(errno) => return Err(failed("unmount", path)(errno.into())),
        }
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("delete", path)(error)),
        _ => Ok(()),
    }
}

/// The file names in the directory, mounted or not, sorted. A missing directory is empty.
pub(crate) fn list(dir: &Path) -> Result<Vec<String>, NetnsError> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(failed("list", dir))?,
    };
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.collect();
    names.sort();
    Ok(names)
}
