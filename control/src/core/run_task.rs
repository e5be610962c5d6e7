//! Places and creates tasks, ten unless the quota says more; what fits nowhere fails at once with ECS's reasons,
//! or waits in the queue where that was asked for; where others wait already, it joins them.
//! In: a `RunTask`. Out: the tasks and the failures. Owns: what a client token was used for.
//! Never: takes what the head of the queue waits for, or creates a task twice for the same client token.
//! Source: Amazon ECS API reference, RunTask.

use crate::core::cluster;
use crate::core::columns::Nodes;
use crate::core::definition::find_definition;
use crate::core::mutation::{Changes, Mutation};
use crate::core::queue::{self, QueueOptions, QueueRecord, Waiting};
use crate::core::record::{
    ClientTokenRecord, ContainerRecord, DefinitionRecord, PlacementFailure, TaskRecord, TaskTimes,
};
use crate::core::shared::Rare;
use crate::core::silence::policy::SilencePolicy;
use crate::core::state::State;
use crate::core::{Command, Settings};
use crate::error::ApiError;
use crate::scheduler::choose::{self, Ask};
use crate::scheduler::explain::{Lack, lack};
use crate::scheduler::placement::{NO_INSTANCES, Reserve};
use crate::wrong_edit::{self, WrongEdit};
use lighter_model::attribute::{OVERRIDES, required};
use lighter_model::ids::{ClusterName, ContainerInstanceId, Generation, TaskId};
use lighter_model::node::SERVICE_GROUP_PREFIX;
use lighter_model::overrides::TaskOverride;
use lighter_model::placement::Placement;
use lighter_model::report::KernelLimits;
use lighter_model::resources::{Resources, required_resources};
use lighter_model::status::{ContainerInstanceStatus, ContainerStatus, DesiredStatus, TaskStatus};
use lighter_model::tags::Tags;
use lighter_model::trace_context::TraceParent;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Failures told of one call; a cluster of thousands would make the answer too large.
const MAX_FAILURES: usize = 20;

/// Runs `count` tasks.
#[derive(Debug, Clone)]
pub struct RunTask {
    pub cluster: ClusterName,
    /// `family` or `family:revision`.
    pub task_definition: String,
    /// 1 to 10, or what `quotas.tasks_per_run_task` says.
    pub count: u32,
    pub group: Option<String>,
    pub started_by: Option<String>,
    pub client_token: Option<String>,
    /// The caller's span. A call that is repeated with its client token may have another.
    pub trace_parent: Option<TraceParent>,
    /// They win over propagated ones.
    pub tags: Tags,
    /// Whether the definition's tags are taken over; `None`: as the cluster's setting says.
    pub propagate_tags: Option<bool>,
    /// As asked for; all nothing: nothing becomes of it when its node falls silent.
    pub silence: SilencePolicy,
    /// Without a strategy the instance with the fewest tasks is taken.
    pub placement: Placement,
    pub overrides: TaskOverride,
    /// Let those that fit nowhere wait.
    pub queue: Option<QueueOptions>,
}

/// Reads the overrides of a call.
pub fn overrides(json: &str) -> Result<TaskOverride, ApiError> {
    TaskOverride::parse(json).map_err(|error| ApiError::invalid(&error.field, error.problem))
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct RunTaskAnswer {
    pub tasks: Vec<Arc<TaskRecord>>,
    pub failures: Vec<PlacementFailure>,
}

impl Command for RunTask {
    type Answer = RunTaskAnswer;

    fn decide(self, changes: &mut Changes<'_>) -> Result<RunTaskAnswer, ApiError> {
        let (state, settings) = (changes.state(), changes.settings());
        settings.quotas.count(self.count)?;
        self.check_group()?;
        self.check(state)?;
        if let Some(answer) = self.repeated(state)? {
            return Ok(answer);
        }
        let prepared = self.prepare(state, settings)?;
        changes.warm(&self.cluster, &self.placement);
        let first = Waiting::first(changes.state(), changes.settings(), &self.cluster);
        if let Some(first) = &first {
            changes.warm(&self.cluster, &first.placement);
        }
        let (mut tasks, mut failures) = (Vec::new(), Vec::new());
        for number in 0..self.count {
            let there_are = changes.state().queue_of(&self.cluster).len();
            let place = match self.queue {
                // Behind others it is `TendQueue` that knows whose turn it is.
                Some(_) if there_are > 0 => Err(Vec::new()),
                _ => self.place(changes, &prepared, first.as_ref()),
            };
            let task = match place {
                Ok(instance) => self.new_task(changes, &prepared, instance),
                Err(lacks) if self.queue.is_some() => {
                    let more = (self.count - number) as usize;
                    match changes.settings().quotas.queued(there_are, more) {
                        Ok(()) => self.waiting(changes, &prepared),
                        // With nothing placed it is the call's error; there is no way back from a task.
                        Err(error) if tasks.is_empty() => return Err(error),
                        Err(error) => {
                            failures = lacks;
                            failures.push(queue_full(&self.cluster, &error));
                            break;
                        }
                    }
                }
                Err(lacks) => {
                    failures = lacks;
                    break;
                }
            };
            tasks.push(changes.put_task(task));
        }
        if !wrong_edit::is(WrongEdit::ClientTokenForgotten) {
            self.remember(changes, &tasks, &failures);
        }
        Ok(RunTaskAnswer { tasks, failures })
    }
}

/// What all tasks of one call have in common.
#[derive(Debug)]
pub struct Prepared {
    pub definition: Arc<DefinitionRecord>,
    pub need: Need,
    pub group: String,
    tags: Tags,
    silence: Option<SilencePolicy>,
}

impl RunTask {
    /// One task of a revision, with nothing else asked for.
    pub fn new(cluster: ClusterName, task_definition: &str) -> Self {
        Self {
            cluster,
            task_definition: task_definition.to_owned(),
            count: 1,
            group: None,
            started_by: None,
            client_token: None,
            trace_parent: None,
            tags: Tags::new(),
            propagate_tags: None,
            silence: SilencePolicy::default(),
            placement: Placement::default(),
            overrides: TaskOverride::default(),
            queue: None,
        }
    }

    /// Looks up and checks what does not depend on the place.
    pub fn prepare(&self, state: &State, settings: &Settings) -> Result<Prepared, ApiError> {
        self.check(state)?;
        let definition = find_definition(state, &self.task_definition)?;
        if !definition.is_active() {
            return Err(ApiError::TaskDefinitionInactive { name: definition.id.to_string() });
        }
        let tags = self.task_tags(state, settings, &definition)?;
        let silence = self.silence.checked(&definition.definition, settings.heartbeat_ms)?;
        let need = Need::overridden(&definition, &self.overrides, silence)?;
        let group = self.group.clone().unwrap_or_else(|| family_group(&definition));
        Ok(Prepared { definition, need, group, tags, silence })
    }

    /// Its own tags over those it takes over.
    fn task_tags(
        &self,
        state: &State,
        settings: &Settings,
        definition: &DefinitionRecord,
    ) -> Result<Tags, ApiError> {
        let cluster = cluster::active(state, &self.cluster)?;
        let propagate = self.propagate_tags.unwrap_or(cluster.propagate_tags);
        let mut tags = if propagate { definition.tags.clone() } else { Tags::new() };
        tags.extend(self.tags.clone());
        settings.quotas.tags(tags.len())?;
        Ok(tags)
    }

    /// Only a service makes tasks of its group. Where one would go may be asked of any.
    pub fn check_group(&self) -> Result<(), ApiError> {
        match &self.group {
            Some(group) if group.starts_with(SERVICE_GROUP_PREFIX) => {
                let message =
                    format!("groups that begin with {SERVICE_GROUP_PREFIX:?} are those of services");
                Err(ApiError::invalid("group", message))
            }
            _ => Ok(()),
        }
    }

    fn check(&self, state: &State) -> Result<(), ApiError> {
        let longest = |field: &str, text: &Option<String>, limit: usize| match text {
            Some(text) if text.chars().count() > limit => {
                Err(ApiError::invalid(field, format!("must be at most {limit} characters")))
            }
            _ => Ok(()),
        };
        longest("startedBy", &self.started_by, 128)?;
        longest("clientToken", &self.client_token, 64)?;
        longest("group", &self.group, 255)?;
        self.queue.map_or(Ok(()), QueueOptions::check)?;
        require_cluster(state, &self.cluster)
    }

    /// SHA-256 of what was asked for, in hex.
    fn fingerprint(&self) -> String {
        let asked = serde_json::json!([
            self.cluster.as_str(),
            self.task_definition,
            self.count,
            self.group,
            self.started_by
        ]);
        // As it was before there were tags, so that old client tokens keep their meaning.
        let asked = match (&self.tags, self.propagate_tags) {
            (tags, None) if tags.is_empty() => asked,
            (tags, propagate) => serde_json::json!([asked, tags, propagate]),
        };
        let asked = match self.silence == SilencePolicy::default() {
            true => asked,
            false => serde_json::json!([asked, self.silence]),
        };
        let asked = match self.placement.text().is_empty() {
            true => asked,
            false => serde_json::json!([asked, self.placement.text()]),
        };
        let asked = match self.overrides.is_empty() {
            true => asked,
            false => serde_json::json!([asked, self.overrides]),
        };
        let asked = match self.queue {
            None => asked,
            Some(queue) => serde_json::json!([asked, queue]),
        };
        crate::identity::sha256_hex(asked.to_string().as_bytes())
    }

    /// The answer given before to the same request with the same client token.
    pub(crate) fn repeated(&self, state: &State) -> Result<Option<RunTaskAnswer>, ApiError> {
        let Some(token) = &self.client_token else { return Ok(None) };
        let Some(used) = state.client_tokens.get(&(self.cluster.clone(), token.clone())) else {
            return Ok(None);
        };
        if used.fingerprint != self.fingerprint() {
            let tasks: Vec<&str> = used.tasks.iter().map(TaskId::as_str).collect();
            return Err(ApiError::ClientTokenConflict { token: token.clone(), tasks: tasks.join(", ") });
        }
        let tasks = used.tasks.iter().filter_map(|id| state.tasks.get(id)).cloned().collect();
        Ok(Some(RunTaskAnswer { tasks, failures: used.failures.clone() }))
    }

    /// A call that made no task is not remembered, so that it can be tried again.
    fn remember(&self, changes: &mut Changes<'_>, tasks: &[Arc<TaskRecord>], failures: &[PlacementFailure]) {
        if let (Some(token), false) = (&self.client_token, tasks.is_empty()) {
            changes.record(Mutation::ClientToken(Arc::new(ClientTokenRecord {
                cluster: self.cluster.clone(),
                token: token.clone(),
                fingerprint: self.fingerprint(),
                tasks: tasks.iter().map(|task| task.id.clone()).collect(),
                failures: failures.to_vec(),
                created_at_unix_ms: changes.now_ms(),
            })));
        }
    }

    /// The instance of the next task, behind those that wait already; or what every instance lacks.
    fn place(
        &self,
        changes: &Changes<'_>,
        prepared: &Prepared,
        first: Option<&Waiting>,
    ) -> Result<ContainerInstanceId, Vec<PlacementFailure>> {
        let (state, settings) = (changes.state(), changes.settings());
        let nodes = state.columns().of(&self.cluster);
        let head = first.map(|first| first.head(nodes, settings));
        let ask = prepared.need.ask(settings, &prepared.group, &self.placement, changes.luck());
        let ask = Ask { head: head.as_ref(), ..ask };
        match choose::choose(nodes, &ask) {
            Some(row) => Ok(nodes.id(row).clone()),
            None => Err(failures(&self.cluster, nodes, &ask)),
        }
    }

    /// A task that waits for an instance, not yet recorded.
    fn waiting(&self, changes: &Changes<'_>, prepared: &Prepared) -> TaskRecord {
        let options = self.queue.unwrap_or_default();
        let now = changes.now_ms();
        let queue = QueueRecord {
            priority: options.priority,
            until_unix_ms: now + options.limit_ms(),
            store: changes.settings().store,
        };
        let task = self.new_task(changes, prepared, queue::nowhere());
        TaskRecord { last: TaskStatus::Provisioning, queue: Some(queue), ..task }
    }

    /// A task on an instance, not yet recorded.
    pub fn new_task(
        &self,
        changes: &Changes<'_>,
        prepared: &Prepared,
        instance: ContainerInstanceId,
    ) -> TaskRecord {
        let last = changes.state().tasks.last_key_value().map(|(id, _)| id.as_str());
        let (id_ms, digits) = changes.next_id(last);
        let place = (self.cluster.clone(), instance);
        let id = TaskId::from_parts(id_ms, digits);
        TaskRecord {
            group: prepared.group.clone(),
            started_by: self.started_by.clone(),
            resources: prepared.need.resources.clone(),
            trace_parent: self.trace_parent,
            tags: prepared.tags.clone(),
            silence: prepared.silence,
            placement: self.placement.text().clone().into(),
            overrides: self.overrides.clone().into(),
            ..pending(id, &prepared.definition, place, changes.now_ms())
        }
    }
}

/// The group of tasks whose caller names none.
pub fn family_group(definition: &DefinitionRecord) -> String {
    format!("family:{}", definition.id.family)
}

/// A task that is wanted RUNNING and of which nothing was heard yet; what it takes of its node is the
/// caller's to say.
pub fn pending(
    id: TaskId,
    definition: &DefinitionRecord,
    (cluster, instance): (ClusterName, ContainerInstanceId),
    created_at: u64,
) -> TaskRecord {
    TaskRecord {
        id,
        cluster,
        definition: definition.id.clone(),
        instance,
        desired: DesiredStatus::Running,
        last: TaskStatus::Pending,
        stop_code: None,
        stopped_reason: None,
        waiting_reason: None,
        waits: Rare::default(),
        group: family_group(definition),
        started_by: None,
        containers: new_containers(definition),
        version: 0,
        generation: Generation(1),
        report_sequence: 0,
        resources: Resources::default(),
        times: TaskTimes { created_at, ..TaskTimes::default() },
        stop_force: false,
        paused: false,
        settled: Generation::default(),
        refusal: None,
        container_resources: Rare::default(),
        paused_on_node: false,
        resize: None,
        image_digests: definition.image_digests.clone(),
        trace_parent: None,
        tags: Tags::new(),
        silence: None,
        replaces: None,
        replaced_by: None,
        placement: Rare::default(),
        service: None,
        overrides: Rare::default(),
        queue: None,
    }
}

/// A task like this one on another node, not yet recorded; `None` when it fits nowhere.
pub fn instead_of(changes: &Changes<'_>, lost: &TaskRecord) -> Option<TaskRecord> {
    let (state, settings) = (changes.state(), changes.settings());
    let definition = state.definitions.get(&lost.definition)?.clone();
    let need = Need::overridden(&definition, &lost.overrides, lost.silence).ok()?;
    let placement = lost.placement();
    let instance = choose(state, settings, &lost.cluster, &need, &lost.group, &placement, changes.luck())?;
    let again = RunTask {
        started_by: lost.started_by.clone(),
        trace_parent: lost.trace_parent,
        placement,
        overrides: TaskOverride::clone(&lost.overrides),
        ..RunTask::new(lost.cluster.clone(), &lost.definition.to_string())
    };
    let (group, tags, silence) = (lost.group.clone(), lost.tags.clone(), lost.silence);
    Some(again.new_task(changes, &Prepared { definition, need, group, tags, silence }, instance))
}

/// The containers of a task of which nothing was heard yet.
fn new_containers(definition: &DefinitionRecord) -> Vec<ContainerRecord> {
    let containers = definition.definition.container_definitions.iter();
    containers
        .map(|container| ContainerRecord {
            name: container.name.clone(),
            image: container.image.as_str().into(),
            essential: container.essential,
            status: ContainerStatus::Pending,
            exit: None,
            reason: None,
            pid: None,
            image_digest: None,
            address: None,
            network_bindings: Vec::new(),
            limits: KernelLimits::default(),
            health: None,
            restart_count: 0,
            last_exit: None,
            devices: Vec::new(),
        })
        .collect()
}

/// What a task must find on its node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    pub resources: Resources,
    /// By name.
    pub attributes: BTreeSet<String>,
    /// An agent that ends it when its lease has run out.
    pub leases: bool,
}

impl Need {
    /// What the scheduler is asked.
    pub fn ask<'a>(
        &'a self,
        settings: &Settings,
        group: &'a str,
        placement: &'a Placement,
        luck: u128,
    ) -> Ask<'a> {
        let Self { resources, attributes, leases } = self;
        Ask {
            resources,
            required: attributes,
            leases: *leases,
            group,
            placement,
            reserve: reserve(settings),
            luck,
            head: None,
        }
    }

    /// What tasks of a revision with overrides need.
    pub fn overridden(
        definition: &DefinitionRecord,
        overrides: &TaskOverride,
        silence: Option<SilencePolicy>,
    ) -> Result<Self, ApiError> {
        let own = Self::of(definition, silence);
        if overrides.is_empty() {
            return Ok(own);
        }
        let changed = overrides.apply(&definition.definition);
        let changed = changed.map_err(|error| ApiError::invalid(&error.field, error.problem))?;
        let mut attributes = required(&changed);
        attributes.insert(OVERRIDES.to_owned());
        Ok(Self { resources: required_resources(&changed), attributes, ..own })
    }

    /// What tasks of a revision need.
    pub fn of(definition: &DefinitionRecord, silence: Option<SilencePolicy>) -> Self {
        Self {
            resources: required_resources(&definition.definition),
            attributes: required(&definition.definition),
            leases: silence.is_some_and(|policy| policy.exclusive),
        }
    }
}

/// Refuses a cluster that does not exist or is INACTIVE.
pub fn require_cluster(state: &State, cluster: &ClusterName) -> Result<(), ApiError> {
    match state.clusters.get(cluster) {
        Some(record) if record.is_active() => Ok(()),
        Some(_) => Err(ApiError::ClusterInactive { cluster: cluster.to_string() }),
        None => Err(ApiError::ClusterNotFound { cluster: cluster.to_string() }),
    }
}

fn reserve(settings: &Settings) -> Reserve {
    Reserve { cpu_units: settings.reserve_cpu_units, memory_mib: settings.reserve_memory_mib }
}

/// The instance for a task of a group, or `None` when it fits nowhere. Give `Changes::warm` the placement first: it
/// makes this fast. `luck`: see `Changes::luck`.
pub fn choose(
    state: &State,
    settings: &Settings,
    cluster: &ClusterName,
    need: &Need,
    group: &str,
    placement: &Placement,
    luck: u128,
) -> Option<ContainerInstanceId> {
    let nodes = state.columns().of(cluster);
    let row = choose::choose(nodes, &need.ask(settings, group, placement, luck))?;
    Some(nodes.id(row).clone())
}

/// One failure for each node that was looked at, as ECS answers; DRAINING nodes are not.
fn failures(cluster: &ClusterName, nodes: &Nodes, ask: &Ask<'_>) -> Vec<PlacementFailure> {
    let failed = (0..nodes.len()).filter_map(|row| {
        let lack = lack(nodes, ask, row)?;
        let is_candidate = nodes.record(row).status == ContainerInstanceStatus::Active;
        is_candidate.then(|| failure(nodes.id(row), &lack))
    });
    let failures: Vec<_> = failed.take(MAX_FAILURES).collect();
    if failures.is_empty() {
        let (id, reason) = (cluster.to_string(), NO_INSTANCES.to_owned());
        return vec![PlacementFailure { id, reason, detail: String::new() }];
    }
    failures
}

/// A lack as ECS tells of it.
pub fn failure(instance: &ContainerInstanceId, lack: &Lack) -> PlacementFailure {
    PlacementFailure { id: instance.to_string(), reason: lack.reason().to_owned(), detail: lack.words() }
}

fn queue_full(cluster: &ClusterName, error: &ApiError) -> PlacementFailure {
    PlacementFailure { id: cluster.to_string(), reason: "QUEUE_FULL".to_owned(), detail: error.to_string() }
}
