//! WatchStats: one stream of counters from each node concerned, merged.
//! In: a task, or none for the whole cluster. Out: the nodes' samples as they come.
//! Never: adds samples up or keeps one; what is shown is worked out by the reader.

use super::stream::{Item, Wanted, first, open};
use super::{Context, existing_cluster};
use crate::core::audit::{AuditEnded, AuditStarted};
use crate::core::stop_task::find_task;
use crate::core::update_task::Asker;
use crate::error::ApiError;
use crate::session::convert::{StatsSample, said, stats, stats_order};
use crate::session::streams::{Counted, Said, UserEnd};
use futures_util::StreamExt;
use futures_util::stream::{BoxStream, SelectAll};
use lighter_model::ids::{ClusterName, ContainerInstanceId};
use lighter_model::status::TaskStatus;

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

/// Open streams; dropping them ends the nodes' side and completes the audit record.
pub struct Stats {
    samples: SelectAll<BoxStream<'static, (ContainerInstanceId, Item)>>,
    /// One task is watched: its node's failure is the answer.
    one: bool,
    _audit: OpenAudit,
}

/// Completes the record when it is dropped, which may be anywhere: readers just go away.
struct OpenAudit {
    context: Context,
    sequence: u64,
}

impl Drop for OpenAudit {
    fn drop(&mut self) {
        let (context, sequence) = (self.context.clone(), self.sequence);
        // Without a runtime the control plane ends, and closes the record at its next start.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            let record = AuditEnded { sequence, result: "done".to_owned(), bytes_in: 0, bytes_out: 0 };
            if let Err(error) = context.writer.submit(record).await {
                tracing::warn!(%error, audit = sequence, "an audit record could not be completed");
            }
        });
    }
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
        cluster: whom.cluster,
        task: whom.task.clone(),
        container: String::new(),
        instance: if one { whom.instances[0].to_string() } else { String::new() },
        command: Vec::new(),
        outcome: None,
    };
    let sequence = context.writer.submit(record).await?;
    let audit = OpenAudit { context: context.clone(), sequence };
    let mut samples = SelectAll::new();
    for instance in &whom.instances {
        let wanted = Wanted {
            instance,
            task: whom.task.clone(),
            container: String::new(),
            order: stats_order(interval_ms),
        };
        let counted = if one { Counted::Call(&asker.user) } else { Counted::Part(&asker.user) };
        match open(context, counted, wanted) {
            Ok(end) => samples.push(frames(end, instance.clone())),
            Err(error) if one => return Err(error),
            // A node that just went away, or an old agent, does not hide the others.
            Err(error) => tracing::debug!(%instance, %error, "no stats of this node"),
        }
    }
    Ok(Stats { samples, one, _audit: audit })
}

fn whom(context: &Context, request: &StatsRequest) -> Result<Whom, ApiError> {
    let connected = context.sessions.connected();
    context.view.read(|shown| {
        let cluster = existing_cluster(shown, &request.cluster)?;
        if request.task.is_empty() {
            let of_cluster = |id: &ContainerInstanceId| {
                shown.state.instances.get(id).is_some_and(|instance| instance.cluster == cluster)
            };
            let instances = connected.into_iter().filter(of_cluster).collect();
            return Ok(Whom { cluster, task: String::new(), instances });
        }
        let task = find_task(&shown.state, &cluster, &request.task)?;
        if task.last == TaskStatus::Stopped {
            let (task, status) = (task.id.to_string(), task.last.as_str().to_owned());
            return Err(ApiError::TaskNotRunning { task, status });
        }
        Ok(Whom { cluster, task: task.id.to_string(), instances: vec![task.instance.clone()] })
    })
}

/// The frames of one node; the first has to come soon.
fn frames(end: UserEnd, instance: ContainerInstanceId) -> BoxStream<'static, (ContainerInstanceId, Item)> {
    let begin = (end, instance, true);
    let stream = futures_util::stream::unfold(begin, |(mut end, instance, fresh)| async move {
        let next = match fresh {
            true => first(&mut end, &instance).await,
            false => end.output.recv().await?,
        };
        Some(((instance.clone(), next), (end, instance, false)))
    });
    stream.boxed()
}

impl Stats {
    /// The next sample of any node; `None` when all have ended.
    pub async fn next(&mut self) -> Option<Result<StatsSample, ApiError>> {
        while let Some((instance, frame)) = self.samples.next().await {
            let problem = match frame {
                Ok(frame) => match said(&frame) {
                    Said::Stats => {
                        if let Some(sample) = stats(frame, instance.as_str()) {
                            return Some(Ok(sample));
                        }
                        continue;
                    }
                    Said::Ended { result: Err(error) } => error,
                    Said::Started | Said::Data(_) | Said::Ended { result: Ok(_) } => continue,
                },
                Err(error) => error,
            };
            if self.one {
                return Some(Err(problem));
            }
            tracing::debug!(error = %problem, "the stats of one node ended");
        }
        None
    }
}
