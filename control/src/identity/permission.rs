//! The one table of who may call what. A method without a row does not compile.
//! In: a method of the contract. Out: its rule. What a node may say of which task is checked where
//! the task is known (core/report.rs, session/logs.rs). Never: a rule anywhere else.

use super::caller::{ADMINISTRATOR, Caller};
use crate::error::ApiError;
use lighter_proto::Method;

/// Who may call a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Everybody; the method itself asks for a token.
    Anyone,
    /// People and tools with an identity.
    User,
    /// Whoever has the administrator's key, or is root beside the control plane.
    Administrator,
    /// A container instance, for itself.
    Node,
    /// The agent serves it on its own Unix socket.
    NotServedHere,
}

/// The table.
// As many as fit on a line: one on each is a page that nobody reads.
#[rustfmt::skip]
pub fn access(method: Method) -> Rule {
    match method {
        Method::LighterRegisterTaskDefinition | Method::LighterDescribeTaskDefinition
        | Method::LighterListTaskDefinitions | Method::LighterDeregisterTaskDefinition
        | Method::LighterRunTask | Method::LighterStopTask | Method::LighterListTasks
        | Method::LighterDescribeTasks | Method::LighterListTaskEvents
        | Method::LighterListContainerInstances | Method::LighterDescribeContainerInstances
        | Method::LighterUpdateContainerInstancesState | Method::LighterCreateJoinToken
        | Method::LighterStreamTaskLogs | Method::LighterWatchEvents | Method::LighterExec
        | Method::LighterAttach | Method::LighterCopy | Method::LighterWatchStats
        | Method::LighterOrderImages | Method::LighterPauseTask | Method::LighterUnpauseTask
        | Method::LighterUpdateTask | Method::LighterStartTask | Method::LighterExplainPlacement
        | Method::LighterTestPlacementStrategy | Method::LighterDeleteTaskDefinitions
        | Method::LighterListTaskDefinitionFamilies | Method::LighterCreateCluster
        | Method::LighterDescribeClusters | Method::LighterListClusters | Method::LighterUpdateCluster
        | Method::LighterDeleteCluster | Method::LighterTagResource | Method::LighterUntagResource
        | Method::LighterListTagsForResource | Method::LighterDeregisterContainerInstance
        | Method::LighterPutAttributes | Method::LighterDeleteAttributes | Method::LighterListAttributes
        | Method::LighterStreamClusterState | Method::LighterListOrphans | Method::LighterAdoptOrphan
        | Method::LighterStopOrphan | Method::LighterCreateService | Method::LighterUpdateService
        | Method::LighterDeleteService | Method::LighterDescribeServices | Method::LighterListServices
        | Method::LighterControlDeployment | Method::LighterUpdateTaskProtection
        | Method::LighterGetTaskProtection | Method::LighterWatchEndpoints | Method::LighterListAudit
        => Rule::User,
        Method::LighterSaveSnapshot => Rule::Administrator,
        Method::NodeJoin => Rule::Anyone,
        Method::NodeRenewCertificate | Method::NodeSession | Method::NodeSendLogs | Method::NodeStream
        => Rule::Node,
        Method::AgentGetAgentStatus | Method::AgentListLocalTasks | Method::AgentGetDiskUsage
        | Method::AgentPrune | Method::AgentStopTasks | Method::AgentSetNotice | Method::AgentPullImage
        | Method::AgentListImages | Method::AgentInspectImage | Method::AgentRemoveImage
        | Method::AgentLoadImage | Method::AgentSaveImage | Method::AgentStreamPullProgress
        => Rule::NotServedHere,
    }
}

/// The method of an HTTP/2 path; `None` for health, reflection and what does not exist.
pub fn method_of(path: &str) -> Option<Method> {
    Method::ALL.iter().copied().find(|method| method.path() == path)
}

/// Applies the table.
pub fn check(method: Method, caller: &Caller) -> Result<(), ApiError> {
    let denied = || ApiError::AccessDenied { caller: caller.to_string(), method: method.path().to_owned() };
    match (access(method), caller) {
        (Rule::NotServedHere, _) => Err(ApiError::NotServedHere { method: method.path().to_owned() }),
        (Rule::Anyone, _) | (Rule::User, Caller::User { .. }) | (Rule::Node, Caller::Node { .. }) => Ok(()),
        (Rule::Administrator, Caller::User { name }) if name == ADMINISTRATOR => Ok(()),
        (Rule::User | Rule::Administrator | Rule::Node, Caller::Anonymous) => Err(ApiError::Unauthenticated),
        (Rule::User, Caller::Node { .. }) | (Rule::Administrator, _) | (Rule::Node, Caller::User { .. }) => {
            Err(denied())
        }
    }
}
