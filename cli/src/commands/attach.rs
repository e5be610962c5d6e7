//! `lighter attach`: the live output of a container's own program, and its input when it has one.
//! In: a task. Out: output until the container ends or the person leaves. Never: ends the container.

use crate::args::{AttachArgs, Global};
use crate::client::Client;
use crate::failure::Failure;
use crate::stream::{self, End, MESSAGES, Person};
use crate::{names, output};
use lighter_proto::v1;
use lighter_proto::v1::attach_request::Message;
use lighter_proto::v1::stream_output::Output;
use std::process::ExitCode;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

pub async fn run(global: &Global, client: &mut Client, args: AttachArgs) -> Result<ExitCode, Failure> {
    let cluster = super::cluster(args.task.cluster.clone());
    let task = names::task(client, &cluster, &args.task.task).await?;
    let stdin = !args.no_stdin;
    let target =
        v1::StreamTarget { cluster, task: task.task_id, container: args.container.unwrap_or_default() };
    let order = v1::AttachOrder { stdin, terminal: stream::window() };
    let start = v1::AttachStart { target: Some(target), order: Some(order) };
    let (to, messages) = mpsc::channel(MESSAGES);
    let what = "attach";
    let first = v1::AttachRequest { message: Some(Message::Start(start)) };
    to.send(first).await.map_err(|_| Failure::OutputClosed)?;
    let call = client.attach(ReceiverStream::new(messages)).await;
    let mut from = call.map_err(Failure::rpc(what))?.into_inner();
    // The first frame says whether the container has a terminal.
    let first = from.message().await.map_err(Failure::rpc(what))?;
    let terminal = match first.and_then(|first| first.output) {
        Some(Output::Started(started)) => started.terminal,
        _ => false,
    };
    let detach = (terminal && stdin).then_some(args.detach_keys);
    let person = Person { stdin, terminal, detach, pass_signals: false };
    let wrap = |input| v1::AttachRequest { message: Some(Message::Input(input)) };
    let end = stream::run(what, person, to, wrap, from).await?;
    if end == End::Detached && !global.quiet {
        output::note("\nleft; the container goes on");
    }
    Ok(end.exit_code().into())
}
