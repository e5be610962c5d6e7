//! WatchStats: one stream of counters from each node concerned, merged.
//! In: a task, or none for the whole cluster. Out: the nodes' samples as they come; for the cluster,
//! of nodes too that come, or come back, while it is watched.
//! Never: adds samples up or keeps one; what is shown is worked out by the reader.

use super::open_audit::OpenAudit;
use super::stream::{Item, Wanted, first, open};
use super::{Context, existing_cluster};
use crate::core::audit::{Asker, AuditStarted};
use crate::core::queue::require_node;
use crate::core::stop_task::find_task;
use crate::error::ApiError;
use crate::session::convert::{StatsSample, said, stats, stats_order};
use crate::session::streams::{Counted, Said, UserEnd};
use futures_util::StreamExt;
use futures_util::stream::{BoxStream, SelectAll};
use lighter_model::ids::{ClusterName, ContainerInstanceId};
use lighter_model::status::TaskStatus;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::{Interval, MissedTickBehavior};

/// Between two samples at least.
pub const INTERVAL_MS_MIN: u32 = 200;

/// Whose counters are wanted.
#[derive(Debug, Clone)]
pub struct StatsRequest {
    pub cluster: String,
    /// Empty: every task of the cluster.
    pub task: String,
    /// 0 means a second.
    pub interval_ms: u32,
}

/// Between two looks at which nodes there are.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Frames of one node, and `None` when there are no more.
type Frames = BoxStream<'static, (ContainerInstanceId, Option<Item>)>;

/// Open streams; dropping them ends the nodes' side and completes the audit record.
pub struct Stats {
    samples: SelectAll<Frames>,
    /// The whole cluster is watched.
    all: Option<AllNodes>,
    _audit: OpenAudit,
}

/// What it takes to open the streams of nodes that come later.
struct AllNodes {
    context: Context,
    user: String,
    cluster: ClusterName,
    interval_ms: u32,
    /// Those with an open stream.
    open: BTreeSet<ContainerInstanceId>,
    look: Interval,
    /// There was no node to ask, which the reader is told by a sample of nothing.
    nobody: bool,
}

struct Whom {
    cluster: ClusterName,
    task: String,
    instances: Vec<ContainerInstanceId>,
}

/// Opens a stream to each node concerned.
pub async fn watch(context: &Context, asker: &Asker, request: StatsRequest) -> Result<Stats, ApiError> {
    let interval_ms = match request.interval_ms {
        0 => 1_000,
        interval if interval < INTERVAL_MS_MIN => {
            return Err(ApiError::invalid("intervalMs", format!("must be at least {INTERVAL_MS_MIN}")));
        }
        interval => interval,
    };
    let whom = whom(context, &request)?;
    let one = !whom.task.is_empty();
    let record = AuditStarted {
        user: asker.user.clone(),
        address: asker.address.clone(),
        action: "stats",
        cluster: whom.cluster.to_string(),
        task: whom.task.clone(),
        container: String::new(),
        instance: if one { whom.instances[0].to_string() } else { String::new() },
        command: Vec::new(),
        outcome: None,
    };
    let audit = OpenAudit::begin(context, record).await?;
    let mut stats = Stats { samples: SelectAll::new(), all: None, _audit: audit };
    if one {
        let wanted = wanted(&whom.instances[0], whom.task, interval_ms);
        let end = open(context, Counted::Call(&asker.user), wanted)?;
        stats.samples.push(frames(end, whom.instances[0].clone()));
        return Ok(stats);
    }
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    stats.all = Some(AllNodes {
        context: context.clone(),
        user: asker.user.clone(),
        cluster: whom.cluster,
        interval_ms,
        open: BTreeSet::new(),
        look,
        nobody: whom.instances.is_empty(),
    });
    Ok(stats)
}

fn wanted(instance: &ContainerInstanceId, task: String, interval_ms: u32) -> Wanted<'_> {
    Wanted { instance, task, container: String::new(), order: stats_order(interval_ms) }
}

/// The nodes of a cluster that have a session.
fn connected(context: &Context, cluster: &ClusterName) -> Vec<ContainerInstanceId> {
    let connected = context.sessions.connected();
    context.view.read(|shown| {
        let of_cluster = |id: &ContainerInstanceId| {
            shown.state.instances.get(id).is_some_and(|instance| instance.cluster == *cluster)
        };
        connected.into_iter().filter(of_cluster).collect()
    })
}

fn whom(context: &Context, request: &StatsRequest) -> Result<Whom, ApiError> {
    let cluster = context.view.read(|shown| existing_cluster(shown, &request.cluster))?;
    if request.task.is_empty() {
        let instances = connected(context, &cluster);
        return Ok(Whom { cluster, task: String::new(), instances });
    }
    context.view.read(|shown| {
        let task = find_task(&shown.state, &cluster, &request.task)?;
        if task.last == TaskStatus::Stopped {
            let (task, status) = (task.id.to_string(), task.last.as_str().to_owned());
            return Err(ApiError::TaskNotRunning { task, status });
        }
        require_node(&task)?;
        Ok(Whom { cluster, task: task.id.to_string(), instances: vec![task.instance.clone()] })
    })
}

/// The frames of one node; the first has to come soon.
fn frames(end: UserEnd, instance: ContainerInstanceId) -> Frames {
    let ended = (instance.clone(), None);
    let begin = (end, instance, true);
    let stream = futures_util::stream::unfold(begin, |(mut end, instance, fresh)| async move {
        let next = match fresh {
            true => first(&mut end, &instance).await,
            false => end.output.recv().await?,
        };
        Some(((instance.clone(), Some(next)), (end, instance, false)))
    });
    stream.chain(futures_util::stream::iter([ended])).boxed()
}

impl AllNodes {
    /// Opens a stream to each node that has none.
    fn look(&mut self, samples: &mut SelectAll<Frames>) {
        for instance in connected(&self.context, &self.cluster) {
            if self.open.contains(&instance) {
                continue;
            }
            let wanted = wanted(&instance, String::new(), self.interval_ms);
            match open(&self.context, Counted::Part(&self.user), wanted) {
                Ok(end) => {
                    samples.push(frames(end, instance.clone()));
                    self.open.insert(instance);
                }
                // A node that just went away, or an old agent, does not hide the others.
                Err(error) => tracing::debug!(%instance, %error, "no stats of this node"),
            }
        }
    }
}

impl Stats {
    /// The next sample of any node; `None` when the one task that is watched has ended.
    pub async fn next(&mut self) -> Option<Result<StatsSample, ApiError>> {
        loop {
            let Some((instance, frame)) = self.next_frame().await? else {
                return Some(Ok(StatsSample::default()));
            };
            let problem = match frame {
                None => {
                    if let Some(all) = &mut self.all {
                        all.open.remove(&instance);
                    }
                    continue;
                }
                Some(Ok(frame)) => match said(&frame) {
                    Said::Stats => {
                        if let Some(sample) = stats(frame, instance.as_str()) {
                            return Some(Ok(sample));
                        }
                        continue;
                    }
                    Said::Ended { result: Err(error) } => error,
                    Said::Started | Said::Images | Said::Data(_) | Said::Ended { result: Ok(_) } => continue,
                },
                Some(Err(error)) => error,
            };
            if self.all.is_none() {
                return Some(Err(problem));
            }
            tracing::debug!(error = %problem, "the stats of one node ended");
        }
    }

    /// A frame of a node; `Some(None)` once when there is no node at all, `None` at the end. Cancel
    /// safe: a frame stays in its stream, a look that was due is due again.
    async fn next_frame(&mut self) -> Option<Option<(ContainerInstanceId, Option<Item>)>> {
        let Some(all) = &mut self.all else { return self.samples.next().await.map(Some) };
        if std::mem::take(&mut all.nobody) {
            return Some(None);
        }
        loop {
            tokio::select! {
                Some(frame) = self.samples.next(), if !self.samples.is_empty() => return Some(Some(frame)),
                _ = all.look.tick() => all.look(&mut self.samples),
            }
        }
    }
}
