//! The one table of what a full store refuses. A method without a row does not compile.
//! In: a method of the contract. Out: whether it brings new work or new things to remember.
//! What nodes say of their tasks, and what clocks bring about, is no method of anybody: it goes on.
//! Never: refuses what ends, stops, or tells; that is how room comes back.

pub use lighter_proto::Method;

/// What a method asks of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Makes the store larger for good: refused while only the reserve is left.
    New,
    /// Ends or changes what is there, or tells of it: goes on from the reserve. What it writes besides
    /// (events, the audit) replaces the oldest of its kind.
    GoesOn,
    /// Writes nothing here.
    Reads,
}

/// The table. An orphan that is adopted runs already, and its record makes it possible to stop it; of a
/// service's update the new tasks are new work, not the change itself.
// As many as fit on a line: one on each is a page that nobody reads.
#[rustfmt::skip]
pub fn of(method: Method) -> Work {
    match method {
        Method::LighterRunTask | Method::LighterStartTask | Method::LighterRegisterTaskDefinition
        | Method::LighterCreateCluster | Method::LighterCreateJoinToken | Method::LighterTagResource
        | Method::LighterPutAttributes | Method::LighterCreateService | Method::NodeJoin => Work::New,
        Method::LighterStopTask | Method::LighterDeregisterTaskDefinition | Method::LighterAdoptOrphan
        | Method::LighterStopOrphan | Method::LighterDeleteTaskDefinitions
        | Method::LighterUpdateContainerInstancesState | Method::LighterDeregisterContainerInstance
        | Method::LighterUpdateCluster | Method::LighterDeleteCluster | Method::LighterUntagResource
        | Method::LighterDeleteAttributes | Method::LighterPauseTask | Method::LighterUnpauseTask
        | Method::LighterUpdateTask | Method::LighterUpdateService | Method::LighterDeleteService
        | Method::LighterControlDeployment | Method::LighterUpdateTaskProtection | Method::LighterExec
        | Method::LighterAttach | Method::LighterCopy | Method::LighterOrderImages
        | Method::NodeRenewCertificate | Method::NodeSession => Work::GoesOn,
        Method::LighterDescribeTaskDefinition | Method::LighterListTaskDefinitions
        | Method::LighterListTaskDefinitionFamilies | Method::LighterListTasks
        | Method::LighterDescribeTasks | Method::LighterListTaskEvents
        | Method::LighterListContainerInstances | Method::LighterDescribeContainerInstances
        | Method::LighterStreamTaskLogs | Method::LighterWatchEvents | Method::LighterWatchStats
        | Method::LighterDescribeClusters | Method::LighterListClusters
        | Method::LighterListTagsForResource | Method::LighterListAttributes
        | Method::LighterStreamClusterState | Method::LighterDescribeServices
        | Method::LighterListServices | Method::LighterWatchEndpoints | Method::LighterGetTaskProtection
        | Method::LighterListAudit | Method::LighterListOrphans | Method::LighterExplainPlacement
        | Method::LighterTestPlacementStrategy | Method::LighterSaveSnapshot | Method::NodeSendLogs
        | Method::NodeStream => Work::Reads,
        // Served by the agent.
        Method::AgentGetAgentStatus | Method::AgentListLocalTasks | Method::AgentGetDiskUsage
        | Method::AgentPrune | Method::AgentStopTasks | Method::AgentSetNotice | Method::AgentPullImage
        | Method::AgentListImages | Method::AgentInspectImage | Method::AgentRemoveImage
        | Method::AgentLoadImage | Method::AgentSaveImage | Method::AgentStreamPullProgress => Work::Reads,
    }
}
