//! An agent of this release with a shim of version 1, whose words are in the golden frames.

use super::*;
use crate::cgroup::CgroupRoot;
use crate::connection;
use lighter_model::ids::TaskId;
use lighter_shim_wire::message::HelloReply;
use lighter_shim_wire::{FrameBuffer, HelloRange, ShimMessage, ShimStatus, encode_frame};
use std::path::Path;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;

/// Greets as version 1 does and notes the tag of every other request.
async fn version_1_shim(directory: &Path, seen: tokio::sync::mpsc::UnboundedSender<u8>) {
    let listener = UnixListener::bind(directory.join("shim.sock")).unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut incoming = FrameBuffer::default();
        let mut chunk = [0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut chunk).await {
            incoming.push(&chunk[..count]);
            while let Ok(Some((id, request))) = incoming.next_frame::<Request>() {
                let status = ShimStatus {
                    task: "t".into(),
                    shim_pid: 1,
                    shim_start_time_ticks: 1,
                    containers: Vec::new(),
                    ports: Vec::new(),
                };
                let reply = match request {
                    Request::Hello(_) => {
                        Reply::Hello(HelloReply { range: HelloRange { min: 1, max: 1 }, status })
                    }
                    other => {
                        seen.send(lighter_shim_wire::Wire::to_bytes(&other)[0]).unwrap();
                        Reply::Done
                    }
                };
                stream.write_all(&encode_frame(id, &ShimMessage::Reply(reply))).await.unwrap();
            }
        }
    });
}

#[tokio::test]
async fn a_shim_of_version_1_is_spoken_to_and_asked_nothing_it_does_not_know() {
    let directory = tempfile::tempdir().unwrap();
    let (note, mut seen) = tokio::sync::mpsc::unbounded_channel();
    version_1_shim(directory.path(), note).await;
    let connection = connection::connect(directory.path()).await.unwrap();
    let task = TaskId::from_parts(1, 1);
    let cgroup = CgroupRoot::detect("lighter-none");
    let handle = ShimHandle::new(task, directory.path().to_owned(), cgroup, connection);
    let container: ContainerName = "c".parse().unwrap();
    handle.kill(&container).await.unwrap();
    let old = "this task's shim is of an older release; exec works after the task is restarted";
    let argv = ["true".to_owned()];
    let probe = handle.probe(&container, &argv, Duration::from_secs(1)).await;
    assert_eq!(probe.unwrap_err().to_string(), old);
    let order = ExecOrder { argv: argv.to_vec(), ..ExecOrder::default() };
    assert_eq!(handle.exec(&container, &order, None, true).await.err().unwrap().to_string(), old);
    assert_eq!(handle.attach(&container).await.err().unwrap().to_string(), old);
    drop(handle);
    // Kill is request 6 of version 1; nothing else has come.
    assert_eq!(seen.recv().await, Some(6));
    assert_eq!(seen.recv().await, None);
}
