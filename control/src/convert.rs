//! Between the messages of the user service and our own types; here and in `session::convert` only.
//! In: requests. Out: commands and filters; and messages from records. Never: decides anything.

mod cluster;
mod instance;
pub mod service;
mod state;

pub use cluster::{cluster, cluster_page, create_cluster, described_clusters, update_cluster};
pub use instance::{instance, instance_status};
pub use state::state_chunks;

use instance::resources;

use crate::api::attribute::{AttributePage, Filter as AttributeFilter};
use crate::api::audit::{AuditFilter, AuditPage};
use crate::api::cluster_name;
use crate::api::events::WatchRequest;
use crate::api::images::{ImageWork, ImagesRequest, NodeEvent, NodeSays};
use crate::api::instance::Filter as InstanceFilter;
use crate::api::join::{Joined, NewToken, TokenRequest};
use crate::api::journal::TaskJournal;
use crate::api::logs::LogsRequest;
use crate::api::orphan::Orphan;
use crate::api::page::{Page, PageRequest};
use crate::api::stats::StatsRequest;
use crate::api::task::{Described, DescribedTask, Filter as TaskFilter};
use crate::api::task_definition::{FamilyFilter, Filter as DefinitionFilter, Status as DefinitionStatus};
use crate::core::attribute::{DeleteAttributes, PutAttributes, TargetAttribute};
use crate::core::audit::Asker;
use crate::core::definition::DeletedDefinitions;
use crate::core::deregister::DeregisterInstance;
use crate::core::drain::UpdateInstancesState;
use crate::core::queue::{self, QueueOptions};
use crate::core::record::{
    AttributeSource, AuditRecord, ContainerRecord, DefinitionRecord, EventRecord, EventSubject, ImageDigests,
    InstanceSnapshot, PlacementFailure, RecordKind, TaskRecord,
};
use crate::core::run_task::{self, RunTask, RunTaskAnswer};
use crate::core::silence::policy::SilencePolicy;
use crate::core::stop_task::StopTask;
use crate::core::tag::{TagResource, UntagResource};
use crate::core::update_task::{PauseTask, UpdateTask};
use crate::error::ApiError;
use crate::identity::layer::{address, asker as caller_name, node};
use crate::session::convert::{LogBatch, container_resources, desired_status, stop_code};
use crate::session::run::Identity;
use lighter_model::attribute::required;
use lighter_model::exit::{ContainerExit, ExitStatus};
use lighter_model::health::{ContainerHealth, HealthStatus};
use lighter_model::ids::ClusterName;
use lighter_model::placement::{ConstraintText, Placement, PlacementText, StrategyText};
use lighter_model::query::Expression;
use lighter_model::report::{KernelLimits, NetworkBinding};
use lighter_model::resources::GrantedDevice;
use lighter_model::status::{ContainerInstanceStatus, ContainerStatus, DesiredStatus, TaskStatus};
use lighter_model::tags::{Tags, checked};
use lighter_model::task_definition::{TransportProtocol, input};
use lighter_model::trace_context::TRACEPARENT;
use lighter_model::wait::Wait;
use lighter_proto::v1;
use std::collections::HashMap;
use tonic::Extensions;
use tonic::metadata::MetadataMap;

fn text(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn ms(unix_ms: u64) -> i64 {
    i64::try_from(unix_ms).unwrap_or(i64::MAX)
}

fn ms_or_zero(unix_ms: Option<u64>) -> i64 {
    unix_ms.map_or(0, ms)
}

fn page_request(max_results: u32, next_token: String) -> PageRequest {
    PageRequest { max_results, next_token }
}

/// The node that calls, from its certificate.
pub fn identity(extensions: &Extensions) -> Result<Identity, ApiError> {
    let (cluster, id) = node(extensions)?;
    Ok(Identity { cluster, id, address: address(extensions) })
}

// Requests

/// A word of an enum; one that is not known here is refused, not taken for the default.
fn known<E: TryFrom<i32>>(field: &str, value: i32) -> Result<E, ApiError> {
    E::try_from(value).map_err(|_| ApiError::invalid(field, format!("{value} is no value of it")))
}

fn definition_status(value: i32) -> Result<Option<DefinitionStatus>, ApiError> {
    use v1::TaskDefinitionStatus as Wire;
    Ok(match known("status", value)? {
        Wire::Unspecified => None,
        Wire::Active => Some(DefinitionStatus::Active),
        Wire::Inactive => Some(DefinitionStatus::Inactive),
        Wire::DeleteInProgress => Some(DefinitionStatus::DeleteInProgress),
    })
}

pub fn definition_filter(request: v1::ListTaskDefinitionsRequest) -> Result<DefinitionFilter, ApiError> {
    Ok(DefinitionFilter {
        status: definition_status(request.status)?.unwrap_or_default(),
        family_prefix: request.family_prefix,
        descending: request.descending,
        page: page_request(request.max_results, request.next_token),
    })
}

pub fn family_filter(request: v1::ListTaskDefinitionFamiliesRequest) -> Result<FamilyFilter, ApiError> {
    let active = match definition_status(request.status)? {
        None => None,
        Some(DefinitionStatus::Active) => Some(true),
        Some(DefinitionStatus::Inactive) => Some(false),
        Some(_) => return Err(ApiError::invalid("status", "must be ACTIVE or INACTIVE")),
    };
    let page = page_request(request.max_results, request.next_token);
    Ok(FamilyFilter { prefix: request.family_prefix, active, page })
}

fn tags(tags: Vec<v1::Tag>) -> Result<Tags, ApiError> {
    checked(tags.into_iter().map(|tag| (tag.key, tag.value)))
        .map_err(|error| ApiError::invalid("tags", error.to_string()))
}

pub fn delete_cluster(request: &v1::DeleteClusterRequest) -> Result<ClusterName, ApiError> {
    if request.cluster.is_empty() {
        return Err(ApiError::invalid("cluster", "must be given"));
    }
    cluster_name(&request.cluster)
}

pub fn cluster_page_request(request: v1::ListClustersRequest) -> PageRequest {
    page_request(request.max_results, request.next_token)
}

pub fn tag_resource(request: v1::TagResourceRequest) -> Result<TagResource, ApiError> {
    Ok(TagResource { resource: request.resource, tags: tags(request.tags)? })
}

pub fn untag_resource(request: v1::UntagResourceRequest) -> UntagResource {
    UntagResource { resource: request.resource, keys: request.tag_keys }
}

fn target_attributes(attributes: Vec<v1::TargetAttribute>) -> Vec<TargetAttribute> {
    let own = |a: v1::TargetAttribute| TargetAttribute {
        instance: a.container_instance,
        name: a.name,
        value: a.value,
    };
    attributes.into_iter().map(own).collect()
}

pub fn put_attributes(request: v1::PutAttributesRequest) -> Result<PutAttributes, ApiError> {
    let cluster = cluster_name(&request.cluster)?;
    Ok(PutAttributes { cluster, attributes: target_attributes(request.attributes) })
}

pub fn delete_attributes(request: v1::DeleteAttributesRequest) -> Result<DeleteAttributes, ApiError> {
    let cluster = cluster_name(&request.cluster)?;
    Ok(DeleteAttributes { cluster, attributes: target_attributes(request.attributes) })
}

pub fn attribute_filter(request: v1::ListAttributesRequest) -> AttributeFilter {
    AttributeFilter {
        cluster: request.cluster,
        name: request.attribute_name,
        value: request.attribute_value,
        page: page_request(request.max_results, request.next_token),
    }
}

pub fn deregister_instance(
    request: v1::DeregisterContainerInstanceRequest,
) -> Result<DeregisterInstance, ApiError> {
    let cluster = cluster_name(&request.cluster)?;
    Ok(DeregisterInstance { cluster, instance: request.container_instance, force: request.force })
}

fn propagate_tags(value: i32) -> Result<Option<bool>, ApiError> {
    Ok(match known("propagateTags", value)? {
        v1::PropagateTags::Unspecified => None,
        v1::PropagateTags::None => Some(false),
        v1::PropagateTags::TaskDefinition => Some(true),
        v1::PropagateTags::Service => {
            return Err(ApiError::invalid(
                "propagateTags",
                "SERVICE is not supported: there are no services",
            ));
        }
    })
}

/// A `traceparent` that is not valid counts as none, as W3C has it.
pub fn run_task(request: v1::RunTaskRequest, metadata: &MetadataMap) -> Result<RunTask, ApiError> {
    let trace_parent = metadata.get(TRACEPARENT).and_then(|value| value.to_str().ok()?.parse().ok());
    if request.task_definition.is_empty() {
        return Err(ApiError::invalid("taskDefinition", "must be given"));
    }
    Ok(RunTask {
        cluster: cluster_name(&request.cluster)?,
        task_definition: request.task_definition,
        count: if request.count == 0 { 1 } else { request.count },
        group: text(request.group),
        started_by: text(request.started_by),
        client_token: text(request.client_token),
        trace_parent,
        propagate_tags: propagate_tags(request.propagate_tags)?,
        tags: tags(request.tags)?,
        silence: request.node_silence.map(silence).unwrap_or_default(),
        placement: placement(request.placement_constraints, request.placement_strategy)?,
        overrides: run_task::overrides(&request.overrides_json)?,
        queue: request
            .queue
            .map(|wire| QueueOptions { time_limit_s: wire.time_limit_s, priority: wire.priority }),
    })
}

/// ECS's JSON; empty without any.
pub fn overrides_json(task: &TaskRecord) -> String {
    let json = (!task.overrides.is_empty()).then(|| serde_json::to_string(&task.overrides));
    // Cannot fail: no value of it refuses to be written.
    json.and_then(Result::ok).unwrap_or_default()
}

/// Constraints and strategies, read.
pub fn placement(
    constraints: Vec<v1::PlacementConstraint>,
    strategies: Vec<v1::PlacementStrategy>,
) -> Result<Placement, ApiError> {
    let constraint = |wire: v1::PlacementConstraint| {
        let v1::PlacementConstraint { r#type, expression } = wire;
        ConstraintText { kind: r#type, expression }
    };
    let strategy = |wire: v1::PlacementStrategy| {
        let v1::PlacementStrategy { r#type, field, expression } = wire;
        StrategyText { kind: r#type, field, expression }
    };
    let text = PlacementText {
        constraints: constraints.into_iter().map(constraint).collect(),
        strategies: strategies.into_iter().map(strategy).collect(),
    };
    Placement::read(text).map_err(|error| ApiError::invalid(&error.field, error.problem))
}

fn silence(wanted: v1::NodeSilencePolicy) -> SilencePolicy {
    let v1::NodeSilencePolicy { lost_after_s, replace, exclusive, lease_s } = wanted;
    SilencePolicy { lost_after_s, replace, exclusive, lease_s }
}

fn wire_silence(policy: SilencePolicy) -> v1::NodeSilencePolicy {
    let SilencePolicy { lost_after_s, replace, exclusive, lease_s } = policy;
    v1::NodeSilencePolicy { lost_after_s, replace, exclusive, lease_s }
}

pub fn stop_task(request: v1::StopTaskRequest) -> Result<StopTask, ApiError> {
    let cluster = cluster_name(&request.cluster)?;
    Ok(StopTask { cluster, task: request.task, reason: text(request.reason), force: request.force })
}

pub fn orphans(orphans: Vec<Orphan>) -> v1::ListOrphansResponse {
    let orphans = orphans.into_iter().map(|orphan| v1::Orphan {
        task_id: orphan.task.to_string(),
        cluster: orphan.instance.cluster.to_string(),
        container_instance_id: orphan.instance.id.to_string(),
        container_instance_name: orphan.instance.name.clone(),
        task_definition: orphan.facts.definition.map(|name| name.to_string()).unwrap_or_default(),
        last_status: orphan.facts.last.map_or(v1::TaskStatus::Unspecified, task_status).into(),
        resources: Some(resources(&orphan.facts.resources)),
    });
    v1::ListOrphansResponse { orphans: orphans.collect() }
}

pub fn task_filter(request: v1::ListTasksRequest) -> Result<TaskFilter, ApiError> {
    Ok(TaskFilter {
        desired_status: match known("desiredStatus", request.desired_status)? {
            v1::DesiredStatus::Stopped => DesiredStatus::Stopped,
            v1::DesiredStatus::Running | v1::DesiredStatus::Unspecified => DesiredStatus::Running,
        },
        cluster: request.cluster,
        container_instance: request.container_instance,
        family: request.family,
        started_by: request.started_by,
        queued: request.queued,
        page: page_request(request.max_results, request.next_token),
    })
}

/// An expression of the cluster query language; nothing is asked when the text is empty.
fn query(field: &str, text: &str) -> Result<Option<Expression>, ApiError> {
    let read = (!text.is_empty()).then(|| Expression::parse(text));
    read.transpose().map_err(|error| ApiError::invalid(field, error.to_string()))
}

pub fn instance_filter(request: v1::ListContainerInstancesRequest) -> Result<InstanceFilter, ApiError> {
    use v1::ContainerInstanceStatus as Wire;
    Ok(InstanceFilter {
        status: match known("status", request.status)? {
            Wire::Unspecified => None,
            Wire::Registering => Some(ContainerInstanceStatus::Registering),
            Wire::RegistrationFailed => Some(ContainerInstanceStatus::RegistrationFailed),
            Wire::Active => Some(ContainerInstanceStatus::Active),
            Wire::Draining => Some(ContainerInstanceStatus::Draining),
            Wire::Deregistering => Some(ContainerInstanceStatus::Deregistering),
            Wire::Inactive => Some(ContainerInstanceStatus::Inactive),
        },
        query: query("filter", &request.filter)?,
        cluster: request.cluster,
        page: page_request(request.max_results, request.next_token),
    })
}

pub fn update_instances_state(
    request: v1::UpdateContainerInstancesStateRequest,
) -> Result<UpdateInstancesState, ApiError> {
    let draining = match known("status", request.status)? {
        v1::ContainerInstanceStatus::Active => false,
        v1::ContainerInstanceStatus::Draining => true,
        _ => return Err(ApiError::invalid("status", "must be ACTIVE or DRAINING")),
    };
    Ok(UpdateInstancesState {
        cluster: cluster_name(&request.cluster)?,
        instances: request.container_instances,
        draining,
        reason: text(request.reason),
        deadline_unix_ms: u64::try_from(request.deadline_unix_ms).ok().filter(|at| *at > 0),
        stop_tasks: request.stop_tasks,
    })
}

pub fn token_request(request: v1::CreateJoinTokenRequest) -> Result<TokenRequest, ApiError> {
    Ok(TokenRequest {
        cluster: cluster_name(&request.cluster)?,
        time_to_live_s: request.time_to_live_s,
        attributes: request.attributes.into_iter().map(|a| (a.name, a.value)).collect(),
    })
}

pub fn logs_request(request: v1::StreamTaskLogsRequest) -> LogsRequest {
    LogsRequest {
        cluster: request.cluster,
        task: request.task,
        container: request.container,
        follow: request.follow,
        tail_lines: request.tail_lines,
        since_unix_ms: request.since_unix_ms,
    }
}

/// Who calls, for the audit.
pub fn asker(extensions: &Extensions) -> Asker {
    Asker { user: caller_name(extensions), address: address(extensions).to_string() }
}

pub fn pause_task(asker: Asker, cluster: &str, task: String, paused: bool) -> Result<PauseTask, ApiError> {
    Ok(PauseTask { asker, cluster: cluster_name(cluster)?, task, paused })
}

pub fn update_task(asker: Asker, request: v1::UpdateTaskRequest) -> Result<UpdateTask, ApiError> {
    Ok(UpdateTask {
        asker,
        cluster: cluster_name(&request.cluster)?,
        task: request.task,
        container: request.container,
        cpu_units: request.cpu_units,
        memory_mib: request.memory_mib,
    })
}

pub fn stats_request(request: v1::WatchStatsRequest) -> StatsRequest {
    StatsRequest { cluster: request.cluster, task: request.task, interval_ms: request.interval_ms }
}

pub fn images_request(request: v1::OrderImagesRequest) -> Result<ImagesRequest, ApiError> {
    use v1::image_order::Order;
    let v1::OrderImagesRequest { cluster, container_instances, all, order, task_definition } = request;
    let order = order.and_then(|order| order.order);
    let work = match order.ok_or_else(|| ApiError::invalid("order", "say pull, list or prune"))? {
        Order::Pull(v1::ImagePull { images, pull_behavior }) => {
            ImageWork::Pull { images, pull_behavior, task_definition }
        }
        Order::List(_) => ImageWork::List,
        Order::Prune(_) => ImageWork::Prune,
    };
    Ok(ImagesRequest { cluster, instances: container_instances, all, work })
}

/// What is said of one node's images.
pub fn node_images(says: NodeSays) -> v1::NodeImageReport {
    use v1::node_image_report::Said;
    let said = match says.event {
        NodeEvent::Concerned => None,
        NodeEvent::Report(report) => Some(Said::Report(report)),
        NodeEvent::Ended(Ok(())) => Some(Said::Ended(v1::ImageOrderEnded::default())),
        NodeEvent::Ended(Err(error)) => Some(Said::Ended(v1::ImageOrderEnded {
            reason: error.mapping().reason.to_owned(),
            message: error.to_string(),
        })),
    };
    v1::NodeImageReport { container_instance_id: says.instance.to_string(), name: says.name, said }
}

pub fn audit_filter(request: v1::ListAuditRequest) -> AuditFilter {
    AuditFilter {
        cluster: request.cluster,
        task: request.task,
        user: request.user,
        page: page_request(request.max_results, request.next_token),
    }
}

pub fn watch_request(request: v1::WatchEventsRequest) -> WatchRequest {
    WatchRequest {
        cluster: request.cluster,
        after_sequence: request.after_sequence,
        from_oldest: request.from_oldest,
        incarnation: request.incarnation,
    }
}

// Answers

pub fn definition(record: &DefinitionRecord) -> v1::TaskDefinition {
    let status = match DefinitionStatus::of(record) {
        DefinitionStatus::Active => v1::TaskDefinitionStatus::Active,
        DefinitionStatus::Inactive => v1::TaskDefinitionStatus::Inactive,
        DefinitionStatus::DeleteInProgress => v1::TaskDefinitionStatus::DeleteInProgress,
    };
    let requires = required(&record.definition).into_iter();
    v1::TaskDefinition {
        family: record.id.family.to_string(),
        revision: record.id.revision,
        status: status.into(),
        json: input::to_json(&record.definition),
        registered_at_unix_ms: ms(record.registered_at_unix_ms),
        registered_by: record.registered_by.clone(),
        deregistered_at_unix_ms: ms_or_zero(record.deregistered_at_unix_ms),
        image_digests: image_digests(&record.image_digests),
        tags: wire_tags(&record.tags),
        requires_attributes: requires.map(|name| v1::Attribute { name, ..Default::default() }).collect(),
    }
}

/// Tags by key.
pub fn wire_tags(tags: &Tags) -> Vec<v1::Tag> {
    tags.iter().map(|(key, value)| v1::Tag { key: key.clone(), value: value.clone() }).collect()
}

pub fn deleted_definitions(deleted: DeletedDefinitions) -> v1::DeleteTaskDefinitionsResponse {
    v1::DeleteTaskDefinitionsResponse {
        task_definitions: deleted.definitions.iter().map(|record| definition(record)).collect(),
        failures: deleted.failures.into_iter().map(failure).collect(),
    }
}

pub fn family_page(page: Page) -> v1::ListTaskDefinitionFamiliesResponse {
    v1::ListTaskDefinitionFamiliesResponse { families: page.items, next_token: page.next_token }
}

pub fn wire_attributes(attributes: Vec<TargetAttribute>) -> Vec<v1::TargetAttribute> {
    let wire = |a: TargetAttribute| v1::TargetAttribute {
        container_instance: a.instance,
        name: a.name,
        value: a.value,
    };
    attributes.into_iter().map(wire).collect()
}

pub fn attribute_page(page: AttributePage) -> v1::ListAttributesResponse {
    v1::ListAttributesResponse { attributes: wire_attributes(page.attributes), next_token: page.next_token }
}

fn attribute(name: &str, value: &str, source: AttributeSource) -> v1::Attribute {
    let source = match source {
        AttributeSource::Node => v1::AttributeSource::Node,
        AttributeSource::Token => v1::AttributeSource::Token,
        AttributeSource::Operator => v1::AttributeSource::Operator,
    };
    v1::Attribute { name: name.to_owned(), value: value.to_owned(), source: source.into() }
}

fn capacity_type(word: Option<&str>) -> i32 {
    match word {
        Some("spot") => v1::CapacityType::Spot.into(),
        Some("reserved") => v1::CapacityType::Reserved.into(),
        _ => v1::CapacityType::OnDemand.into(),
    }
}

/// Digests by container, on the wire.
pub fn image_digests(digests: &ImageDigests) -> HashMap<String, String> {
    digests.iter().map(|(name, digest)| (name.to_string(), digest.to_string())).collect()
}

pub fn definition_page(page: Page) -> v1::ListTaskDefinitionsResponse {
    v1::ListTaskDefinitionsResponse { task_definitions: page.items, next_token: page.next_token }
}

pub fn run_task_response(answer: RunTaskAnswer) -> v1::RunTaskResponse {
    v1::RunTaskResponse {
        tasks: answer.tasks.iter().map(|record| task(record)).collect(),
        failures: answer.failures.into_iter().map(failure).collect(),
        ..Default::default()
    }
}

fn failure(failure: PlacementFailure) -> v1::Failure {
    v1::Failure { id: failure.id, reason: failure.reason, detail: failure.detail }
}

pub fn task_page(page: Page) -> v1::ListTasksResponse {
    v1::ListTasksResponse { task_ids: page.items, next_token: page.next_token }
}

pub fn described_tasks(described: Described<DescribedTask>) -> v1::DescribeTasksResponse {
    v1::DescribeTasksResponse {
        tasks: described.found.iter().map(described_task).collect(),
        failures: described.failures.into_iter().map(failure).collect(),
    }
}

fn described_task(described: &DescribedTask) -> v1::Task {
    v1::Task { waits: described.waits.iter().map(wait).collect(), ..task(&described.task) }
}

pub fn instance_page(page: Page) -> v1::ListContainerInstancesResponse {
    v1::ListContainerInstancesResponse { container_instance_ids: page.items, next_token: page.next_token }
}

pub fn updated_instances(updated: Described<InstanceSnapshot>) -> v1::UpdateContainerInstancesStateResponse {
    v1::UpdateContainerInstancesStateResponse {
        container_instances: updated.found.iter().map(instance).collect(),
        failures: updated.failures.into_iter().map(failure).collect(),
    }
}

pub fn described_instances(described: Described<InstanceSnapshot>) -> v1::DescribeContainerInstancesResponse {
    v1::DescribeContainerInstancesResponse {
        container_instances: described.found.iter().map(instance).collect(),
        failures: described.failures.into_iter().map(failure).collect(),
    }
}

pub fn audit_page(page: AuditPage) -> v1::ListAuditResponse {
    let records = page.records.iter().map(|record| audit_record(record)).collect();
    v1::ListAuditResponse { records, next_token: page.next_token }
}

fn audit_record(record: &AuditRecord) -> v1::AuditRecord {
    let outcome = record.outcome.as_ref();
    v1::AuditRecord {
        sequence: record.sequence,
        user: record.user.clone(),
        address: record.address.clone(),
        action: record.action.clone(),
        cluster: record.cluster.clone(),
        task_id: record.task.clone(),
        container: record.container.clone(),
        container_instance_id: record.instance.clone(),
        command: record.command.clone(),
        started_at_unix_ms: ms(record.started_at_unix_ms),
        ended_at_unix_ms: ms_or_zero(outcome.map(|outcome| outcome.ended_at_unix_ms)),
        result: outcome.map(|outcome| outcome.result.clone()).unwrap_or_default(),
        bytes_in: outcome.map_or(0, |outcome| outcome.bytes_in),
        bytes_out: outcome.map_or(0, |outcome| outcome.bytes_out),
    }
}

pub fn new_token(token: NewToken) -> v1::CreateJoinTokenResponse {
    v1::CreateJoinTokenResponse { token: token.text, expires_at_unix_ms: ms(token.expires_at_unix_ms) }
}

pub fn joined(joined: Joined) -> v1::JoinResponse {
    v1::JoinResponse {
        container_instance_id: joined.instance.id.to_string(),
        cluster: joined.instance.cluster.to_string(),
        certificate_pem: joined.certificate_pem,
        ca_certificate_pem: joined.ca_certificate_pem,
    }
}

pub fn logs(lines: LogBatch) -> v1::StreamTaskLogsResponse {
    v1::StreamTaskLogsResponse { lines }
}

pub fn event(event: &EventRecord, incarnation: &str) -> v1::Event {
    use v1::event::Subject;
    let subject = match &event.subject {
        EventSubject::Task(record) => {
            Subject::TaskStateChange(v1::TaskStateChange { task: Some(task(record)) })
        }
        EventSubject::Instance(snapshot) => {
            let container_instance = Some(instance(snapshot));
            Subject::ContainerInstanceStateChange(v1::ContainerInstanceStateChange { container_instance })
        }
        EventSubject::Definition(record) => {
            let task_definition = Some(definition(record));
            Subject::TaskDefinitionStateChange(v1::TaskDefinitionStateChange { task_definition })
        }
        EventSubject::Cluster(record) => {
            let cluster = Some(cluster::cluster_record(record));
            Subject::ClusterStateChange(v1::ClusterStateChange { cluster })
        }
        EventSubject::Service(snapshot) => {
            let service = Some(service::service(snapshot));
            Subject::ServiceStateChange(v1::ServiceStateChange { service })
        }
        EventSubject::ServiceAction(record) => {
            let (service_name, event) = (record.service.to_string(), Some(service::service_event(record)));
            Subject::ServiceAction(v1::ServiceAction { service_name, event })
        }
        EventSubject::Deleted { kind, id } => {
            let kind = match kind {
                RecordKind::Task => v1::RecordKind::Task,
                RecordKind::Instance => v1::RecordKind::ContainerInstance,
                RecordKind::Definition => v1::RecordKind::TaskDefinition,
                RecordKind::Cluster => v1::RecordKind::Cluster,
                RecordKind::Service => v1::RecordKind::Service,
            };
            Subject::RecordDeleted(v1::RecordDeleted { kind: kind.into(), id: id.clone() })
        }
    };
    v1::Event {
        sequence: event.sequence,
        incarnation: incarnation.to_owned(),
        time_unix_ms: ms(event.time_unix_ms),
        cluster: event.cluster.clone(),
        subject: Some(subject),
    }
}

pub fn task(record: &TaskRecord) -> v1::Task {
    let times = &record.times;
    v1::Task {
        task_id: record.id.to_string(),
        cluster: record.cluster.to_string(),
        task_definition: record.definition.to_string(),
        container_instance_id: match record.instance == queue::nowhere() {
            true => String::new(),
            false => record.instance.to_string(),
        },
        desired_status: desired_status(record.desired),
        last_status: task_status(record.last).into(),
        stop_code: stop_code(record.stop_code),
        stopped_reason: record.stopped_reason.clone().unwrap_or_default(),
        waiting_reason: record.waiting_reason.as_deref().unwrap_or_default().to_owned(),
        waits: record.waits.iter().map(wait).collect(),
        group: record.group.clone(),
        started_by: record.started_by.clone().unwrap_or_default(),
        containers: record.containers.iter().map(container).collect(),
        version: record.version,
        cpu_units: record.resources.cpu_units,
        memory_mib: record.resources.memory_mib,
        created_at_unix_ms: ms(times.created_at),
        pull_started_at_unix_ms: ms_or_zero(times.pull_started_at),
        pull_stopped_at_unix_ms: ms_or_zero(times.pull_stopped_at),
        started_at_unix_ms: ms_or_zero(times.started_at),
        stopping_at_unix_ms: ms_or_zero(times.stopping_at),
        execution_stopped_at_unix_ms: ms_or_zero(times.execution_stopped_at),
        stopped_at_unix_ms: ms_or_zero(times.stopped_at),
        health_status: health_status(record.health()).into(),
        paused: record.paused,
        container_resources: container_resources(record),
        paused_on_node: record.paused_on_node,
        generation: record.generation.0,
        settled_generation: record.settled.0,
        refusal: record.refusal.as_deref().unwrap_or_default().to_owned(),
        tags: wire_tags(&record.tags),
        node_silence: record.silence.map(wire_silence),
        replaces: record.replaces.as_ref().map(ToString::to_string).unwrap_or_default(),
        replaced_by: record.replaced_by.as_ref().map(ToString::to_string).unwrap_or_default(),
        queue: record
            .queue
            .map(|queue| v1::QueueEntry { priority: queue.priority, until_unix_ms: ms(queue.until_unix_ms) }),
    }
}

fn wait(wait: &Wait) -> v1::Wait {
    v1::Wait {
        kind: wait.kind.to_string(),
        container: wait.container.as_ref().map(ToString::to_string).unwrap_or_default(),
        what: wait.what.clone(),
        since_unix_ms: ms(wait.since_unix_ms),
        until_unix_ms: ms_or_zero(wait.until_unix_ms),
        ends_by: wait.ends_by.clone(),
    }
}

pub fn task_journal(journal: TaskJournal) -> v1::ListTaskEventsResponse {
    let events = journal.lines.into_iter().map(|(from_node, event)| v1::TaskEvent {
        time_unix_ms: ms(event.time_unix_ms),
        kind: event.kind.to_string(),
        container: event.container.map(|name| name.to_string()).unwrap_or_default(),
        text: event.text,
        took_ms: event.took_ms.unwrap_or_default(),
        from_node,
    });
    let node_missing = journal.node_missing.unwrap_or_default();
    v1::ListTaskEventsResponse { events: events.collect(), node_missing }
}

/// A status in the words of the contract.
pub fn task_status(status: TaskStatus) -> v1::TaskStatus {
    match status {
        TaskStatus::Provisioning => v1::TaskStatus::Provisioning,
        TaskStatus::Pending => v1::TaskStatus::Pending,
        TaskStatus::Activating => v1::TaskStatus::Activating,
        TaskStatus::Running => v1::TaskStatus::Running,
        TaskStatus::Deactivating => v1::TaskStatus::Deactivating,
        TaskStatus::Stopping => v1::TaskStatus::Stopping,
        TaskStatus::Deprovisioning => v1::TaskStatus::Deprovisioning,
        TaskStatus::Stopped => v1::TaskStatus::Stopped,
    }
}

fn container(record: &ContainerRecord) -> v1::Container {
    let status = match record.status {
        ContainerStatus::Pending => v1::ContainerStatus::Pending,
        ContainerStatus::Running => v1::ContainerStatus::Running,
        ContainerStatus::Stopped => v1::ContainerStatus::Stopped,
    };
    v1::Container {
        name: record.name.to_string(),
        image: record.image.to_string(),
        last_status: status.into(),
        exit: record.exit.as_deref().map(exit),
        exit_code: record.exit.as_ref().map(|exit| exit.status.exit_code()),
        reason: record.reason.clone().unwrap_or_default(),
        pid: record.pid.unwrap_or_default(),
        image_digest: record.image_digest.as_deref().unwrap_or_default().to_owned(),
        address: record.address.as_deref().unwrap_or_default().to_owned(),
        network_bindings: record.network_bindings.iter().map(binding).collect(),
        limits: Some(limits(&record.limits)),
        essential: record.essential,
        health: record.health.as_deref().map(health),
        restart_count: record.restart_count,
        last_exit: record.last_exit.as_deref().map(exit),
        devices: record.devices.iter().map(device).collect(),
    }
}

fn device(device: &GrantedDevice) -> v1::GrantedDevice {
    v1::GrantedDevice { kind: device.kind.clone(), id: device.id.clone() }
}

fn health_status(status: HealthStatus) -> v1::HealthStatus {
    match status {
        HealthStatus::Unknown => v1::HealthStatus::Unknown,
        HealthStatus::Healthy => v1::HealthStatus::Healthy,
        HealthStatus::Unhealthy => v1::HealthStatus::Unhealthy,
    }
}

fn health(health: &ContainerHealth) -> v1::ContainerHealth {
    v1::ContainerHealth {
        status: health_status(health.status).into(),
        since_unix_ms: ms(health.since_unix_ms),
        failing_streak: health.failing_streak,
        last_end: health.last_end.clone(),
        last_output: health.last_output.clone(),
    }
}

fn exit(exit: &ContainerExit) -> v1::ContainerExit {
    let status = match exit.status {
        ExitStatus::Exited(code) => v1::container_exit::Status::Exited(code),
        ExitStatus::Signaled(signal) => v1::container_exit::Status::Signaled(signal),
    };
    v1::ContainerExit {
        status: Some(status),
        oom_killed: exit.oom_killed,
        finished_at_unix_ms: ms(exit.finished_at_unix_ms),
    }
}

fn binding(binding: &NetworkBinding) -> v1::NetworkBinding {
    let protocol = match binding.protocol {
        TransportProtocol::Tcp => v1::TransportProtocol::Tcp,
        TransportProtocol::Udp => v1::TransportProtocol::Udp,
    };
    v1::NetworkBinding {
        bind_ip: binding.bind_ip.clone(),
        container_port: u32::from(binding.container_port),
        host_port: u32::from(binding.host_port),
        protocol: protocol.into(),
    }
}

fn limits(limits: &KernelLimits) -> v1::KernelLimits {
    v1::KernelLimits {
        cpu_quota_us: limits.cpu_quota_us,
        cpu_period_us: limits.cpu_period_us,
        cpu_weight: limits.cpu_weight,
        memory_max_bytes: limits.memory_max_bytes,
        pids_max: limits.pids_max,
    }
}
