//! How much of what there may be: ECS's quotas as settings.
//! In: counts. Out: a refusal that names the setting. Never: counts itself.
//! Source: Amazon ECS Developer Guide, "Amazon ECS service quotas".

use crate::error::ApiError;
use serde::Deserialize;

/// `[quotas]` of control.toml; the defaults are ECS's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Quotas {
    pub clusters: u32,
    pub container_instances_per_cluster: u32,
    pub containers_per_task_definition: u32,
    /// Of a definition's JSON with its defaults filled in.
    pub task_definition_bytes: u32,
    pub revisions_per_family: u32,
    pub tags_per_resource: u32,
    /// Set by people on one container instance; those of its node and token are not counted.
    pub attributes_per_container_instance: u32,
    /// `count` of one RunTask.
    pub tasks_per_run_task: u32,
    /// Tasks of one cluster that wait in the queue.
    pub provisioning_tasks_per_cluster: u32,
    /// Names in one describe call.
    pub names_per_describe: u32,
    /// Entries of one page of a list.
    pub entries_per_page: u32,
}

impl Default for Quotas {
    fn default() -> Self {
        Self {
            clusters: 10_000,
            container_instances_per_cluster: 5_000,
            containers_per_task_definition: 10,
            task_definition_bytes: 64 * 1024,
            revisions_per_family: 1_000_000,
            tags_per_resource: 50,
            attributes_per_container_instance: 10,
            tasks_per_run_task: 10,
            provisioning_tasks_per_cluster: 500,
            names_per_describe: 100,
            entries_per_page: 100,
        }
    }
}

impl Quotas {
    /// Before another ACTIVE cluster is made.
    pub fn clusters(&self, there_are: usize) -> Result<(), ApiError> {
        room_for_one("clusters", there_are, self.clusters)
    }

    /// Before another instance joins a cluster.
    pub fn container_instances(&self, there_are: usize) -> Result<(), ApiError> {
        room_for_one("container_instances_per_cluster", there_are, self.container_instances_per_cluster)
    }

    /// Of a definition to be registered.
    pub fn containers(&self, wanted: usize) -> Result<(), ApiError> {
        at_most("containers_per_task_definition", wanted, self.containers_per_task_definition)
    }

    /// Of a definition to be registered.
    pub fn definition_bytes(&self, wanted: usize) -> Result<(), ApiError> {
        at_most("task_definition_bytes", wanted, self.task_definition_bytes)
    }

    /// Before another revision.
    pub fn revisions(&self, last: u32) -> Result<(), ApiError> {
        room_for_one("revisions_per_family", last as usize, self.revisions_per_family)
    }

    /// Of one resource.
    pub fn tags(&self, wanted: usize) -> Result<(), ApiError> {
        at_most("tags_per_resource", wanted, self.tags_per_resource)
    }

    /// Of one container instance.
    pub fn attributes(&self, wanted: usize) -> Result<(), ApiError> {
        at_most("attributes_per_container_instance", wanted, self.attributes_per_container_instance)
    }

    /// Of one RunTask.
    pub fn count(&self, wanted: u32) -> Result<(), ApiError> {
        one_to("count", u64::from(wanted), "tasks_per_run_task", self.tasks_per_run_task)
    }

    /// Before so many more wait in a cluster's queue.
    pub fn queued(&self, there_are: usize, more: usize) -> Result<(), ApiError> {
        let wanted = there_are.saturating_add(more);
        at_most("provisioning_tasks_per_cluster", wanted, self.provisioning_tasks_per_cluster)
    }

    /// Of one describe call; `field` as ECS spells it.
    pub fn names(&self, field: &'static str, wanted: usize) -> Result<(), ApiError> {
        one_to(field, wanted as u64, "names_per_describe", self.names_per_describe)
    }

    /// Of one page.
    pub fn page(&self, wanted: u32) -> Result<(), ApiError> {
        one_to("maxResults", u64::from(wanted), "entries_per_page", self.entries_per_page)
    }
}

/// Limits of one call are wrong parameters in ECS's words, not exceeded limits.
fn one_to(field: &'static str, wanted: u64, setting: &'static str, limit: u32) -> Result<(), ApiError> {
    if (1..=u64::from(limit)).contains(&wanted) {
        return Ok(());
    }
    Err(ApiError::invalid(field, format!("must be 1 to {limit} (quotas.{setting}), got {wanted}")))
}

fn room_for_one(setting: &'static str, there_are: usize, limit: u32) -> Result<(), ApiError> {
    at_most(setting, there_are.saturating_add(1), limit)
}

fn at_most(setting: &'static str, wanted: usize, limit: u32) -> Result<(), ApiError> {
    if wanted <= limit as usize { Ok(()) } else { Err(ApiError::QuotaExceeded { setting, wanted, limit }) }
}
