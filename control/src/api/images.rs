//! OrderImages: pulls images on nodes before any task wants them, lists or prunes those of nodes.
//! In: nodes and what they are to do. Out: each node's reports as they come, and how it ended there.
//! Owns one tokio task for each call, which ends with its caller; a node that is cut off keeps what it
//! has fetched. Never: sends credentials; lets the failure of one node end the others; begins before
//! the audit record is durable.

use super::stream::{Wanted, first, open};
use super::{Context, existing_cluster};
use crate::core::audit::{Asker, AuditEnded, AuditStarted};
use crate::core::definition::find_definition;
use crate::core::instance::find_instance;
use crate::core::record::{DefinitionRecord, InstanceRecord};
use crate::error::ApiError;
use crate::session::convert::{ImageReport, ImagesOrder, StreamOrder, image_report, images_order, said};
use crate::session::streams::{Counted, Said};
use crate::view::Shown;
use futures_util::StreamExt;
use lighter_model::ids::{ClusterName, ContainerInstanceId};
use lighter_model::status::ContainerInstanceStatus;
use lighter_model::task_definition::PullBehavior;
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Nodes of one call that are at it at once: their registry is one and the same, and a call leaves
/// room for the streams of others (`session::streams`).
pub const NODES_AT_ONCE: usize = 32;
/// Reports on their way to the caller: one is made while another is sent.
const REPORTS: usize = 2;
/// Images of one call.
const IMAGES: usize = 100;

/// What somebody wants of nodes.
#[derive(Debug, Clone)]
pub struct ImagesRequest {
    pub cluster: String,
    /// Ids, names, unique beginnings of ids.
    pub instances: Vec<String>,
    /// Instead of `instances`: every ACTIVE one.
    pub all: bool,
    pub work: ImageWork,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageWork {
    Pull {
        images: Vec<String>,
        /// Empty: the task definition's, else the node's own.
        pull_behavior: String,
        /// Empty: none.
        task_definition: String,
    },
    List,
    Prune,
}

/// What is said of one node.
#[derive(Debug)]
pub struct NodeSays {
    pub instance: ContainerInstanceId,
    pub name: String,
    pub event: NodeEvent,
}

/// A step of one node.
#[derive(Debug)]
pub enum NodeEvent {
    /// It is one of those concerned.
    Concerned,
    Report(ImageReport),
    Ended(Result<(), ApiError>),
}

struct Plan {
    cluster: ClusterName,
    nodes: Vec<Arc<InstanceRecord>>,
    order: StreamOrder,
    action: &'static str,
    /// For the audit.
    words: Vec<String>,
}

/// Begins; the reports come as the nodes say them and end after the last node.
pub async fn order(
    context: &Context,
    asker: &Asker,
    request: ImagesRequest,
) -> Result<mpsc::Receiver<NodeSays>, ApiError> {
    let plan = context.view.read(|shown| plan(shown, &request))?;
    let one = if let [node] = plan.nodes.as_slice() { node.id.to_string() } else { String::new() };
    let record = AuditStarted {
        user: asker.user.clone(),
        address: asker.address.clone(),
        action: plan.action,
        cluster: plan.cluster.to_string(),
        task: String::new(),
        container: String::new(),
        instance: one,
        command: plan.words.clone(),
        outcome: None,
    };
    let sequence = context.writer.submit(record).await?;
    let (out, reports) = mpsc::channel(REPORTS);
    // Ends with the last node, or when the caller or the control plane goes away.
    tokio::spawn(run(context.clone(), asker.user.clone(), plan, sequence, out));
    Ok(reports)
}

fn plan(shown: &Shown, request: &ImagesRequest) -> Result<Plan, ApiError> {
    let cluster = existing_cluster(shown, &request.cluster)?;
    let nodes = nodes(shown, &cluster, request)?;
    let (order, action, words) = match &request.work {
        ImageWork::List => (images_order(ImagesOrder::List), "image-list", Vec::new()),
        ImageWork::Prune => (images_order(ImagesOrder::Prune), "image-prune", Vec::new()),
        ImageWork::Pull { images, pull_behavior, task_definition } => {
            let mut wanted: BTreeSet<String> = images.iter().cloned().collect();
            let mut behavior = pull_behavior.clone();
            if !task_definition.is_empty() {
                let definition = find_definition(&shown.state, task_definition)?;
                wanted.extend(images_of(&definition)?);
                if let (true, Some(own)) = (behavior.is_empty(), definition.definition.pull_behavior) {
                    behavior = own.as_str().to_owned();
                }
            }
            let images = checked(wanted, &behavior)?;
            (images_order(ImagesOrder::Pull(images.clone(), behavior)), "image-pull", images)
        }
    };
    Ok(Plan { cluster, nodes, order, action, words })
}

fn checked(images: BTreeSet<String>, behavior: &str) -> Result<Vec<String>, ApiError> {
    if images.is_empty() || images.len() > IMAGES || images.contains("") {
        return Err(ApiError::invalid("images", format!("name 1 to {IMAGES} images, or a task definition")));
    }
    if !behavior.is_empty() && PullBehavior::parse(behavior).is_none() {
        let message = format!("{behavior:?} is not default, always, once or prefer-cached");
        return Err(ApiError::invalid("pullBehavior", message));
    }
    Ok(images.into_iter().collect())
}

/// As a task of this revision would pull them.
fn images_of(definition: &DefinitionRecord) -> Result<Vec<String>, ApiError> {
    if !definition.is_active() {
        return Err(ApiError::TaskDefinitionInactive { name: definition.id.to_string() });
    }
    let containers = definition.definition.container_definitions.iter();
    let images =
        containers.map(|c| c.image_to_pull(definition.image_digests.get(&c.name).map(|digest| &**digest)));
    Ok(images.collect())
}

fn nodes(
    shown: &Shown,
    cluster: &ClusterName,
    request: &ImagesRequest,
) -> Result<Vec<Arc<InstanceRecord>>, ApiError> {
    if request.all != request.instances.is_empty() {
        return Err(ApiError::invalid("containerInstances", "name some, or ask for all of them"));
    }
    if request.all {
        let active = |instance: &&Arc<InstanceRecord>| {
            instance.cluster == *cluster && instance.status == ContainerInstanceStatus::Active
        };
        return Ok(shown.state.instances.values().filter(active).cloned().collect());
    }
    let mut nodes = Vec::new();
    for text in &request.instances {
        let node = find_instance(&shown.state, cluster, text)?;
        if !nodes.iter().any(|known: &Arc<InstanceRecord>| known.id == node.id) {
            nodes.push(node);
        }
    }
    Ok(nodes)
}

/// Sends one word of a node; nobody may want it any more.
async fn say(out: &mpsc::Sender<NodeSays>, node: &InstanceRecord, event: NodeEvent) {
    let _ = out.send(NodeSays { instance: node.id.clone(), name: node.name.clone(), event }).await;
}

async fn run(context: Context, user: String, plan: Plan, sequence: u64, out: mpsc::Sender<NodeSays>) {
    let work = async {
        for node in &plan.nodes {
            say(&out, node, NodeEvent::Concerned).await;
        }
        let one = |node: &Arc<InstanceRecord>| {
            let (context, user, order, out, node) = (&context, &user, &plan.order, &out, node.clone());
            async move {
                let ended = relay(context, user, &node, order.clone(), out).await;
                let failed = ended.as_ref().err().map(|error| format!("{}: {error}", node.name));
                say(out, &node, NodeEvent::Ended(ended)).await;
                failed
            }
        };
        let ended = futures_util::stream::iter(&plan.nodes).map(one).buffer_unordered(NODES_AT_ONCE);
        let failed: Vec<String> = ended.filter_map(std::future::ready).collect().await;
        match failed.len() {
            0 => format!("done on {} nodes", plan.nodes.len()),
            count => format!("failed on {count} of {} nodes: {}", plan.nodes.len(), failed.join("; ")),
        }
    };
    let result = tokio::select! {
        result = work => result,
        () = out.closed() => "the caller went away".to_owned(),
        () = context.stop.cancelled() => "the control plane ended".to_owned(),
    };
    let record = AuditEnded { sequence, result, bytes_in: 0, bytes_out: 0 };
    if let Err(error) = context.writer.submit(record).await {
        tracing::warn!(%error, audit = sequence, "an audit record could not be completed");
    }
}

/// One node from its first frame to its last.
async fn relay(
    context: &Context,
    user: &str,
    node: &InstanceRecord,
    order: StreamOrder,
    out: &mpsc::Sender<NodeSays>,
) -> Result<(), ApiError> {
    let wanted = Wanted { instance: &node.id, task: String::new(), container: String::new(), order };
    let mut end = open(context, Counted::Part(user), wanted)?;
    let mut frame = first(&mut end, &node.id).await?;
    loop {
        if let Said::Ended { result } = said(&frame) {
            return result.map(drop);
        }
        if let Some(report) = image_report(frame) {
            say(out, node, NodeEvent::Report(report)).await;
        }
        frame = end.output.recv().await.ok_or(ApiError::StreamBroken)??;
    }
}
