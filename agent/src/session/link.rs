//! One session on one connection: hello both ways, then messages until something breaks.
//! In: messages of the control plane, `Outbound` of the reconciler, the heartbeat's timer. Out: the
//! other's messages. Owns: the stream, the chunks of a manifest that is not whole yet.
//! Never: waits for the reconciler with the stream unread for long; a peer that sends nonsense is
//! left, because what it says next means nothing.

use super::convert::{self, ControlHello, ConvertError, Received};
use super::{Notices, Session, logs, streams};
use crate::errors::chain;
use crate::lease::Beats;
use crate::reconcile::{CoreInput, HelloFacts, Inbound, LowerTerm, Outbound};
use crate::time::{BootInstant, sleep, sleep_until};
use lighter_proto::v1;
use lighter_proto::v1::node_client::NodeClient;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

/// A group of the reconciler ends in at most three messages plus its reports by 128; 64 hold what
/// 8,000 tasks report at once. A peer that lets it fill up is cut off.
const OUTBOUND_DEPTH: usize = 64;

/// How long a control plane may take from the hello to its own: longer than it loads a large store,
/// so that one that took the connection and hangs does not keep the node from the others.
const HELLO_LIMIT: Duration = if cfg!(test) { Duration::from_millis(300) } else { Duration::from_secs(30) };

/// Heartbeats without an answer before the session counts as dead.
const SILENT_BEATS_MAX: u32 = 3;

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    #[error(transparent)]
    Connect(#[from] super::connect::ConnectError),
    #[error("the session with the control plane failed")]
    Status(#[source] Box<tonic::Status>),
    #[error("the control plane closed the session")]
    Closed,
    #[error("the control plane's first message was not its hello")]
    NoHello,
    #[error("the control plane has not answered the hello for {} s", HELLO_LIMIT.as_secs())]
    HelloLate,
    #[error("the control plane sent a message this agent cannot read")]
    Convert(#[from] ConvertError),
    #[error(transparent)]
    LowerTerm(#[from] LowerTerm),
    #[error("the control plane has not answered {SILENT_BEATS_MAX} heartbeats")]
    Silent,
    #[error("the node's certificate was renewed")]
    Renewed,
    #[error("the agent leaves")]
    Leaving,
}

/// An open session.
pub(super) struct Link<'a> {
    session: &'a Session,
    number: u64,
    send: mpsc::Sender<v1::NodeMessage>,
    receive: Streaming<v1::ControlMessage>,
    outbound: mpsc::Receiver<Outbound>,
    heartbeat: Duration,
    manifest: Vec<crate::assignment::Assignment>,
    facts: HelloFacts,
    notices: Notices,
    /// Answers of a lower term are those of a leader that is none any more.
    term: u64,
    beats: Beats,
}

impl<'a> Link<'a> {
    pub(super) async fn open(session: &'a Session, number: u64) -> Result<Self, LinkError> {
        let channel = session.endpoint.connect().await?;
        let mut client = NodeClient::new(channel);
        let (outbound_sender, outbound) = mpsc::channel(OUTBOUND_DEPTH);
        let (facts, got) = oneshot::channel();
        let opened = CoreInput::SessionOpened { session: number, outbound: outbound_sender, facts };
        session.reconciler.send(opened).await.map_err(|_| LinkError::Leaving)?;
        let facts = got.await.map_err(|_| LinkError::Leaving)?;
        let (send, messages) = mpsc::channel(OUTBOUND_DEPTH);
        let mut notices = session.notices.clone();
        let known = notices.borrow_and_update().clone();
        // Its answer counts as a heartbeat's.
        let said_hello = BootInstant::now();
        send.send(convert::hello(&session.node, &facts, &known)).await.map_err(|_| LinkError::Closed)?;
        let answered = async {
            let mut receive = client.session(ReceiverStream::new(messages)).await?.into_inner();
            receive.message().await.map(|first| (receive, first))
        };
        let (receive, first) = tokio::select! {
            answered = answered => answered.map_err(|status| LinkError::Status(Box::new(status)))?,
            () = sleep(HELLO_LIMIT) => return Err(LinkError::HelloLate),
        };
        let first = first.ok_or(LinkError::Closed)?;
        let Received::Hello(hello) = convert::received(first)? else { return Err(LinkError::NoHello) };
        Self::greet(session, number, &hello, said_hello).await?;
        let heartbeat = hello.heartbeat;
        Ok(Self {
            session,
            number,
            send,
            receive,
            outbound,
            heartbeat,
            manifest: Vec::new(),
            facts,
            notices,
            term: hello.term,
            beats: Beats::default(),
        })
    }

    async fn greet(
        session: &Session,
        number: u64,
        hello: &ControlHello,
        sent: BootInstant,
    ) -> Result<(), LinkError> {
        let (answer, got) = oneshot::channel();
        let input = CoreInput::ControlHello {
            session: number,
            term: hello.term,
            incarnation: hello.incarnation.clone(),
            sent,
            answer,
        };
        session.reconciler.send(input).await.map_err(|_| LinkError::Leaving)?;
        got.await.map_err(|_| LinkError::Leaving)?.map_err(LinkError::from)
    }

    pub(super) async fn run(mut self) -> LinkError {
        let mut beat = BootInstant::now().after(self.heartbeat);
        let mut beats: u64 = 0;
        let mut silent: u32 = 0;
        loop {
            let step = tokio::select! {
                // All may be dropped: tonic's stream keeps a half-read message, a channel what was
                // not taken, and the timer is absolute.
                message = self.receive.message() => match message {
                    Ok(Some(message)) => self.take(message, &mut silent).await,
                    Ok(None) => Err(LinkError::Closed),
                    Err(status) => Err(LinkError::Status(Box::new(status))),
                },
                message = self.outbound.recv() => match message {
                    Some(message) => self.give(convert::outbound(message)).await,
                    None => Err(LinkError::Closed),
                },
                () = changed(&mut self.notices) => self.tell_notices().await,
                () = sleep_until(beat) => {
                    beat = BootInstant::now().after(self.heartbeat);
                    beats += 1;
                    silent += 1;
                    self.beats.sent(beats, BootInstant::now());
                    if silent > SILENT_BEATS_MAX { Err(LinkError::Silent) } else { self.give(convert::heartbeat(beats)).await }
                }
            };
            if let Err(error) = step {
                return error;
            }
        }
    }

    async fn tell_notices(&mut self) -> Result<(), LinkError> {
        let notices = self.notices.borrow_and_update().clone();
        self.give(convert::node_state(&self.session.node, &self.facts.offered, &notices)).await
    }

    async fn give(&self, message: v1::NodeMessage) -> Result<(), LinkError> {
        self.send.send(message).await.map_err(|_| LinkError::Closed)
    }

    /// Leases count from when it was sent.
    async fn answered(&mut self, number: u64, term: u64) -> Result<(), LinkError> {
        let Some(sent) = self.beats.answered(number).filter(|_| term >= self.term) else { return Ok(()) };
        let input = CoreInput::Answered { session: self.number, sent };
        self.session.reconciler.send(input).await.map_err(|_| LinkError::Leaving)
    }

    async fn take(&mut self, message: v1::ControlMessage, silent: &mut u32) -> Result<(), LinkError> {
        *silent = 0;
        let sequence = message.sequence;
        let received = match convert::received(message) {
            Ok(received) => received,
            // Refused alone: the messages after it make sense. It counts as heard.
            Err(error) if sequence > 0 => {
                tracing::error!(%error, sequence, "the control plane sent a message that makes no sense; it is left out");
                Received::Message(Inbound::Nothing)
            }
            Err(error) => return Err(error.into()),
        };
        let inbound = match received {
            Received::Hello(_) => return Err(LinkError::NoHello),
            Received::HeartbeatAnswer { number, term } => return self.answered(number, term).await,
            Received::ManifestChunk { revision, assignments, last } => {
                self.manifest.extend(assignments);
                if !last {
                    return Ok(());
                }
                Inbound::Manifest { revision, assignments: std::mem::take(&mut self.manifest) }
            }
            Received::OpenLogStream(request) => {
                let source = logs::LogSource {
                    endpoint: self.session.endpoint.clone(),
                    runtime: self.session.context.facilities.runtime.clone(),
                    reconciler: self.session.reconciler.clone(),
                    leaving: self.session.leaving.clone(),
                };
                // Ends with its log, or when the control plane or the agent leaves.
                tokio::spawn(logs::send(source, request));
                Inbound::Nothing
            }
            Received::OpenStream(open) => {
                let source = streams::StreamSource {
                    endpoint: self.session.endpoint.clone(),
                    context: self.session.context.clone(),
                    reconciler: self.session.reconciler.clone(),
                };
                // Ends with what it was opened for, or when the control plane or the agent leaves.
                tokio::spawn(streams::serve(source, open));
                Inbound::Nothing
            }
            Received::AskTaskEvents { question_id, task } => {
                let (telemetry, send) = (self.session.context.telemetry.clone(), self.send.clone());
                // Ends with its answer; the file of a forgotten task is read off the session's way.
                tokio::task::spawn_blocking(move || {
                    let answer = convert::task_events(question_id, telemetry.events(&task));
                    // A session that has ended meanwhile needs no answer.
                    let _ = send.blocking_send(answer);
                });
                Inbound::Nothing
            }
            Received::Message(inbound) => inbound,
        };
        let input = CoreInput::FromControl { session: self.number, sequence, message: inbound };
        self.session.reconciler.send(input).await.map_err(|_| LinkError::Leaving)
    }
}

/// Something new; for ever when nobody can say it any more. May be dropped at any time.
async fn changed(notices: &mut Notices) {
    if notices.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// A status of gRPC in words, for the log.
pub(super) fn words(status: &tonic::Status) -> String {
    chain(status)
}
