//! Services, their deployments, endpoints, and the protection of their tasks.
//! In: checked requests. Out: services with their counts and events, pages, streams of lists.
//! Never: shows what is not durable; waits for a slow reader of endpoints: it gets the newest list.

use super::page::{Page, PageRequest, fill};
use super::task::{Described, describe_all};
use super::{Context, cluster_name, existing_cluster, now_ms};
use crate::core::audit::Asker;
use crate::core::service::change::{CreateService, DeleteService, UpdateService, find_service};
use crate::core::service::control::{Action, ControlDeployment};
use crate::core::service::endpoints::{self, Endpoint, Target};
use crate::core::service::look::{ServiceSnapshot, snapshot};
use crate::core::service::protection::{self, Protection, UpdateProtection};
use crate::core::service::record::{ServiceEventRecord, ServiceKey, ServiceRecord};
use crate::core::stop_task::find_task;
use crate::error::ApiError;
use crate::identity::sha256_hex;
use crate::view::Shown;
use futures_util::Stream;
use lighter_model::service::{SchedulingStrategy, ServiceError, parse_create, parse_update};
use std::ops::Bound;
use std::sync::Arc;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// A service with its counts and events, the newest first.
#[derive(Debug, Clone)]
pub struct DescribedService {
    pub snapshot: ServiceSnapshot,
    pub events: Vec<Arc<ServiceEventRecord>>,
}

impl From<ServiceError> for ApiError {
    fn from(error: ServiceError) -> Self {
        Self::invalid(&error.field, error.problem)
    }
}

fn describe_one(context: &Context, shown: &Shown, service: &Arc<ServiceRecord>) -> DescribedService {
    let state = &shown.state;
    let range = (service.key(), 0)..=(service.key(), u64::MAX);
    let events = state.service_events.range(range).rev().map(|(_, event)| event.clone());
    let snapshot = snapshot(state, service, now_ms(context, shown));
    DescribedService { snapshot, events: events.collect() }
}

fn answered(context: &Context, service: &Arc<ServiceRecord>) -> DescribedService {
    context.view.read(|shown| describe_one(context, shown, service))
}

/// Makes a service; `json` is the input of `aws ecs create-service`.
pub async fn create(context: &Context, asker: Asker, json: &str) -> Result<DescribedService, ApiError> {
    let input = parse_create(json)?;
    let cluster = cluster_name(input.cluster.as_deref().unwrap_or_default())?;
    let (created_by, fingerprint) = (asker.user.clone(), sha256_hex(format!("{input:?}").as_bytes()));
    let command = CreateService { cluster, input, created_by, fingerprint };
    Ok(answered(context, &context.change(asker, command).await?))
}

/// Changes a service; `json` is the input of `aws ecs update-service`.
pub async fn update(
    context: &Context,
    asker: Asker,
    json: &str,
    expected_version: u64,
) -> Result<DescribedService, ApiError> {
    let input = parse_update(json)?;
    let cluster = cluster_name(input.cluster.as_deref().unwrap_or_default())?;
    let command = UpdateService { cluster, input, expected_version };
    Ok(answered(context, &context.change(asker, command).await?))
}

/// Deletes a service.
pub async fn delete(
    context: &Context,
    asker: Asker,
    cluster: &str,
    service: String,
    force: bool,
) -> Result<DescribedService, ApiError> {
    let command = DeleteService { cluster: cluster_name(cluster)?, service, force };
    Ok(answered(context, &context.change(asker, command).await?))
}

/// Pauses, resumes or rolls back.
pub async fn control(
    context: &Context,
    asker: Asker,
    cluster: &str,
    service: String,
    action: Action,
) -> Result<DescribedService, ApiError> {
    let command = ControlDeployment { cluster: cluster_name(cluster)?, service, action };
    Ok(answered(context, &context.change(asker, command).await?))
}

/// Describes services by name or ARN.
pub fn describe(
    context: &Context,
    cluster: &str,
    names: &[String],
) -> Result<Described<DescribedService>, ApiError> {
    context.view.read(|shown| {
        let cluster = existing_cluster(shown, cluster)?;
        describe_all(&context.quotas, "services", names, |name| {
            find_service(&shown.state, &cluster, name).map(|service| describe_one(context, shown, &service))
        })
    })
}

/// What to list.
#[derive(Debug, Clone)]
pub struct Filter {
    pub cluster: String,
    pub strategy: Option<SchedulingStrategy>,
    pub page: PageRequest,
}

/// Lists the names of services that are not INACTIVE.
pub fn list(context: &Context, filter: &Filter) -> Result<Page, ApiError> {
    let limit = filter.page.limit(&context.quotas)?;
    let after = filter.page.after_as()?;
    context.view.read(|shown| {
        let cluster = existing_cluster(shown, &filter.cluster)?;
        let own = |service: &&Arc<ServiceRecord>| {
            service.cluster == cluster
                && service.inactive_at_unix_ms.is_none()
                && filter.strategy.is_none_or(|strategy| strategy == service.strategy)
        };
        let from = after.map_or(Bound::Unbounded, |name| Bound::Excluded((cluster.clone(), name)));
        let services = shown.state.services.range((from, Bound::Unbounded)).map(|(_, service)| service);
        Ok(fill(services.filter(own).map(|service| service.name.to_string()), limit))
    })
}

/// Protects tasks.
pub async fn protect(
    context: &Context,
    asker: Asker,
    request: UpdateProtection,
) -> Result<Protection, ApiError> {
    context.change(asker, request).await
}

/// The protection of tasks.
pub fn protection_of(context: &Context, cluster: &str, tasks: &[String]) -> Result<Protection, ApiError> {
    context.quotas.names("tasks", tasks.len())?;
    context.view.read(|shown| {
        let cluster = existing_cluster(shown, cluster)?;
        let mut answer = Protection::default();
        for name in tasks {
            match find_task(&shown.state, &cluster, name) {
                Ok(task) => match protection::of(&task, now_ms(context, shown)) {
                    Some(protected) => answer.tasks.push(protected),
                    None => answer.fail(name, "TASK_NOT_VALID", "it is not of a service".to_owned()),
                },
                Err(error @ ApiError::AmbiguousPrefix { .. }) => return Err(error),
                Err(error) => answer.fail(name, "MISSING", error.to_string()),
            }
        }
        Ok(answer)
    })
}

/// A list with its place among those of the service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub sequence: u64,
    pub endpoints: Vec<Endpoint>,
}

struct Watch {
    context: Context,
    key: ServiceKey,
    target: Target,
    changes: watch::Receiver<u64>,
    last: Option<Vec<Endpoint>>,
    epoch: u64,
    stop: CancellationToken,
    ended: bool,
}

/// Where the healthy tasks of a service are reached: now, and whenever that changes.
pub fn watch_endpoints(
    context: &Context,
    cluster: &str,
    service: &str,
    container: &str,
    port: u32,
) -> Result<impl Stream<Item = Result<Listed, ApiError>> + use<>, ApiError> {
    let changes = context.view.service_changes();
    let (key, target, epoch) = context.view.read(|shown| {
        let cluster = existing_cluster(shown, cluster)?;
        let key = find_service(&shown.state, &cluster, service)?.key();
        let target = endpoints::target(&shown.state, &key, container, port)?;
        Ok::<_, ApiError>((key, target, shown.epoch))
    })?;
    let (context, stop) = (context.clone(), context.stop.clone());
    let watch = Watch { context, key, target, changes, last: None, epoch, stop, ended: false };
    Ok(futures_util::stream::unfold(watch, |mut watch| async move {
        let next = watch.next().await?;
        watch.ended = next.is_err();
        Some((next, watch))
    }))
}

impl Watch {
    async fn next(&mut self) -> Option<Result<Listed, ApiError>> {
        if self.ended {
            return None;
        }
        loop {
            self.changes.borrow_and_update();
            let (sequence, epoch, gone, list) = self.context.view.read(|shown| {
                let list = endpoints::endpoints(&shown.state, &self.key, &self.target);
                let service = shown.state.services.get(&self.key);
                let gone = service.is_none_or(|service| service.inactive_at_unix_ms.is_some());
                (shown.sequence, shown.epoch, gone, list)
            });
            if epoch != self.epoch {
                return Some(Err(ApiError::StateReloaded));
            }
            if self.last.as_ref() != Some(&list) {
                self.last = Some(list.clone());
                return Some(Ok(Listed { sequence, endpoints: list }));
            }
            if gone {
                return None;
            }
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Some(Err(ApiError::ShuttingDown)),
                changed = self.changes.changed() => if changed.is_err() { return None },
            }
        }
    }
}
