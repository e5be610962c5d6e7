//! `lighter cp`: files between this machine and a container, or a tar archive through `-`.
//! In: two places, one of them in a container. Out: files. Owns one thread that reads or writes files.
//! Never: writes outside the destination, whatever the container sends.

use crate::args::{CpArgs, Global};
use crate::client::Client;
use crate::failure::Failure;
use crate::stream::{CHUNK_BYTES, MESSAGES, frame};
use crate::{names, output};
use lighter_archive::{ArchiveError, Base, Chunk, ChunkReader, ChunkWriter, Ids, Links, Rules, pack, unpack};
use lighter_proto::v1;
use lighter_proto::v1::copy_request::Message;
use lighter_proto::v1::copy_start::Order;
use lighter_proto::v1::stream_ended::Result as Ended;
use lighter_proto::v1::stream_input::Input;
use lighter_proto::v1::stream_output::Output;
use std::io::{BufReader, Write};
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

/// Chunks between the stream and the thread that has the files.
const CHUNKS: usize = 2;

/// One of the two places.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Here(String),
    /// A tar archive on standard input or output.
    Archive,
    There {
        task: String,
        container: String,
        path: String,
    },
}

/// `TASK[/CONTAINER]:PATH`, `-`, or a path of this machine. A path with a colon begins with `/` or
/// `./`.
fn place(text: &str) -> Result<Place, String> {
    if text == "-" {
        return Ok(Place::Archive);
    }
    let here = text.starts_with(['/', '.']);
    let Some((name, path)) = text.split_once(':').filter(|_| !here) else {
        return Ok(Place::Here(text.to_owned()));
    };
    let (task, container) = name.split_once('/').unwrap_or((name, ""));
    if task.is_empty() || path.is_empty() {
        return Err(format!("{text:?} is neither a path nor like TASK:PATH"));
    }
    Ok(Place::There { task: task.to_owned(), container: container.to_owned(), path: path.to_owned() })
}

fn refused(message: impl Into<String>, next: &str) -> Failure {
    Failure::Refused { message: message.into(), next: next.to_owned() }
}

pub async fn run(global: &Global, client: &mut Client, args: CpArgs) -> Result<(), Failure> {
    const USAGE: &str = "lighter cp FILE TASK:PATH, or lighter cp TASK:PATH FILE";
    let read = |text: &str| place(text).map_err(|message| refused(message, USAGE));
    let cluster = super::cluster(args.cluster.clone());
    let copied = match (read(&args.from)?, read(&args.to)?) {
        (Place::There { .. }, Place::There { .. }) => {
            return Err(refused("one of the two places has to be on this machine", "copy it here first"));
        }
        (Place::There { task, container, path }, to) => {
            let task = names::task(client, &cluster, &task).await?.task_id;
            let target = v1::StreamTarget { cluster, task, container };
            let order = v1::CopyOutOrder { path, follow_link: args.follow_link };
            download(client, target, order, to, &args).await?
        }
        (from, Place::There { task, container, path }) => {
            let task = names::task(client, &cluster, &task).await?.task_id;
            let target = v1::StreamTarget { cluster, task, container };
            upload(client, target, path, from, &args).await?
        }
        _ => return Err(refused("neither place is in a container", USAGE)),
    };
    if !global.quiet {
        output::note(&format!("{copied} copied"));
    }
    Ok(())
}

const WHAT: &str = "copy";

async fn begin(
    client: &mut Client,
    target: v1::StreamTarget,
    order: Order,
) -> Result<(mpsc::Sender<v1::CopyRequest>, Streaming<v1::StreamOutput>), Failure> {
    let (to, messages) = mpsc::channel(MESSAGES);
    let start = v1::CopyStart { target: Some(target), order: Some(order) };
    let first = v1::CopyRequest { message: Some(Message::Start(start)) };
    to.send(first).await.map_err(|_| Failure::OutputClosed)?;
    let call = client.copy(ReceiverStream::new(messages)).await;
    Ok((to, call.map_err(Failure::rpc(WHAT))?.into_inner()))
}

/// Waits for a thread's work.
async fn joined<T>(work: tokio::task::JoinHandle<Result<T, ArchiveError>>) -> Result<T, Failure> {
    let done = work.await.map_err(|error| refused(error.to_string(), "report this"))?;
    done.map_err(|error| Failure::Files { what: WHAT, source: Box::new(error) })
}

fn data(bytes: Vec<u8>) -> v1::CopyRequest {
    v1::CopyRequest { message: Some(Message::Input(frame(Input::Data(bytes)))) }
}

async fn upload(
    client: &mut Client,
    target: v1::StreamTarget,
    path: String,
    from: Place,
    args: &CpArgs,
) -> Result<u64, Failure> {
    let contents = matches!(&from, Place::Here(path) if path == "." || path.ends_with("/."));
    let order = v1::CopyInOrder {
        path,
        keep_owner: args.archive,
        owner_uid: 0,
        owner_gid: 0,
        into: from == Place::Archive || contents,
    };
    // A source that is not there is refused before the container is asked.
    if let Place::Here(path) = &from {
        std::fs::symlink_metadata(path).map_err(|source| Failure::io(format!("read {path}"), source))?;
    }
    let (to, mut answers) = begin(client, target, Order::CopyIn(order)).await?;
    let follow = args.follow_link;
    let sending = tokio::spawn(async move {
        match from {
            Place::Here(path) => send_files(path, follow, &to).await?,
            _ => send_stdin(&to).await?,
        }
        let end = v1::CopyRequest { message: Some(Message::Input(frame(Input::DataEnd(v1::DataEnd {})))) };
        // Whoever does not take it any more has said why.
        let _ = to.send(end).await;
        Ok::<_, Failure>(())
    });
    let ended = loop {
        let answer = answers.message().await.map_err(Failure::rpc(WHAT));
        match answer.map(|answer| answer.and_then(|answer| answer.output)) {
            Ok(Some(Output::Ended(ended))) => break ended,
            Ok(Some(_)) => {}
            Ok(None) => return Err(cut_off()),
            // With the call the sender's channel closes, and it ends.
            Err(failure) => return Err(failure),
        }
    };
    let count = result(ended)?;
    // The other side may have had enough: what this side could not read is told all the same.
    sending.await.map_err(|error| refused(error.to_string(), "report this"))??;
    Ok(count)
}

async fn send_files(path: String, follow: bool, to: &mpsc::Sender<v1::CopyRequest>) -> Result<(), Failure> {
    let (chunks, mut packed) = mpsc::channel(CHUNKS);
    let work = tokio::task::spawn_blocking(move || {
        let mut writer = ChunkWriter::new(chunks, CHUNK_BYTES);
        pack(rustix::fs::CWD, path.as_bytes(), Links::Trusted, follow, Ids::HOST, &mut writer)
    });
    while let Some(chunk) = packed.recv().await {
        if to.send(data(chunk)).await.is_err() {
            return Ok(());
        }
    }
    joined(work).await.map(|packed| {
        if packed.left_out > 0 {
            output::note(&format!("{} sockets and devices left out", packed.left_out));
        }
    })
}

async fn send_stdin(to: &mpsc::Sender<v1::CopyRequest>) -> Result<(), Failure> {
    let mut stdin = tokio::io::stdin();
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let count = stdin.read(&mut chunk).await;
        let count = count.map_err(|source| Failure::io("read standard input", source))?;
        if count == 0 || to.send(data(chunk[..count].to_vec())).await.is_err() {
            return Ok(());
        }
    }
}

fn cut_off() -> Failure {
    Failure::Unavailable {
        message: "cannot copy: the stream ended without a result".to_owned(),
        next: "lighter node ls; then copy again".to_owned(),
    }
}

fn result(ended: v1::StreamEnded) -> Result<u64, Failure> {
    match ended.result {
        Some(Ended::Done(done)) => Ok(done.entries),
        _ => Err(cut_off()),
    }
}

async fn download(
    client: &mut Client,
    target: v1::StreamTarget,
    order: v1::CopyOutOrder,
    to: Place,
    args: &CpArgs,
) -> Result<u64, Failure> {
    let contents = order.path.ends_with("/.");
    // Held until the end: a call without a way in would count as left.
    let (_to, mut answers) = begin(client, target, Order::CopyOut(order)).await?;
    let mut sink = match to {
        Place::Here(path) => Sink::files(path, contents, args.archive)?,
        _ => Sink::Stdout,
    };
    loop {
        let answer = answers.message().await.map_err(Failure::rpc(WHAT))?;
        match answer.and_then(|answer| answer.output) {
            Some(Output::Stdout(data)) => {
                if !sink.take(data).await? {
                    break;
                }
            }
            Some(Output::Ended(ended)) => {
                let count = result(ended)?;
                return sink.finish().await.map(|()| count);
            }
            Some(_) => {}
            None => return Err(cut_off()),
        }
    }
    // The files' side has ended before the stream: it says why.
    sink.finish().await.and_then(|()| Err(cut_off()))
}

/// Where a download goes.
enum Sink {
    Stdout,
    Files {
        chunks: mpsc::Sender<Chunk>,
        work: tokio::task::JoinHandle<Result<lighter_archive::Unpacked, ArchiveError>>,
    },
}

impl Sink {
    fn files(path: String, into: bool, archive: bool) -> Result<Self, Failure> {
        let files = |error| Failure::Files { what: WHAT, source: Box::new(error) };
        let base = Base::own(path.as_bytes(), into).map_err(files)?;
        let me = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let rules = Rules { owner: (!archive).then_some(me), keep_suid: archive, ids: Ids::HOST };
        let (chunks, from) = mpsc::channel(CHUNKS);
        let work = tokio::task::spawn_blocking(move || {
            unpack(BufReader::with_capacity(CHUNK_BYTES, ChunkReader::new(from)), &base, rules)
        });
        Ok(Self::Files { chunks, work })
    }

    /// Whether more is wanted.
    async fn take(&mut self, data: Vec<u8>) -> Result<bool, Failure> {
        match self {
            Self::Stdout => {
                let mut out = std::io::stdout().lock();
                let written = out.write_all(&data).and_then(|()| out.flush());
                written.map(|()| true).map_err(|source| Failure::io("write the archive", source))
            }
            Self::Files { chunks, .. } => Ok(chunks.send(Chunk::Data(data)).await.is_ok()),
        }
    }

    async fn finish(self) -> Result<(), Failure> {
        let Self::Files { chunks, work } = self else { return Ok(()) };
        // Nothing more is wanted by a thread that is done.
        let _ = chunks.send(Chunk::End).await;
        joined(work).await.map(|unpacked| {
            if unpacked.left_out > 0 {
                output::note(&format!("{} devices left out", unpacked.left_out));
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_told_apart() {
        let there = |task: &str, container: &str, path: &str| Place::There {
            task: task.into(),
            container: container.into(),
            path: path.into(),
        };
        assert_eq!(place("web:/etc/hosts"), Ok(there("web", "", "/etc/hosts")));
        assert_eq!(place("web/app:a:b"), Ok(there("web", "app", "a:b")));
        assert_eq!(place("-"), Ok(Place::Archive));
        for text in ["a", "./a:b", "/a:b", "../x"] {
            assert_eq!(place(text), Ok(Place::Here(text.into())), "{text}");
        }
        assert!(place(":x").is_err() && place("web:").is_err());
    }
}
