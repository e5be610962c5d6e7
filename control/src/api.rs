//! What people and tools may ask for: one file for each group of verbs.
//! In: checked values from `convert`, a `Caller`. Out: records and pages. Owns nothing.
//! Never: a type of the wire contract; never answers from anything but the committed view.

pub mod attribute;
pub mod audit;
pub mod cluster;
pub mod events;
pub mod images;
pub mod instance;
pub mod join;
pub mod journal;
pub mod logs;
mod open_audit;
pub mod orphan;
pub mod page;
pub mod placement;
pub mod service;
pub mod snapshot;
pub mod state;
pub mod stats;
pub mod stream;
pub mod tag;
pub mod task;
pub mod task_definition;

use crate::core::Settings;
use crate::core::audit::Asker;
use crate::core::quota::Quotas;
use crate::core::recorded::{AskedBy, Recorded};
use crate::environment::Environment;
use crate::error::ApiError;
use crate::identity::ca::Ca;
use crate::session::logs::LogStreams;
use crate::session::questions::Questions;
use crate::session::registry::Sessions;
use crate::session::streams::Streams;
use crate::snapshot::Source;
use crate::view::{Shown, View};
use crate::writer::WriterHandle;
use lighter_model::ids::ClusterName;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The cluster meant when none is named.
pub const DEFAULT_CLUSTER: &str = "default";

/// What every handler works with; cheap to clone.
#[derive(Clone)]
pub struct Context {
    pub view: Arc<View>,
    pub writer: WriterHandle,
    pub ca: Arc<Ca>,
    pub environment: Environment,
    pub sessions: Arc<Sessions>,
    pub logs: Arc<LogStreams>,
    pub streams: Streams,
    pub questions: Questions,
    pub snapshots: Source,
    pub heartbeat_interval: Duration,
    /// What decisions depend on; the writer has the same.
    pub settings: Settings,
    /// What one call may ask for.
    pub quotas: Quotas,
    /// Ends sessions and watchers at shutdown.
    pub stop: CancellationToken,
}

impl Context {
    /// Has a change made that somebody asks for; the audit's record is in the same commit.
    pub async fn change<C: Recorded>(&self, asker: Asker, command: C) -> Result<C::Answer, ApiError> {
        self.writer.submit(AskedBy { asker, command }).await
    }
}

/// Cluster time as of now: what is shown was committed a while ago.
pub(crate) fn now_ms(context: &Context, shown: &Shown) -> u64 {
    shown.state.meta.cluster_time_ms.max(context.environment.wall_unix_ms())
}

/// The cluster of a request, `default` when empty; names and ARNs.
pub fn cluster_name(text: &str) -> Result<ClusterName, ApiError> {
    let name = text.rsplit('/').next().unwrap_or(text);
    let name = if name.is_empty() { DEFAULT_CLUSTER } else { name };
    name.parse().map_err(|error: lighter_model::ids::IdError| ApiError::invalid("cluster", error.to_string()))
}

/// The cluster of a request that only reads; it has to exist, and may be INACTIVE.
fn existing_cluster(shown: &Shown, text: &str) -> Result<ClusterName, ApiError> {
    let cluster = cluster_name(text)?;
    match shown.state.clusters.contains_key(&cluster) {
        true => Ok(cluster),
        false => Err(ApiError::ClusterNotFound { cluster: cluster.to_string() }),
    }
}
