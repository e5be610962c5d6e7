//! Files into a container and out of it, without a program of the container's: the files are read and
//! written below /proc/PID/root of its main process, where the container's own mounts are seen.
//! In: a tar stream, or a path. Out: files, or a tar stream. Owns one thread for each copy.
//! Never: resolves a path of a container outside its root (openat2 with RESOLVE_IN_ROOT); takes a
//! process for the container's by its number alone.

use super::convert::{CopyIn, End, Fault, Input, Wanted, started, stdout};
use super::{CHUNK_BYTES, Gone, Pipe, monitor};
use crate::errors::chain;
use crate::reconcile::CoreInput;
use crate::task::TaskContext;
use lighter_archive::{ArchiveError, Base, Chunk, ChunkReader, ChunkWriter, Links, Rules, pack, unpack};
use lighter_model::ids::{ContainerName, TaskId};
use rustix::fs::{Mode, OFlags, openat};
use std::fs::File;
use std::io::{BufReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use tokio::sync::{mpsc, oneshot};

/// Chunks between the stream and the thread.
const CHUNKS: usize = 2;

/// Puts an archive's files into the container.
pub(super) async fn copy_in(
    context: &TaskContext,
    wanted: &Wanted,
    order: CopyIn,
    pipe: &mut Pipe,
) -> Result<Result<End, Fault>, Gone> {
    let root = match root(context, wanted).await {
        Ok(root) => root,
        Err(fault) => return Ok(Err(fault)),
    };
    let CopyIn { path, owner, into } = order;
    let base = blocking(move || Base::inside(root.as_fd(), path.as_bytes(), into)).await;
    let base = match base {
        Ok(base) => base,
        Err(error) => return Ok(Err(error)),
    };
    pipe.send(started(wanted, false)).await?;
    let (chunks, from) = mpsc::channel(CHUNKS);
    // A person who may write into the container may become anybody there.
    let rules = Rules { owner, keep_suid: true };
    let work = blocking(move || {
        let reader = BufReader::with_capacity(CHUNK_BYTES, ChunkReader::new(from));
        unpack(reader, &base, rules)
    });
    tokio::pin!(work);
    loop {
        tokio::select! {
            // It may be done, or have failed, before the stream has ended.
            done = &mut work => return Ok(done.map(|unpacked| End::Done(unpacked.entries))),
            input = pipe.input() => match input {
                Some(Input::Data(data)) => {
                    let sent = tokio::select! {
                        sent = chunks.send(Chunk::Data(data)) => sent,
                        () = pipe.out.closed() => return Err(Gone),
                    };
                    if sent.is_err() {
                        break;
                    }
                }
                Some(Input::DataEnd) => {
                    // The thread that does not take it has its result already.
                    let _ = chunks.send(Chunk::End).await;
                    break;
                }
                Some(Input::Resize(_) | Input::Signal(_) | Input::Unknown) => {}
                None => return Err(Gone),
            }
        }
    }
    Ok(work.await.map(|unpacked| End::Done(unpacked.entries)))
}

/// Sends a path of the container as an archive.
pub(super) async fn copy_out(
    context: &TaskContext,
    wanted: &Wanted,
    path: String,
    follow_link: bool,
    pipe: &mut Pipe,
) -> Result<Result<End, Fault>, Gone> {
    let root = match root(context, wanted).await {
        Ok(root) => root,
        Err(fault) => return Ok(Err(fault)),
    };
    let (to, mut chunks) = mpsc::channel(CHUNKS);
    let work = blocking(move || {
        let mut writer = ChunkWriter::new(to, CHUNK_BYTES);
        pack(root.as_fd(), path.as_bytes(), Links::InRoot, follow_link, &mut writer)
    });
    tokio::pin!(work);
    // What cannot be opened is a refusal and no archive: the first chunk comes after that.
    let mut begun = false;
    let mut result = None;
    loop {
        tokio::select! {
            biased;
            chunk = chunks.recv() => match chunk {
                Some(chunk) => {
                    if !begun {
                        pipe.send(started(wanted, false)).await?;
                        begun = true;
                    }
                    pipe.send(stdout(chunk)).await?;
                }
                None => break,
            },
            done = &mut work, if result.is_none() => result = Some(done),
        }
    }
    let done = match result {
        Some(done) => done,
        None => work.await,
    };
    Ok(done.map(|packed| End::Done(packed.entries)))
}

/// Does something that blocks in a thread of its own; dropped, the thread ends with its channel.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ArchiveError> + Send + 'static,
) -> Result<T, Fault> {
    let done = tokio::task::spawn_blocking(work).await;
    let done = done.map_err(|error| Fault::new("STREAM_FAILED", error.to_string()))?;
    done.map_err(|error| fault(&error))
}

fn fault(error: &ArchiveError) -> Fault {
    let reason = match error {
        ArchiveError::NotFound { .. } => "PATH_NOT_FOUND",
        ArchiveError::Refused { .. } | ArchiveError::Format(_) => "INVALID",
        ArchiveError::Io { .. } | ArchiveError::Stream(_) => "STREAM_FAILED",
    };
    Fault::new(reason, chain(error))
}

/// The root directory of the container's main process.
async fn root(context: &TaskContext, wanted: &Wanted) -> Result<OwnedFd, Fault> {
    monitor(context, wanted)?;
    let (Some(task), Some(container)) = (wanted.task.clone(), wanted.container.clone()) else {
        return Err(Fault::new("INVALID", "a task and a container have to be named"));
    };
    let not_running = || {
        let message = format!("container {container} does not run");
        Fault::new("CONTAINER_NOT_RUNNING", message)
    };
    let pid = pid(context, &task, &container).await.ok_or_else(not_running)?;
    // Archives carry ids of the container, which are others here.
    let ids = |of: &str| std::fs::read_to_string(format!("/proc/{of}/uid_map"));
    if ids(&pid.to_string()).map_err(|_| not_running())? != ids("self").unwrap_or_default() {
        let message =
            "files of a task with usernsMode auto cannot be copied yet; use a volume, or lighter exec";
        return Err(Fault::new("INVALID", message));
    }
    open_root(pid, &task, &container).map_err(|_| not_running())
}

async fn pid(context: &TaskContext, task: &TaskId, container: &ContainerName) -> Option<i32> {
    let (answer, tasks) = oneshot::channel();
    context.reconciler.send(CoreInput::LocalTasks { answer }).await.ok()?;
    let tasks = tasks.await.ok()?;
    let report = tasks.into_iter().find(|local| local.assignment.task == *task)?.report?;
    let found = report.containers.into_iter().find(|found| found.name == *container)?;
    found.pid.filter(|_| found.exit.is_none())
}

/// Opens a process's root. The descriptor of its directory in /proc stands for that process only,
/// so what its cgroup says is said of the process whose root is opened, whatever its number is by then.
fn open_root(pid: i32, task: &TaskId, container: &ContainerName) -> std::io::Result<OwnedFd> {
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let process = rustix::fs::open(format!("/proc/{pid}"), directory, Mode::empty())?;
    let cgroup = openat(&process, "cgroup", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut text = String::new();
    File::from(cgroup).read_to_string(&mut text)?;
    if !text.contains(&format!("/{task}/{container}")) {
        return Err(std::io::Error::from(std::io::ErrorKind::NotFound));
    }
    Ok(openat(&process, "root", directory, Mode::empty())?)
}
