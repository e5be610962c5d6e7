//! A node that speaks the session protocol and runs nothing.

use crate::support::{PATIENCE, Running};
use lighter_proto::v1;
use lighter_proto::v1::control_message::Message as FromControl;
use lighter_proto::v1::node_client::NodeClient;
use lighter_proto::v1::node_message::Message as FromNode;
use std::collections::VecDeque;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

/// A joined node.
#[derive(Clone)]
pub(crate) struct FakeNode {
    pub(crate) id: String,
    pub(crate) certificate: String,
    pub(crate) key: String,
    pub(crate) run_id: String,
    pub(crate) incarnation: String,
    pub(crate) revision: u64,
    pub(crate) held: Vec<v1::HeldTask>,
    pub(crate) resources: v1::Resources,
}

/// A certificate request for a fresh key.
pub(crate) fn certificate_request() -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    // What a request says of itself must not matter.
    let params = rcgen::CertificateParams::new(vec!["control.lighter.internal".to_owned()]).unwrap();
    let request = params.serialize_request(&key).unwrap();
    (request.pem().unwrap(), key.serialize_pem())
}

/// Spends a token.
pub(crate) async fn join(running: &Running, token: &str, name: &str) -> Result<FakeNode, Status> {
    let (certificate_request_pem, key) = certificate_request();
    let request = v1::JoinRequest { token: token.to_owned(), certificate_request_pem, name: name.to_owned() };
    let joined = running.anonymous_node().await.join(request).await?.into_inner();
    Ok(FakeNode {
        id: joined.container_instance_id,
        certificate: joined.certificate_pem,
        key,
        run_id: format!("run of {name}"),
        incarnation: String::new(),
        revision: 0,
        held: Vec::new(),
        resources: v1::Resources { cpu_units: 2048, memory_mib: 4096, ..Default::default() },
    })
}

/// Joins with a token of its own.
pub(crate) async fn joined(running: &Running, name: &str) -> FakeNode {
    let token = running.handle.create_join_token().await.unwrap();
    join(running, &token, name).await.unwrap()
}

/// A live session.
pub(crate) struct FakeSession {
    pub(crate) hello: v1::ControlHello,
    /// What the manifest said.
    pub(crate) manifest: Vec<v1::Assignment>,
    pub(crate) manifest_chunks: usize,
    pub(crate) revision: u64,
    /// `family:revision` of the definitions got, in order.
    pub(crate) definitions: Vec<String>,
    pub(crate) last_sequence: u64,
    /// Assignments that came while something else was waited for.
    early: VecDeque<v1::Assignments>,
    out: mpsc::Sender<v1::NodeMessage>,
    incoming: Streaming<v1::ControlMessage>,
}

impl FakeNode {
    pub(crate) async fn client(&self, running: &Running) -> NodeClient<Channel> {
        NodeClient::new(running.tls(Some((&self.certificate, &self.key))).await)
    }

    pub(crate) fn hello(&self) -> v1::NodeHello {
        v1::NodeHello {
            protocol: Some(v1::ProtocolRange { min: 1, max: 1 }),
            agent_version: "0.0.1".to_owned(),
            boot_id: "boot".to_owned(),
            agent_run_id: self.run_id.clone(),
            incarnation: self.incarnation.clone(),
            revision: self.revision,
            state: Some(v1::NodeState { resources: Some(self.resources.clone()), ..Default::default() }),
            tasks: self.held.clone(),
            ..Default::default()
        }
    }

    /// Begins a session and reads up to the end of the manifest.
    pub(crate) async fn connect(&self, running: &Running) -> Result<FakeSession, Status> {
        self.connect_saying(running, self.hello()).await
    }

    pub(crate) async fn connect_saying(
        &self,
        running: &Running,
        hello: v1::NodeHello,
    ) -> Result<FakeSession, Status> {
        self.connect_over(self.client(running).await, hello).await
    }

    /// What is not read is soon not sent.
    pub(crate) async fn connect_with_small_windows(&self, running: &Running) -> Result<FakeSession, Status> {
        let endpoint = running.tls_endpoint(Some((&self.certificate, &self.key)));
        let endpoint = endpoint.initial_stream_window_size(65_535).initial_connection_window_size(65_535);
        self.connect_over(NodeClient::new(endpoint.connect().await.unwrap()), self.hello()).await
    }

    async fn connect_over(
        &self,
        mut client: NodeClient<Channel>,
        hello: v1::NodeHello,
    ) -> Result<FakeSession, Status> {
        let (out, messages) = mpsc::channel(64);
        let incoming = client.session(ReceiverStream::new(messages)).await?.into_inner();
        let mut session = FakeSession {
            hello: v1::ControlHello::default(),
            manifest: Vec::new(),
            manifest_chunks: 0,
            revision: 0,
            definitions: Vec::new(),
            last_sequence: 0,
            early: VecDeque::new(),
            out,
            incoming,
        };
        session.say(FromNode::Hello(hello)).await;
        match session.receive().await? {
            FromControl::Hello(hello) => session.hello = hello,
            other => panic!("the first message is {other:?}"),
        }
        loop {
            if let FromControl::Manifest(manifest) = session.receive().await? {
                session.revision = manifest.revision;
                session.manifest_chunks += 1;
                session.manifest.extend(manifest.assignments);
                if manifest.last_chunk {
                    return Ok(session);
                }
            }
        }
    }
}

impl FakeSession {
    pub(crate) async fn say(&self, message: FromNode) {
        self.out.send(v1::NodeMessage { message: Some(message) }).await.unwrap();
    }

    /// Says heartbeats until it is aborted.
    pub(crate) fn beats(&self, every: std::time::Duration) -> tokio::task::JoinHandle<()> {
        let out = self.out.clone();
        tokio::spawn(async move {
            for number in 1.. {
                let beat = FromNode::Heartbeat(v1::Heartbeat { number });
                if out.send(v1::NodeMessage { message: Some(beat) }).await.is_err() {
                    return;
                }
                tokio::time::sleep(every).await;
            }
        })
    }

    /// The next message; sequences are checked, definitions remembered.
    pub(crate) async fn receive(&mut self) -> Result<FromControl, Status> {
        let next = tokio::time::timeout(PATIENCE, self.incoming.message()).await.expect("nothing came");
        let message = next?.ok_or_else(|| Status::ok("the stream ended"))?;
        let body = message.message.unwrap();
        match &body {
            FromControl::Hello(_) | FromControl::HeartbeatAnswer(_) => assert_eq!(message.sequence, 0),
            _ => {
                assert_eq!(message.sequence, self.last_sequence + 1, "sequences grow by one");
                self.last_sequence = message.sequence;
            }
        }
        if let FromControl::Definitions(definitions) = &body {
            self.definitions.extend(definitions.definitions.iter().map(|d| d.task_definition.clone()));
        }
        Ok(body)
    }

    /// Reads until assignments come.
    pub(crate) async fn assignments(&mut self) -> Vec<v1::Assignment> {
        while self.early.is_empty() {
            if let FromControl::Assignments(assignments) = self.receive().await.unwrap() {
                self.early.push_back(assignments);
            }
        }
        let assignments = self.early.pop_front().unwrap();
        self.revision = assignments.revision;
        assignments.assignments
    }

    /// Reports and waits until all of it is applied.
    pub(crate) async fn report(&mut self, reports: Vec<v1::TaskReport>) {
        let mut missing = reports.len();
        self.say(FromNode::TaskReports(v1::TaskReports { reports })).await;
        while missing > 0 {
            match self.receive().await.unwrap() {
                FromControl::ReportsApplied(applied) => missing -= applied.applied.len(),
                FromControl::Assignments(assignments) => self.early.push_back(assignments),
                _ => {}
            }
        }
    }

    /// Reads until the session ends; why it did.
    pub(crate) async fn end(&mut self) -> Status {
        loop {
            if let Err(status) = self.receive().await {
                return status;
            }
        }
    }
}

/// A report with a status.
pub(crate) fn report(task: &str, sequence: u64, status: v1::TaskStatus) -> v1::TaskReport {
    v1::TaskReport { task_id: task.to_owned(), sequence, last_status: status.into(), ..Default::default() }
}

/// A report of a task whose only container exited.
pub(crate) fn stopped_report(task: &str, sequence: u64, exit_code: i32) -> v1::TaskReport {
    let exit = v1::ContainerExit {
        status: Some(v1::container_exit::Status::Exited(exit_code)),
        oom_killed: false,
        finished_at_unix_ms: 1,
    };
    v1::TaskReport {
        stop_code: v1::StopCode::EssentialContainerExited.into(),
        stopped_reason: "Essential container in task exited".to_owned(),
        containers: vec![v1::Container {
            name: "web".to_owned(),
            last_status: v1::ContainerStatus::Stopped.into(),
            exit: Some(exit),
            ..Default::default()
        }],
        ..report(task, sequence, v1::TaskStatus::Stopped)
    }
}
