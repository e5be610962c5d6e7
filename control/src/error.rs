//! Why a request was refused, and the one place where that becomes a gRPC status.
//! In: an `ApiError` from the core or a handler. Out: code, google.rpc.ErrorInfo, a sentence.
//! Never: lets a cause of ours (store, TLS) leak beyond words that tell the caller what to do.
//! Source of the ECS names: Amazon ECS API reference, "Common Errors" and each action's "Errors".

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// The `domain` of every google.rpc.ErrorInfo.
pub const ERROR_DOMAIN: &str = "lighter";

/// Why a request failed; one variant for each machine-readable reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    #[error("{field}: {message}")]
    InvalidParameter { field: String, message: String },
    #[error("{message}")]
    InvalidTaskDefinition { field: String, message: String },
    #[error("there is no cluster {cluster:?}")]
    ClusterNotFound { cluster: String },
    #[error("cluster {cluster:?} is INACTIVE; create it again")]
    ClusterInactive { cluster: String },
    #[error(
        "The Cluster cannot be deleted while Container Instances are active or draining: {cluster} has {count}"
    )]
    ClusterContainsInstances { cluster: String, count: u32 },
    #[error("The Cluster cannot be deleted while Tasks are active: {cluster} has {count}")]
    ClusterContainsTasks { cluster: String, count: u32 },
    #[error(
        "Found running tasks on the instance: {instance} has {count}; stop them, or deregister with force"
    )]
    InstanceHasTasks { instance: String, count: usize },
    #[error(
        "The specified target wasn't found: there is no active container instance {target:?} in cluster {cluster}"
    )]
    TargetNotFound { target: String, cluster: String },
    #[error("{wanted} are wanted where quotas.{setting} allows {limit}; raise it in control.toml")]
    QuotaExceeded { setting: &'static str, wanted: usize, limit: u32 },
    #[error(
        "Rate exceeded: rate_limits.{setting} of control.toml allows {caller} {per_second} calls a second and \
         {burst} at once; try again in {} ms", retry_after.as_millis().max(1)
    )]
    Throttled { setting: &'static str, caller: String, per_second: u32, burst: u32, retry_after: Duration },
    #[error("there is no task definition {name:?}")]
    TaskDefinitionNotFound { name: String },
    #[error("task definition {name} is INACTIVE; register a new revision")]
    TaskDefinitionInactive { name: String },
    #[error("there is no task {task:?} in cluster {cluster}")]
    TaskNotFound { task: String, cluster: String },
    #[error("there is no orphan {task:?} in cluster {cluster}")]
    OrphanNotFound { task: String, cluster: String },
    #[error("the orphan runs by another definition than the {name} of this store; it can only be stopped")]
    OrphanDefinitionDiffers { name: String },
    #[error("{text:?} is the beginning of {count} ids; give more digits")]
    AmbiguousPrefix { field: &'static str, text: String, count: usize },
    #[error("there is no container instance {name:?} in cluster {cluster}")]
    ContainerInstanceNotFound { name: String, cluster: String },
    #[error("container {container:?} is not part of task {task}")]
    ContainerNotFound { container: String, task: String },
    #[error("client token {token:?} was used with another request; its tasks are {tasks}")]
    ClientTokenConflict { token: String, tasks: String },
    #[error("this call needs an identity; use the administrator key, or the Unix socket as root")]
    Unauthenticated,
    #[error("{caller} may not call {method}")]
    AccessDenied { caller: String, method: String },
    #[error("{method} is not served here; ask the agent on its Unix socket")]
    NotServedHere { method: String },
    #[error("there is no service {service:?} in cluster {cluster}; see `lighter service ls`")]
    ServiceNotFound { service: String, cluster: String },
    #[error("service {service:?} is being deleted or was")]
    ServiceNotActive { service: String },
    #[error("Creation of service was not idempotent: {service:?} exists; update it instead")]
    ServiceExists { service: String },
    #[error("Unable to Start a service that is still Draining: {service:?}; wait until it is INACTIVE")]
    ServiceDraining { service: String },
    #[error("service {service:?} was changed: it is at version {version}, not {expected}; look at it again")]
    ServiceChanged { service: String, expected: u64, version: u64 },
    #[error(
        "The service cannot be stopped while it is scaled above 0: {service:?} is at {desired}; use force"
    )]
    ServiceScaled { service: String, desired: u32 },
    #[error("service {service:?} has no such deployment: {wanted}")]
    NoDeployment { service: String, wanted: &'static str },
    #[error("cluster {cluster} has {count} services; delete them first")]
    ClusterContainsServices { cluster: String, count: usize },
    #[error("the join token is not one of this control plane; make another with `lighter token create`")]
    JoinTokenInvalid,
    #[error("the join token expired; make another with `lighter token create`")]
    JoinTokenExpired,
    #[error("the join token was used already; make another with `lighter token create`")]
    JoinTokenUsed,
    #[error(
        "the name {name:?} belongs to container instance {holder}, which is connected; \
         join under another name or stop that agent first"
    )]
    InstanceNameTaken { name: String, holder: String },
    #[error("container instance {instance} is {status}; join again with a new token")]
    InstanceNotActive { instance: String, status: String },
    #[error(
        "container instance {instance} has a session from {holder}; the one from {refused} is \
         refused until that one has been silent for three heartbeats"
    )]
    SessionExists { instance: String, holder: SocketAddrText, refused: SocketAddrText },
    #[error("another session of the same agent has taken over")]
    SessionReplaced,
    #[error("nothing was heard for three heartbeats")]
    SessionSilent,
    #[error(
        "event numbers of store {asked} mean nothing in store {incarnation}, which took its place: list the state and watch from now on"
    )]
    EventsOfAnotherStore { asked: String, incarnation: String },
    #[error("cut off for reading too slowly; connect again")]
    SessionTooSlow,
    #[error("the request did not come in time")]
    StrangerTooSlow,
    #[error("protocol {min} to {max} is spoken there, {our_min} to {our_max} here; upgrade the older side")]
    ProtocolMismatch { min: u32, max: u32, our_min: u32, our_max: u32 },
    #[error("protocol error: {message}")]
    ProtocolViolation { message: String },
    #[error("task {task} is not of container instance {instance}")]
    ForeignTask { task: String, instance: String },
    #[error("there is no log stream {stream:?}")]
    LogStreamNotFound { stream: String },
    #[error(
        "container instance {instance}, which has the task's logs, is not connected; try again when it is"
    )]
    NodeNotConnected { instance: String },
    #[error("container instance {instance} did not answer within {seconds} s")]
    NodeDidNotAnswer { instance: String, seconds: u64 },
    #[error("the logs could not be read on the node: {message}")]
    LogsUnreadable { message: String },
    #[error("there is no stream {stream:?}")]
    StreamNotFound { stream: String },
    #[error("{who} has {limit} open streams, which is the most; end one of them first")]
    StreamLimit { who: String, limit: usize },
    #[error("task {task} is {status}, not RUNNING; `lighter ps` shows what runs")]
    TaskNotRunning { task: String, status: String },
    #[error("the agent of container instance {instance} (version {version}) is too old for this; upgrade it")]
    AgentTooOld { instance: String, version: String },
    #[error("container instance {instance} has no room for that ({reason}); see `lighter node ls`")]
    NoRoom { instance: String, reason: String },
    #[error("{message}")]
    StreamFailed { fault: StreamFault, message: String },
    #[error("the caller went away")]
    CallerGone,
    #[error("the node's side of the stream broke off; the node or its agent may have gone away")]
    StreamBroken,
    #[error("event {after} is too old; the oldest kept is {oldest}: list the state and watch from now on")]
    EventsTooOld { after: u64, oldest: u64 },
    #[error("cut off for reading too slowly; the last event sent was {last}: watch again after it")]
    WatcherTooSlow { last: u64 },
    #[error("the state was reloaded from the store; connect again")]
    StateReloaded,
    #[error(
        "the outcome is not known because the store failed; ask for the state, or repeat with a clientToken"
    )]
    OutcomeUnknown,
    #[error("nothing was done because the store failed; try again")]
    StoreUnavailable,
    #[error("the store is full: no new work is accepted, what runs goes on and can be stopped; {advice}")]
    StoreFull { advice: &'static str },
    #[error("this control plane does not lead; {}", leader_words(leader))]
    NotLeader { leader: String },
    #[error("the control plane is shutting down; try again")]
    ShuttingDown,
    #[error("internal error: {message}")]
    Internal { message: String },
}

fn leader_words(leader: &str) -> String {
    if leader.is_empty() { "try again".to_owned() } else { format!("{leader} does") }
}

/// Why a node could not do what a stream was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamFault {
    TaskNotRunning,
    ContainerNotRunning,
    ContainerNotFound,
    CommandNotFound,
    CommandNotExecutable,
    UserNotFound,
    PathNotFound,
    ImageNotPulled,
    NotSupported,
    Invalid,
    Other,
}

impl StreamFault {
    /// The fault of a node's word; a word of a newer agent is `Other`.
    pub fn from_reason(reason: &str) -> Self {
        match reason {
            "TASK_NOT_RUNNING" => Self::TaskNotRunning,
            "CONTAINER_NOT_RUNNING" => Self::ContainerNotRunning,
            "CONTAINER_NOT_FOUND" => Self::ContainerNotFound,
            "COMMAND_NOT_FOUND" => Self::CommandNotFound,
            "COMMAND_NOT_EXECUTABLE" => Self::CommandNotExecutable,
            "USER_NOT_FOUND" => Self::UserNotFound,
            "PATH_NOT_FOUND" => Self::PathNotFound,
            "IMAGE_NOT_PULLED" => Self::ImageNotPulled,
            "NOT_SUPPORTED" => Self::NotSupported,
            "INVALID" => Self::Invalid,
            _ => Self::Other,
        }
    }

    fn row(self) -> (Code, &'static str, &'static str) {
        match self {
            Self::TaskNotRunning => (Code::FailedPrecondition, "TASK_NOT_RUNNING", CLIENT),
            Self::ContainerNotRunning => (Code::FailedPrecondition, "CONTAINER_NOT_RUNNING", CLIENT),
            Self::ContainerNotFound => (Code::NotFound, "CONTAINER_NOT_FOUND", INVALID),
            Self::CommandNotFound => (Code::NotFound, "COMMAND_NOT_FOUND", CLIENT),
            Self::CommandNotExecutable => (Code::FailedPrecondition, "COMMAND_NOT_EXECUTABLE", CLIENT),
            Self::UserNotFound => (Code::NotFound, "USER_NOT_FOUND", CLIENT),
            Self::PathNotFound => (Code::NotFound, "PATH_NOT_FOUND", CLIENT),
            Self::ImageNotPulled => (Code::FailedPrecondition, "IMAGE_NOT_PULLED", CLIENT),
            Self::NotSupported => (Code::Unimplemented, "NOT_SUPPORTED", CLIENT),
            Self::Invalid => (Code::InvalidArgument, "INVALID_PARAMETER", INVALID),
            Self::Other => (Code::Unknown, "STREAM_FAILED", SERVER),
        }
    }
}

/// An address as shown in a message; "a Unix socket" where there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketAddrText(pub Option<SocketAddr>);

impl std::fmt::Display for SocketAddrText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(address) => address.fmt(f),
            None => f.write_str("a Unix socket"),
        }
    }
}

/// What a client's program needs to know of an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mapping {
    pub code: Code,
    /// UPPER_SNAKE, stable.
    pub reason: &'static str,
    /// The ECS exception.
    pub ecs: &'static str,
}

const CLIENT: &str = "ClientException";
const SERVER: &str = "ServerException";
const INVALID: &str = "InvalidParameterException";
const DENIED: &str = "AccessDeniedException";
const LIMIT: &str = "LimitExceededException";
const CONFLICT: &str = "ConflictException";
const REFUSED: Code = Code::FailedPrecondition;
const MISSING: Code = Code::NotFound;
const EXHAUSTED: Code = Code::ResourceExhausted;

impl ApiError {
    /// A parameter that breaks a rule; `field` as ECS spells it.
    pub fn invalid(field: &str, message: impl Into<String>) -> Self {
        Self::InvalidParameter { field: field.to_owned(), message: message.into() }
    }

    /// The one mapping from errors to codes; a variant without a row does not compile.
    pub fn mapping(&self) -> Mapping {
        let (code, reason, ecs) = match self {
            Self::InvalidParameter { .. } => (Code::InvalidArgument, "INVALID_PARAMETER", INVALID),
            Self::InvalidTaskDefinition { .. } => (Code::InvalidArgument, "INVALID_TASK_DEFINITION", CLIENT),
            Self::ClusterNotFound { .. } => (MISSING, "CLUSTER_NOT_FOUND", "ClusterNotFoundException"),
            Self::ClusterInactive { .. } => (MISSING, "CLUSTER_INACTIVE", "ClusterNotFoundException"),
            Self::ClusterContainsInstances { .. }
            | Self::ClusterContainsTasks { .. }
            | Self::ClusterContainsServices { .. } => self.cluster_contains(),
            Self::ServiceNotFound { .. } => (MISSING, "SERVICE_NOT_FOUND", "ServiceNotFoundException"),
            Self::ServiceNotActive { .. } => (REFUSED, "SERVICE_NOT_ACTIVE", "ServiceNotActiveException"),
            Self::ServiceExists { .. } => (Code::AlreadyExists, "SERVICE_EXISTS", INVALID),
            Self::ServiceDraining { .. } => (REFUSED, "SERVICE_DRAINING", INVALID),
            Self::ServiceChanged { .. } => (Code::Aborted, "SERVICE_CHANGED", CONFLICT),
            Self::ServiceScaled { .. } => (REFUSED, "SERVICE_SCALED", INVALID),
            Self::NoDeployment { .. } => (REFUSED, "NO_DEPLOYMENT", CONFLICT),
            Self::InstanceHasTasks { .. } => (REFUSED, "CONTAINER_INSTANCE_HAS_TASKS", INVALID),
            Self::TargetNotFound { .. } => (MISSING, "TARGET_NOT_FOUND", "TargetNotFoundException"),
            Self::QuotaExceeded { setting, .. } => (EXHAUSTED, "QUOTA_EXCEEDED", quota(setting)),
            Self::Throttled { .. } => (EXHAUSTED, "THROTTLED", "ThrottlingException"),
            Self::TaskDefinitionNotFound { .. } => (MISSING, "TASK_DEFINITION_NOT_FOUND", CLIENT),
            Self::TaskDefinitionInactive { .. } => (REFUSED, "TASK_DEFINITION_INACTIVE", CLIENT),
            Self::OrphanNotFound { .. } => (MISSING, "ORPHAN_NOT_FOUND", INVALID),
            Self::OrphanDefinitionDiffers { .. } => (REFUSED, "ORPHAN_DEFINITION_DIFFERS", CLIENT),
            Self::TaskNotFound { .. } => (MISSING, "TASK_NOT_FOUND", INVALID),
            Self::AmbiguousPrefix { .. } => (Code::InvalidArgument, "AMBIGUOUS_PREFIX", INVALID),
            Self::ContainerInstanceNotFound { .. } => (MISSING, "CONTAINER_INSTANCE_NOT_FOUND", INVALID),
            Self::ContainerNotFound { .. } => (MISSING, "CONTAINER_NOT_FOUND", INVALID),
            Self::ClientTokenConflict { .. } => (Code::AlreadyExists, "CLIENT_TOKEN_CONFLICT", CONFLICT),
            Self::Unauthenticated => (Code::Unauthenticated, "UNAUTHENTICATED", DENIED),
            Self::AccessDenied { .. } => (Code::PermissionDenied, "ACCESS_DENIED", DENIED),
            Self::NotServedHere { .. } => (Code::Unimplemented, "NOT_SERVED_HERE", CLIENT),
            Self::JoinTokenInvalid => (Code::Unauthenticated, "JOIN_TOKEN_INVALID", DENIED),
            Self::JoinTokenExpired => (Code::Unauthenticated, "JOIN_TOKEN_EXPIRED", DENIED),
            Self::JoinTokenUsed => (Code::Unauthenticated, "JOIN_TOKEN_USED", DENIED),
            Self::InstanceNameTaken { .. } => (Code::AlreadyExists, "INSTANCE_NAME_TAKEN", CLIENT),
            Self::InstanceNotActive { .. } => (Code::PermissionDenied, "INSTANCE_NOT_ACTIVE", DENIED),
            Self::SessionExists { .. } => (Code::AlreadyExists, "SESSION_EXISTS", CLIENT),
            Self::SessionReplaced => (Code::Aborted, "SESSION_REPLACED", CLIENT),
            Self::SessionSilent => (Code::DeadlineExceeded, "SESSION_SILENT", CLIENT),
            Self::StrangerTooSlow => (Code::DeadlineExceeded, "REQUEST_TOO_SLOW", CLIENT),
            Self::SessionTooSlow => (Code::Aborted, "SESSION_TOO_SLOW", CLIENT),
            Self::ProtocolMismatch { .. } => (REFUSED, "PROTOCOL_MISMATCH", CLIENT),
            Self::ProtocolViolation { .. } => (Code::InvalidArgument, "PROTOCOL_VIOLATION", CLIENT),
            Self::ForeignTask { .. } => (Code::PermissionDenied, "FOREIGN_TASK", DENIED),
            Self::LogStreamNotFound { .. } => (MISSING, "LOG_STREAM_NOT_FOUND", CLIENT),
            Self::NodeNotConnected { .. } => (Code::Unavailable, "NODE_NOT_CONNECTED", SERVER),
            Self::NodeDidNotAnswer { .. } => (Code::Unavailable, "NODE_DID_NOT_ANSWER", SERVER),
            Self::LogsUnreadable { .. } => (Code::Unknown, "LOGS_UNREADABLE", SERVER),
            Self::StreamNotFound { .. } => (MISSING, "STREAM_NOT_FOUND", CLIENT),
            Self::StreamLimit { .. } => (EXHAUSTED, "STREAM_LIMIT", LIMIT),
            Self::TaskNotRunning { .. } => StreamFault::TaskNotRunning.row(),
            Self::NoRoom { .. } => (EXHAUSTED, "NO_ROOM", CLIENT),
            Self::AgentTooOld { .. } => (Code::Unimplemented, "AGENT_TOO_OLD", SERVER),
            Self::StreamFailed { fault, .. } => fault.row(),
            Self::CallerGone => (Code::Cancelled, "CALLER_GONE", CLIENT),
            Self::StreamBroken => (Code::Unavailable, "STREAM_BROKEN", SERVER),
            Self::EventsTooOld { .. } => (Code::OutOfRange, "EVENTS_TOO_OLD", CLIENT),
            Self::EventsOfAnotherStore { .. } => (Code::OutOfRange, "EVENTS_OF_ANOTHER_STORE", CLIENT),
            Self::WatcherTooSlow { .. } => (Code::Aborted, "WATCHER_TOO_SLOW", CLIENT),
            Self::StateReloaded => (Code::Aborted, "STATE_RELOADED", SERVER),
            Self::OutcomeUnknown => (Code::Unavailable, "OUTCOME_UNKNOWN", SERVER),
            Self::StoreFull { .. } => (EXHAUSTED, "STORE_FULL", SERVER),
            Self::StoreUnavailable => (Code::Unavailable, "STORE_UNAVAILABLE", SERVER),
            Self::NotLeader { .. } => (Code::Unavailable, "NOT_LEADER", SERVER),
            Self::ShuttingDown => (Code::Unavailable, "SHUTTING_DOWN", SERVER),
            Self::Internal { .. } => (Code::Internal, "INTERNAL", SERVER),
        };
        Mapping { code, reason, ecs }
    }

    /// What keeps a cluster from being deleted.
    fn cluster_contains(&self) -> (Code, &'static str, &'static str) {
        let (reason, ecs) = match self {
            Self::ClusterContainsTasks { .. } => ("CLUSTER_CONTAINS_TASKS", "ClusterContainsTasksException"),
            Self::ClusterContainsServices { .. } => {
                ("CLUSTER_CONTAINS_SERVICES", "ClusterContainsServicesException")
            }
            _ => ("CLUSTER_CONTAINS_CONTAINER_INSTANCES", "ClusterContainsContainerInstancesException"),
        };
        (REFUSED, reason, ecs)
    }

    /// The parameter at fault, as ECS spells it.
    fn field(&self) -> Option<&str> {
        match self {
            Self::InvalidParameter { field, .. } | Self::InvalidTaskDefinition { field, .. } => Some(field),
            Self::AmbiguousPrefix { field, .. } => Some(field),
            _ => None,
        }
    }
}

/// ECS's name for a quota that is used up.
fn quota(setting: &str) -> &'static str {
    match setting {
        "attributes_per_container_instance" => "AttributeLimitExceededException",
        _ => LIMIT,
    }
}

impl From<ApiError> for Status {
    fn from(error: ApiError) -> Self {
        let Mapping { code, reason, ecs } = error.mapping();
        let mut metadata = HashMap::from([("ecs".to_owned(), ecs.to_owned())]);
        if let Some(field) = error.field() {
            metadata.insert("field".to_owned(), field.to_owned());
        }
        if let ApiError::NotLeader { leader } = &error {
            metadata.insert("leader".to_owned(), leader.clone());
        }
        let mut details = ErrorDetails::with_error_info(reason, ERROR_DOMAIN, metadata);
        if let ApiError::Throttled { retry_after, .. } = &error {
            details.set_retry_info(Some(*retry_after));
        }
        Status::with_error_details(code, error.to_string(), details)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_carries_reason_field_and_ecs_name() {
        let status = Status::from(ApiError::invalid("count", "must be 1 to 10"));
        assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "count: must be 1 to 10"));
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!((info.reason.as_str(), info.domain.as_str()), ("INVALID_PARAMETER", "lighter"));
        assert_eq!(info.metadata["ecs"], "InvalidParameterException");
        assert_eq!(info.metadata["field"], "count");
    }
}
