//! Introspection as ECS's agent has it, on the loopback address: what this node is, its tasks.
//! In: questions over HTTP. Out: ECS's JSON, from what task actors have published.
//! Source: Amazon ECS Developer Guide, "Container introspection".
//! Never: on an address that others reach, unless the operator says so; asks a shim or the store.

use super::Endpoint;
use super::json::{View, instance_arn, port};
use crate::errors::chain;
use crate::facilities::Probe;
use lighter_telemetry::http::{Answer, Question};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// Questions come from people and tools of the machine, not from tasks.
const CONNECTIONS_MAX: usize = 32;
/// As few digits of a container id as ECS takes.
const SHORT_ID_MIN: usize = 12;

impl Endpoint {
    /// Serves until the agent leaves; a result only when it cannot.
    pub(crate) async fn start_introspection(&self) -> Option<Probe> {
        let address = &self.context.config.introspection_address;
        if address.is_empty() {
            return None;
        }
        match TcpListener::bind(address).await {
            Ok(listener) => {
                let (endpoint, leaving) = (self.clone(), self.context.leaving.clone());
                let handler = move |question| {
                    let answer = endpoint.introspect(&question);
                    async move { answer }
                };
                // Ends when the agent leaves; nobody waits for it.
                tokio::spawn(lighter_telemetry::http::serve(listener, CONNECTIONS_MAX, handler, leaving));
                None
            }
            Err(error) => Some(Probe {
                name: "introspection",
                ok: false,
                detail: format!("{address} cannot be served: {}", chain(&error)),
                mend: "set introspection_address to another address, or to \"\"".to_owned(),
                vital: false,
            }),
        }
    }

    pub(super) fn introspect(&self, question: &Question) -> Answer {
        let value = match question.path.trim_end_matches('/') {
            "" => json!({ "AvailableCommands": ["/v1/metadata", "/v1/tasks"] }),
            "/v1/metadata" => json!({
                "Cluster": self.cluster,
                "ContainerInstanceArn": instance_arn(&self.cluster, &self.container_instance_id),
                "Version": concat!("Lighter agent - v", env!("CARGO_PKG_VERSION")),
            }),
            "/v1/tasks" => return self.tasks(question),
            _ => return Answer::json(404, "{}"),
        };
        Answer::json(200, value.to_string())
    }

    fn tasks(&self, question: &Question) -> Answer {
        let snapshots = self.context.telemetry.snapshots();
        let views = snapshots.iter().map(|snapshot| self.view(snapshot));
        let mut found: Vec<View<'_>> = match (question.parameter("taskarn"), question.parameter("dockerid")) {
            (Some(_), Some(_)) => return Answer::json(400, "\"ask by taskarn or by dockerid\""),
            (Some(arn), None) => views.filter(|view| view.task_arn() == arn).collect(),
            (None, Some(id)) => views.filter(|view| has(view, &id)).collect(),
            (None, None) => {
                let tasks: Vec<Value> = views.map(|view| task(&view)).collect();
                return Answer::json(200, json!({ "Tasks": tasks }).to_string());
            }
        };
        match (found.pop(), found.is_empty()) {
            (Some(view), true) => Answer::json(200, task(&view).to_string()),
            (Some(_), false) => Answer::json(400, "{}"),
            (None, _) => Answer::json(404, "{}"),
        }
    }
}

fn has(view: &View<'_>, id: &str) -> bool {
    let mut containers = view.record.containers.iter();
    id.len() >= SHORT_ID_MIN && containers.any(|c| view.docker_id(&c.name).starts_with(id))
}

fn task(view: &View<'_>) -> Value {
    let containers = view.pairs().map(|(_, record)| {
        let mut container = json!({
            "DockerId": view.docker_id(&record.name),
            "DockerName": view.docker_name(&record.name),
            "Name": record.name,
        });
        if !record.bindings.is_empty() {
            container["Ports"] = record.bindings.iter().map(port).collect();
        }
        container
    });
    json!({
        "Arn": view.task_arn(),
        "DesiredStatus": view.desired(),
        "KnownStatus": view.known(),
        "Family": view.id.family,
        "Version": view.id.revision.to_string(),
        "Containers": containers.collect::<Vec<_>>(),
    })
}
