//! What the audit says of each change that somebody asks for.
//! In: a command with who asks. Out: its answer; the record goes into the same commit.
//! What nodes report and what the clocks of the control plane do is no change somebody asked for: it
//! is told by the events. Never: a record of what was refused or changed nothing.

use crate::core::Command;
use crate::core::attribute::{DeleteAttributes, PutAttributes, TargetAttribute};
use crate::core::audit::{Asker, AuditStarted};
use crate::core::cluster::{ClusterSettings, CreateCluster, DeleteCluster, UpdateCluster};
use crate::core::definition::{DeleteDefinitions, DeregisterDefinition, RegisterDefinition};
use crate::core::deregister::DeregisterInstance;
use crate::core::drain::UpdateInstancesState;
use crate::core::join::{CreateJoinToken, Join};
use crate::core::mutation::Changes;
use crate::core::orphan::DecideOrphan;
use crate::core::record::AuditOutcome;
use crate::core::run_task::RunTask;
use crate::core::service::change::{CreateService, DeleteService, UpdateService};
use crate::core::service::control::ControlDeployment;
use crate::core::service::protection::UpdateProtection;
use crate::core::start_task::StartTask;
use crate::core::state::State;
use crate::core::stop_task::StopTask;
use crate::core::tag::{TagResource, UntagResource};
use crate::error::ApiError;
use crate::work::{self, Method, Work};

/// The words of a record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entry {
    /// The name of the method.
    pub action: &'static str,
    /// Empty: of no cluster.
    pub cluster: String,
    pub task: String,
    pub instance: String,
    /// What was asked for, then what came of it.
    pub words: Vec<String>,
}

/// A command that the audit knows.
pub trait Recorded: Command {
    /// Which method asks for it.
    const METHOD: Method;
    /// What was asked for.
    fn entry(&self) -> Entry;
    /// Whether it only asks again for what was done.
    fn is_repeat(&self, _ahead: &State) -> bool {
        false
    }
    /// Adds what came of it.
    fn complete(_answer: &Self::Answer, _entry: &mut Entry) {}
}

/// A command together with who asks.
#[derive(Debug)]
pub struct AskedBy<C> {
    pub asker: Asker,
    pub command: C,
}

impl<C: Recorded> Command for AskedBy<C> {
    type Answer = C::Answer;

    fn is_new_work(&self, ahead: &State) -> bool {
        work::of(C::METHOD) == Work::New && !self.command.is_repeat(ahead)
    }

    fn decide(self, changes: &mut Changes<'_>) -> Result<Self::Answer, ApiError> {
        let mut entry = self.command.entry();
        let before = changes.count();
        let answer = self.command.decide(changes).inspect_err(|error| {
            // It would be committed, without a record, and done again by whoever tries again.
            debug_assert_eq!(changes.count(), before, "refused half-way: {error}");
        })?;
        if changes.count() > before {
            C::complete(&answer, &mut entry);
            record(changes, self.asker, entry);
        }
        Ok(answer)
    }
}

fn record(changes: &mut Changes<'_>, asker: Asker, entry: Entry) {
    let ended_at_unix_ms = changes.now_ms();
    let outcome = AuditOutcome { ended_at_unix_ms, result: "done".to_owned(), bytes_in: 0, bytes_out: 0 };
    let started = AuditStarted {
        user: asker.user,
        address: asker.address,
        action: entry.action,
        cluster: entry.cluster,
        task: entry.task,
        container: String::new(),
        instance: entry.instance,
        command: entry.words,
        outcome: Some(outcome),
    };
    started.record(changes);
}

fn entry(action: &'static str, cluster: impl ToString, words: Vec<String>) -> Entry {
    Entry { action, cluster: cluster.to_string(), words, ..Entry::default() }
}

fn pairs<'a>(pairs: impl IntoIterator<Item = (&'a String, &'a String)>) -> Vec<String> {
    pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

impl Recorded for RegisterDefinition {
    const METHOD: Method = Method::LighterRegisterTaskDefinition;
    fn entry(&self) -> Entry {
        entry("RegisterTaskDefinition", "", Vec::new())
    }
    fn complete(answer: &Self::Answer, entry: &mut Entry) {
        entry.words.push(answer.id.to_string());
    }
}

impl Recorded for DeregisterDefinition {
    const METHOD: Method = Method::LighterDeregisterTaskDefinition;
    fn entry(&self) -> Entry {
        entry("DeregisterTaskDefinition", "", vec![self.task_definition.clone()])
    }
}

impl Recorded for DeleteDefinitions {
    const METHOD: Method = Method::LighterDeleteTaskDefinitions;
    fn entry(&self) -> Entry {
        entry("DeleteTaskDefinitions", "", self.task_definitions.clone())
    }
}

impl Recorded for RunTask {
    const METHOD: Method = Method::LighterRunTask;
    fn entry(&self) -> Entry {
        let mut words = vec![self.task_definition.clone(), format!("count={}", self.count)];
        words.extend(self.silence.replace.then(|| "replace".to_owned()));
        words.extend(self.silence.exclusive.then(|| "exclusive".to_owned()));
        entry("RunTask", &self.cluster, words)
    }
    fn is_repeat(&self, ahead: &State) -> bool {
        self.repeated(ahead).is_ok_and(|answer| answer.is_some())
    }
    fn complete(answer: &Self::Answer, entry: &mut Entry) {
        match answer.tasks.as_slice() {
            [only] => {
                entry.task = only.id.to_string();
                entry.instance = only.instance.to_string();
            }
            tasks => entry.words.extend(tasks.iter().map(|task| task.id.to_string())),
        }
    }
}

impl Recorded for CreateService {
    const METHOD: Method = Method::LighterCreateService;
    fn entry(&self) -> Entry {
        let mut words = vec![self.input.service.clone()];
        words.extend(self.input.task_definition.clone());
        words.extend(self.input.desired_count.map(|count| format!("desiredCount={count}")));
        entry("CreateService", &self.cluster, words)
    }
    fn is_repeat(&self, ahead: &State) -> bool {
        self.repeated(ahead).is_ok_and(|found| found.is_some())
    }
}

impl Recorded for UpdateService {
    const METHOD: Method = Method::LighterUpdateService;
    fn entry(&self) -> Entry {
        let mut words = vec![self.input.service.clone()];
        words.extend(self.input.task_definition.clone());
        words.extend(self.input.desired_count.map(|count| format!("desiredCount={count}")));
        words.extend(self.input.force_new_deployment.then(|| "forceNewDeployment".to_owned()));
        entry("UpdateService", &self.cluster, words)
    }
}

impl Recorded for DeleteService {
    const METHOD: Method = Method::LighterDeleteService;
    fn entry(&self) -> Entry {
        let force = self.force.then(|| "force".to_owned());
        let words = std::iter::once(self.service.clone()).chain(force);
        entry("DeleteService", &self.cluster, words.collect())
    }
}

impl Recorded for ControlDeployment {
    const METHOD: Method = Method::LighterControlDeployment;
    fn entry(&self) -> Entry {
        let words = vec![self.service.clone(), self.action.as_str().to_owned()];
        entry("ControlDeployment", &self.cluster, words)
    }
}

impl Recorded for UpdateProtection {
    const METHOD: Method = Method::LighterUpdateTaskProtection;
    fn entry(&self) -> Entry {
        let mut words = vec![format!("protectionEnabled={}", self.enabled)];
        words.extend(self.tasks.iter().cloned());
        entry("UpdateTaskProtection", &self.cluster, words)
    }
}

impl Recorded for StartTask {
    const METHOD: Method = Method::LighterStartTask;
    fn entry(&self) -> Entry {
        let words = std::iter::once(&self.run.task_definition).chain(&self.instances).cloned();
        entry("StartTask", &self.run.cluster, words.collect())
    }
    fn complete(answer: &Self::Answer, entry: &mut Entry) {
        RunTask::complete(answer, entry);
    }
}

impl Recorded for StopTask {
    const METHOD: Method = Method::LighterStopTask;
    fn entry(&self) -> Entry {
        let force = self.force.then(|| "force".to_owned());
        entry("StopTask", &self.cluster, self.reason.clone().into_iter().chain(force).collect())
    }
    fn complete(answer: &Self::Answer, entry: &mut Entry) {
        entry.task = answer.id.to_string();
        entry.instance = answer.instance.to_string();
    }
}

impl Recorded for CreateJoinToken {
    const METHOD: Method = Method::LighterCreateJoinToken;
    fn entry(&self) -> Entry {
        let mut words = vec![format!("ttl={}s", self.time_to_live_s)];
        words.extend(pairs(&self.attributes));
        entry("CreateJoinToken", &self.cluster, words)
    }
    fn complete(answer: &Self::Answer, entry: &mut Entry) {
        entry.words.push(answer.id.clone());
    }
}

impl Recorded for Join {
    const METHOD: Method = Method::NodeJoin;
    fn entry(&self) -> Entry {
        entry("Join", "", vec![self.name.clone()])
    }
    fn complete(answer: &Self::Answer, entry: &mut Entry) {
        entry.cluster = answer.cluster.to_string();
        entry.instance = answer.id.to_string();
    }
}

impl Recorded for UpdateInstancesState {
    const METHOD: Method = Method::LighterUpdateContainerInstancesState;
    fn entry(&self) -> Entry {
        let status = if self.draining { "DRAINING" } else { "ACTIVE" };
        let mut words = vec![status.to_owned()];
        words.extend(self.instances.iter().cloned());
        words.extend(self.stop_tasks.then(|| "stopTasks".to_owned()));
        entry("UpdateContainerInstancesState", &self.cluster, words)
    }
}

impl Recorded for DeregisterInstance {
    const METHOD: Method = Method::LighterDeregisterContainerInstance;
    fn entry(&self) -> Entry {
        let words = self.force.then(|| "force".to_owned());
        entry("DeregisterContainerInstance", &self.cluster, words.into_iter().collect())
    }
    fn complete(answer: &Self::Answer, entry: &mut Entry) {
        entry.instance = answer.instance.id.to_string();
    }
}

fn of_targets(targets: &[TargetAttribute]) -> Vec<String> {
    targets.iter().map(|t| format!("{}: {}={}", t.instance, t.name, t.value)).collect()
}

impl Recorded for PutAttributes {
    const METHOD: Method = Method::LighterPutAttributes;
    fn entry(&self) -> Entry {
        entry("PutAttributes", &self.cluster, of_targets(&self.attributes))
    }
}

impl Recorded for DeleteAttributes {
    const METHOD: Method = Method::LighterDeleteAttributes;
    fn entry(&self) -> Entry {
        entry("DeleteAttributes", &self.cluster, of_targets(&self.attributes))
    }
}

fn of_settings(settings: ClusterSettings) -> Vec<String> {
    settings.propagate_tags.map(|on| format!("defaultPropagateTags={on}")).into_iter().collect()
}

impl Recorded for DecideOrphan {
    /// StopOrphan is of the same work.
    const METHOD: Method = Method::LighterAdoptOrphan;
    fn entry(&self) -> Entry {
        let action = if self.stop.is_some() { "StopOrphan" } else { "AdoptOrphan" };
        let (task, instance) = (self.held.task.to_string(), self.instance.to_string());
        let words = self.stop.iter().cloned().collect();
        Entry { task, instance, ..entry(action, &self.cluster, words) }
    }
}

impl Recorded for CreateCluster {
    const METHOD: Method = Method::LighterCreateCluster;
    fn entry(&self) -> Entry {
        let mut words = of_settings(self.settings);
        words.extend(pairs(&self.tags));
        entry("CreateCluster", &self.cluster, words)
    }
}

impl Recorded for UpdateCluster {
    const METHOD: Method = Method::LighterUpdateCluster;
    fn entry(&self) -> Entry {
        let mut words = of_settings(self.settings);
        words.extend(self.release_brake.then(|| "releaseReplacementBrake".to_owned()));
        entry("UpdateCluster", &self.cluster, words)
    }
}

impl Recorded for DeleteCluster {
    const METHOD: Method = Method::LighterDeleteCluster;
    fn entry(&self) -> Entry {
        entry("DeleteCluster", &self.cluster, Vec::new())
    }
}

impl Recorded for TagResource {
    const METHOD: Method = Method::LighterTagResource;
    fn entry(&self) -> Entry {
        let mut words = vec![self.resource.clone()];
        words.extend(pairs(&self.tags));
        entry("TagResource", "", words)
    }
}

impl Recorded for UntagResource {
    const METHOD: Method = Method::LighterUntagResource;
    fn entry(&self) -> Entry {
        let mut words = vec![self.resource.clone()];
        words.extend(self.keys.iter().cloned());
        entry("UntagResource", "", words)
    }
}
