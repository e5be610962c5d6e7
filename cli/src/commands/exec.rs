//! `lighter exec`: a program beside a container's own, with this terminal or these pipes.
//! In: a task, a command. Out: its output; its exit code is ours.

use crate::args::{ExecArgs, Global};
use crate::failure::{self, EXIT_NO_PROGRAM, EXIT_NOT_RUN, EXIT_NOT_STARTED, Failure};
use crate::stream::{self, MESSAGES, Person};
use crate::{client, names, terminal};
use lighter_proto::v1;
use lighter_proto::v1::exec_request::Message;
use std::process::ExitCode;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

pub async fn run(global: &Global, args: ExecArgs) -> ExitCode {
    match try_run(global, args).await {
        Ok(end) => end.exit_code().into(),
        Err(failure) => {
            failure::report(&failure);
            code(&failure).into()
        }
    }
}

/// Docker's numbers, so that a script can tell them from the program's own.
fn code(failure: &Failure) -> u8 {
    let reason = match failure {
        Failure::Rpc { status, .. } => failure::reason(status),
        _ => String::new(),
    };
    match reason.as_str() {
        "COMMAND_NOT_FOUND" => EXIT_NO_PROGRAM,
        "COMMAND_NOT_EXECUTABLE" => EXIT_NOT_STARTED,
        _ => EXIT_NOT_RUN,
    }
}

async fn try_run(global: &Global, args: ExecArgs) -> Result<stream::End, Failure> {
    if args.tty && args.interactive && !terminal::stdin_is_terminal() {
        return Err(Failure::Refused {
            message: "standard input is not a terminal, so there is none to pass on".to_owned(),
            next: "leave --tty out".to_owned(),
        });
    }
    let client = &mut client::connect(global).await?;
    let cluster = super::cluster(args.task.cluster.clone());
    let task = names::task(client, &cluster, &args.task.task).await?;
    let environment = args.env.into_iter().map(|(name, value)| v1::EnvironmentVariable { name, value });
    let default_size = v1::WindowSize { rows: 24, columns: 80 };
    let order = v1::ExecOrder {
        command: args.command,
        stdin: args.interactive,
        terminal: args.tty.then(|| stream::window().unwrap_or(default_size)),
        user: args.user.unwrap_or_default(),
        working_directory: args.workdir.unwrap_or_default(),
        environment: environment.collect(),
    };
    let target =
        v1::StreamTarget { cluster, task: task.task_id, container: args.container.unwrap_or_default() };
    let start = v1::ExecStart { target: Some(target), order: Some(order) };
    let (to, messages) = mpsc::channel(MESSAGES);
    let what = "run the command";
    let first = v1::ExecRequest { message: Some(Message::Start(start)) };
    to.send(first).await.map_err(|_| Failure::OutputClosed)?;
    let call = client.exec(ReceiverStream::new(messages)).await;
    let from = call.map_err(Failure::rpc(what))?.into_inner();
    let person = Person {
        stdin: args.interactive,
        terminal: args.tty,
        detach: None,
        // A terminal's keys are bytes; without one an interrupt is for the program.
        pass_signals: true,
    };
    let wrap = |input| v1::ExecRequest { message: Some(Message::Input(input)) };
    stream::run(what, person, to, wrap, from).await
}
