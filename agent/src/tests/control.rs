//! A control plane that fits in a test: keeps assignments, applies each report once by its sequence,
//! and tells what it was told. In: `assign`, `stop`. Out: messages as the real one sends them.
//! Owns: the server's socket and its state, behind a lock held for one change at a time.
//! Never: decides; it does what the test says.

use lighter_proto::v1;
use lighter_proto::v1::control_message::Message;
use lighter_proto::v1::node_message::Message as FromNode;
use lighter_proto::v1::node_server::{Node, NodeServer};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::{Request, Response, Status, Streaming};

const DEADLINE: Duration = Duration::from_secs(20);

/// One live session.
struct Live {
    send: mpsc::Sender<Result<v1::ControlMessage, Status>>,
    sequence: u64,
    definitions: BTreeSet<String>,
}

impl Live {
    fn push(&mut self, message: Message) {
        let counted = !matches!(message, Message::Hello(_) | Message::HeartbeatAnswer(_));
        self.sequence += u64::from(counted);
        let sequence = if counted { self.sequence } else { 0 };
        let _ = self.send.try_send(Ok(v1::ControlMessage { sequence, message: Some(message) }));
    }
}

pub(super) struct State {
    pub term: u64,
    pub incarnation: String,
    pub revision: u64,
    pub heartbeat_ms: u32,
    pub definitions: BTreeMap<String, String>,
    pub assignments: BTreeMap<String, v1::Assignment>,
    /// Reports applied, in order; repeats are not in it.
    pub applied: BTreeMap<String, Vec<v1::TaskReport>>,
    /// Reports received, repeats included.
    pub received: Vec<(String, u64)>,
    pub acknowledge_reports: bool,
    pub acknowledged: Vec<u64>,
    pub hellos: Vec<v1::NodeHello>,
    pub confirm_asked: Vec<String>,
    pub confirm: bool,
    pub heartbeats: u64,
    pub node_states: Vec<v1::NodeState>,
    pub log_lines: Vec<v1::LogLine>,
    pub log_streams_ended: u32,
    /// Data streams asked for and not answered yet.
    streams: BTreeMap<String, DataEnds>,
    /// By question id.
    pub task_events: BTreeMap<String, Vec<v1::TaskEvent>>,
    /// Takes hellos and answers none.
    pub silent: bool,
    live: Option<Live>,
}

/// The agent's ends of a data stream.
struct DataEnds {
    input: mpsc::Receiver<v1::StreamInput>,
    output: mpsc::Sender<v1::StreamOutput>,
}

/// The person's ends; dropping it is going away.
pub(super) struct DataStream {
    input: mpsc::Sender<v1::StreamInput>,
    output: mpsc::Receiver<v1::StreamOutput>,
}

impl DataStream {
    /// What nobody takes is a failure that shows what was said instead.
    pub(super) fn send(&mut self, input: v1::stream_input::Input) {
        let input = v1::StreamInput { input: Some(input) };
        let sent = self.input.send_timeout(input, DEADLINE);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        if let Err(error) = runtime.block_on(sent) {
            panic!("input not taken: {error}; said first: {:?}", self.output.try_recv());
        }
    }

    /// The next frame; `None` when the agent has closed.
    pub(super) fn next(&mut self) -> Option<v1::stream_output::Output> {
        let wait = async { tokio::time::timeout(DEADLINE, self.output.recv()).await };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(wait).expect("no frame came")?.output
    }
}

#[derive(Clone)]
pub(super) struct Control {
    state: Arc<Mutex<State>>,
    pub socket: PathBuf,
}

impl Control {
    /// Serves on `<dir>/control.sock` for as long as the current runtime lives.
    pub(super) fn start(dir: &Path) -> Self {
        let state = State {
            term: 1,
            incarnation: "first".into(),
            revision: 1,
            heartbeat_ms: 1000,
            definitions: BTreeMap::new(),
            assignments: BTreeMap::new(),
            applied: BTreeMap::new(),
            received: Vec::new(),
            acknowledge_reports: true,
            acknowledged: Vec::new(),
            hellos: Vec::new(),
            confirm_asked: Vec::new(),
            confirm: true,
            heartbeats: 0,
            node_states: Vec::new(),
            log_lines: Vec::new(),
            log_streams_ended: 0,
            streams: BTreeMap::new(),
            task_events: BTreeMap::new(),
            silent: false,
            live: None,
        };
        let socket = dir.join("control.sock");
        let control = Self { state: Arc::new(Mutex::new(state)), socket: socket.clone() };
        let listener = tokio::net::UnixListener::bind(socket).unwrap();
        let server = tonic::transport::Server::builder().add_service(NodeServer::new(control.clone()));
        tokio::spawn(server.serve_with_incoming(UnixListenerStream::new(listener)));
        control
    }

    pub(super) fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.state.lock().unwrap())
    }

    pub(super) fn define(&self, name: &str, json: &str) {
        self.with(|state| state.definitions.insert(name.to_owned(), json.to_owned()));
    }

    /// The task shall run.
    pub(super) fn assign(&self, task: &str, definition: &str) {
        self.change(task, |assignment| {
            assignment.task_definition = definition.to_owned();
            assignment.desired_status = v1::DesiredStatus::Running.into();
        });
    }

    pub(super) fn stop(&self, task: &str, reason: &str) {
        self.change(task, |assignment| {
            assignment.desired_status = v1::DesiredStatus::Stopped.into();
            assignment.stop_code = v1::StopCode::UserInitiated.into();
            assignment.stop_reason = reason.to_owned();
        });
    }

    pub(super) fn change(&self, task: &str, change: impl FnOnce(&mut v1::Assignment)) {
        self.with(|state| {
            state.revision += 1;
            let assignment = state.assignments.entry(task.to_owned()).or_default();
            assignment.task_id = task.to_owned();
            assignment.generation += 1;
            change(assignment);
            let assignment = assignment.clone();
            state.send_assignments(vec![assignment]);
        });
    }

    /// Ends the session there is; the agent comes back.
    pub(super) fn cut(&self) {
        self.with(|state| state.live = None);
    }

    pub(super) fn push(&self, message: Message) {
        self.with(|state| {
            if let Some(live) = &mut state.live {
                live.push(message);
            }
        });
    }

    /// Asks the agent for a data stream.
    pub(super) fn open_stream(
        &self,
        task: &str,
        container: &str,
        order: v1::stream_order::Order,
    ) -> DataStream {
        let ((input, agent_input), (agent_output, output)) = (mpsc::channel(1), mpsc::channel(1));
        let stream_id = self.with(|state| {
            state.revision += 1;
            let id = format!("data-{}", state.revision);
            state.streams.insert(id.clone(), DataEnds { input: agent_input, output: agent_output });
            id
        });
        self.push(Message::OpenStream(v1::OpenStream {
            stream_id,
            task_id: task.to_owned(),
            container: container.to_owned(),
            order: Some(v1::StreamOrder { order: Some(order) }),
            user: "admin".to_owned(),
        }));
        DataStream { input, output }
    }

    pub(super) fn wait<T>(&self, what: &str, look: impl Fn(&State) -> Option<T>) -> T {
        wait(what, || self.with(|state| look(state)), || self.with(|state| format!("{:#?}", state.applied)))
    }

    /// The last report applied of a task with this status.
    pub(super) fn wait_status(&self, task: &str, status: v1::TaskStatus) -> v1::TaskReport {
        self.wait(&format!("{task} {status:?}"), |state| {
            let reports = state.applied.get(task)?;
            reports.iter().rev().find(|report| report.last_status() == status).cloned()
        })
    }

    /// The node's journal of a task, as it answers it.
    pub(super) fn ask_events(&self, task: &str) -> Vec<v1::TaskEvent> {
        let asked = self.with(|state| state.task_events.len());
        let question_id = format!("question-{asked}");
        let ask = v1::AskTaskEvents { question_id: question_id.clone(), task_id: task.to_owned() };
        self.push(Message::AskTaskEvents(ask));
        self.wait("the journal", |state| state.task_events.get(&question_id).cloned())
    }

    pub(super) fn stopped_reports(&self, task: &str) -> usize {
        self.with(|state| {
            let reports = state.applied.get(task).into_iter().flatten();
            reports.filter(|report| report.last_status() == v1::TaskStatus::Stopped).count()
        })
    }
}

/// Polls a condition until its deadline.
pub(super) fn wait<T>(what: &str, look: impl Fn() -> Option<T>, explain: impl Fn() -> String) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} did not come: {}", explain());
        std::thread::sleep(Duration::from_millis(1));
    }
}

impl State {
    fn send_assignments(&mut self, assignments: Vec<v1::Assignment>) {
        let Some(live) = &mut self.live else { return };
        send_definitions(live, &self.definitions, &assignments);
        live.push(Message::Assignments(v1::Assignments { revision: self.revision, assignments }));
    }

    fn greet(&mut self, mut live: Live, hello: v1::NodeHello) {
        self.hellos.push(hello);
        if self.silent {
            // Kept open.
            self.live = Some(live);
            return;
        }
        live.push(Message::Hello(v1::ControlHello {
            protocol: 1,
            term: self.term,
            incarnation: self.incarnation.clone(),
            heartbeat_interval_ms: self.heartbeat_ms,
            ..v1::ControlHello::default()
        }));
        let mut assignments: Vec<v1::Assignment> = self.assignments.values().cloned().collect();
        // As the real one: what is known to have stopped may be forgotten.
        for assignment in &mut assignments {
            let last = self.applied.get(&assignment.task_id).and_then(|reports| reports.last());
            let stopped = last.is_some_and(|report| report.last_status() == v1::TaskStatus::Stopped);
            assignment.forget |= stopped && self.acknowledge_reports;
        }
        send_definitions(&mut live, &self.definitions, &assignments);
        // Two chunks, always.
        let half = assignments.len() / 2;
        let chunk = |part: &[v1::Assignment], last_chunk| {
            Message::Manifest(v1::Manifest {
                revision: self.revision,
                assignments: part.to_vec(),
                last_chunk,
            })
        };
        live.push(chunk(&assignments[..half], false));
        live.push(chunk(&assignments[half..], true));
        self.live = Some(live);
    }

    fn take(&mut self, message: FromNode) {
        match message {
            FromNode::Hello(_) => panic!("a second hello"),
            FromNode::Heartbeat(beat) => {
                self.heartbeats += 1;
                let answer = v1::HeartbeatAnswer { number: beat.number, term: self.term };
                self.live.iter_mut().for_each(|live| live.push(Message::HeartbeatAnswer(answer)));
            }
            FromNode::Acknowledge(acknowledge) => self.acknowledged.push(acknowledge.sequence),
            FromNode::TaskReports(reports) => {
                reports.reports.into_iter().for_each(|report| self.apply(report))
            }
            FromNode::ConfirmStop(ask) => {
                self.confirm_asked.extend(ask.task_ids.clone());
                if self.confirm {
                    let task_ids = ask
                        .task_ids
                        .into_iter()
                        .filter(|task| !self.assignments.contains_key(task))
                        .collect();
                    self.live.iter_mut().for_each(|live| {
                        live.push(Message::StopConfirmed(v1::StopConfirmed {
                            task_ids: Clone::clone(&task_ids),
                        }))
                    });
                }
            }
            FromNode::TaskEvents(answer) => drop(self.task_events.insert(answer.question_id, answer.events)),
            FromNode::NodeState(state) => self.node_states.push(state),
        }
    }

    fn apply(&mut self, report: v1::TaskReport) {
        self.received.push((report.task_id.clone(), report.sequence));
        let applied = v1::AppliedReport { task_id: report.task_id.clone(), sequence: report.sequence };
        let known = self.applied.entry(report.task_id.clone()).or_default();
        if known.last().is_none_or(|last| last.sequence < report.sequence) {
            known.push(report);
        }
        if self.acknowledge_reports {
            let message = Message::ReportsApplied(v1::ReportsApplied { applied: vec![applied] });
            self.live.iter_mut().for_each(|live| live.push(message.clone()));
        }
    }
}

fn send_definitions(live: &mut Live, definitions: &BTreeMap<String, String>, assignments: &[v1::Assignment]) {
    let mut fresh = Vec::new();
    for assignment in assignments {
        let Some(json) = definitions.get(&assignment.task_definition) else { continue };
        if live.definitions.insert(assignment.task_definition.clone()) {
            fresh.push(v1::Definition {
                task_definition: assignment.task_definition.clone(),
                json: json.clone(),
            });
        }
    }
    if !fresh.is_empty() {
        live.push(Message::Definitions(v1::Definitions { definitions: fresh }));
    }
}

#[tonic::async_trait]
impl Node for Control {
    async fn join(&self, _: Request<v1::JoinRequest>) -> Result<Response<v1::JoinResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn renew_certificate(
        &self,
        _: Request<v1::RenewCertificateRequest>,
    ) -> Result<Response<v1::RenewCertificateResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    type SessionStream = ReceiverStream<Result<v1::ControlMessage, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<v1::NodeMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let mut messages = request.into_inner();
        let (send, receive) = mpsc::channel(1024);
        let control = self.clone();
        tokio::spawn(async move {
            let Ok(Some(v1::NodeMessage { message: Some(FromNode::Hello(hello)) })) =
                messages.message().await
            else {
                return;
            };
            let live = Live { send, sequence: 0, definitions: BTreeSet::new() };
            control.with(|state| state.greet(live, hello));
            while let Ok(Some(message)) = messages.message().await {
                control.with(|state| state.take(message.message.unwrap()));
            }
        });
        Ok(Response::new(ReceiverStream::new(receive)))
    }

    type StreamStream = ReceiverStream<Result<v1::ControlFrame, Status>>;

    async fn stream(
        &self,
        request: Request<Streaming<v1::NodeFrame>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let mut frames = request.into_inner();
        let first = frames.message().await?.unwrap();
        let ends = self.with(|state| state.streams.remove(&first.stream_id)).unwrap();
        let DataEnds { mut input, output } = ends;
        let (send, receive) = mpsc::channel(1);
        tokio::spawn(async move {
            let taking = async {
                while let Ok(Some(frame)) = frames.message().await {
                    if let Some(said) = frame.output
                        && output.send(said).await.is_err()
                    {
                        return;
                    }
                }
            };
            let giving = async {
                while let Some(input) = input.recv().await {
                    let _ = send.send(Ok(v1::ControlFrame { input: Some(input) })).await;
                }
            };
            tokio::select! {
                () = taking => {}
                () = giving => {}
            }
        });
        Ok(Response::new(ReceiverStream::new(receive)))
    }

    async fn send_logs(
        &self,
        request: Request<Streaming<v1::SendLogsRequest>>,
    ) -> Result<Response<v1::SendLogsResponse>, Status> {
        let mut messages = request.into_inner();
        while let Some(message) = messages.message().await? {
            assert!(message.stream_id.starts_with("stream-"), "{}", message.stream_id);
            self.with(|state| state.log_lines.extend(message.lines));
        }
        self.with(|state| state.log_streams_ended += 1);
        Ok(Response::new(v1::SendLogsResponse {}))
    }
}
