//! Files into a container and out of it, without a program of the container's: the files are read and
//! written below /proc/PID/root of its main process, where the container's own mounts are seen.
//! In: a tar stream, or a path. Out: files, or a tar stream. Owns one thread for each copy, which in a
//! user namespace is the container's root for files (`lighter_archive::Ids`) and ends with the copy.
//! Never: resolves a path of a container outside its root (openat2 with RESOLVE_IN_ROOT); takes a
//! process for the container's by its number alone.

use super::convert::{CopyIn, End, Fault, Input, Wanted, started, stdout};
use super::{CHUNK_BYTES, Gone, Pipe, monitor};
use crate::errors::chain;
use crate::reconcile::CoreInput;
use crate::task::TaskContext;
use lighter_archive::{ArchiveError, Base, Chunk, ChunkReader, ChunkWriter, Ids, Links, Rules, pack, unpack};
use lighter_model::ids::{ContainerName, TaskId};
use rustix::fs::{Mode, OFlags, openat};
use std::fs::File;
use std::io::BufReader;
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
    let (root, ids) = match root(context, wanted).await {
        Ok(root) => root,
        Err(fault) => return Ok(Err(fault)),
    };
    let CopyIn { path, owner, into } = order;
    let base = blocking(ids, move || Base::inside(root.as_fd(), path.as_bytes(), into)).await;
    let base = match base {
        Ok(base) => base,
        Err(error) => return Ok(Err(error)),
    };
    pipe.send(started(wanted, false)).await?;
    let (chunks, from) = mpsc::channel(CHUNKS);
    // A person who may write into the container may become anybody there.
    let rules = Rules { owner, keep_suid: true, ids };
    let work = blocking(ids, move || {
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
    let (root, ids) = match root(context, wanted).await {
        Ok(root) => root,
        Err(fault) => return Ok(Err(fault)),
    };
    let (to, mut chunks) = mpsc::channel(CHUNKS);
    let work = blocking(ids, move || {
        let mut writer = ChunkWriter::new(to, CHUNK_BYTES);
        pack(root.as_fd(), path.as_bytes(), Links::InRoot, follow_link, ids, &mut writer)
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
/// The thread runs from this call on: a thread begun at the first poll would leave whoever fills its
/// channel before that poll waiting for ever.
fn blocking<T: Send + 'static>(
    ids: Ids,
    work: impl FnOnce() -> Result<T, ArchiveError> + Send + 'static,
) -> impl Future<Output = Result<T, Fault>> {
    let (tell, done) = oneshot::channel();
    // Not one of a pool: whoever it has become, it stays.
    let thread = std::thread::Builder::new().name("lighter-copy".to_owned()).spawn(move || {
        // The one that waited may be gone.
        let _ = tell.send(ids.become_root().and_then(|()| work()));
    });
    async move {
        thread.map_err(|error| Fault::new("STREAM_FAILED", format!("no thread for the copy: {error}")))?;
        let failed = |_| Fault::new("STREAM_FAILED", "the copy's thread failed".to_owned());
        done.await.map_err(failed)?.map_err(|error| fault(&error))
    }
}

fn fault(error: &ArchiveError) -> Fault {
    let reason = match error {
        ArchiveError::NotFound { .. } => "PATH_NOT_FOUND",
        ArchiveError::Refused { .. } | ArchiveError::Format(_) => "INVALID",
        ArchiveError::Io { .. } | ArchiveError::Stream(_) => "STREAM_FAILED",
    };
    Fault::new(reason, chain(error))
}

/// The root directory of the container's main process, and its ids.
async fn root(context: &TaskContext, wanted: &Wanted) -> Result<(OwnedFd, Ids), Fault> {
    monitor(context, wanted)?;
    let (Some(task), Some(container)) = (wanted.task.clone(), wanted.container.clone()) else {
        return Err(Fault::new("INVALID", "a task and a container have to be named"));
    };
    let not_running = || {
        let message = format!("container {container} does not run");
        Fault::new("CONTAINER_NOT_RUNNING", message)
    };
    let pid = pid(context, &task, &container).await.ok_or_else(not_running)?;
    let (root, ids) = open_root(pid, &task, &container).map_err(|_| not_running())?;
    let own = || {
        let message = format!("container {container} has made a user namespace of its own; use lighter exec");
        Fault::new("INVALID", message)
    };
    Ok((root, ids.ok_or_else(own)?))
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
/// `None` for ids that cannot be translated.
fn open_root(pid: i32, task: &TaskId, container: &ContainerName) -> std::io::Result<(OwnedFd, Option<Ids>)> {
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let process = rustix::fs::open(format!("/proc/{pid}"), directory, Mode::empty())?;
    let read = |name: &str| {
        let file = openat(&process, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        std::io::read_to_string(File::from(file))
    };
    if !read("cgroup")?.contains(&format!("/{task}/{container}")) {
        return Err(std::io::Error::from(std::io::ErrorKind::NotFound));
    }
    let ids = Ids::parse(&read("uid_map")?, &read("gid_map")?);
    Ok((openat(&process, "root", directory, Mode::empty())?, ids))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// As in `copy_in`: more chunks than the channel holds may be sent before the result is looked at.
    #[test]
    fn the_thread_takes_chunks_before_its_result_is_waited_for() {
        let (chunks, mut from) = mpsc::channel(CHUNKS);
        let take = move || Ok(std::iter::from_fn(|| from.blocking_recv()).count());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let taken = runtime.block_on(async {
            let work = blocking(Ids::HOST, take);
            for number in 0..3 * CHUNKS {
                let sent = tokio::time::timeout(Duration::from_secs(20), chunks.send(number));
                sent.await.unwrap().unwrap();
            }
            drop(chunks);
            work.await
        });
        assert_eq!(taken.ok(), Some(3 * CHUNKS));
    }
}
