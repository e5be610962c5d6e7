//! Creates one task on each of the container instances that the caller names: resources and attributes count,
//! constraints and strategies are not asked. In: a `StartTask`. Out: tasks, and failures of instances.
//! Never: puts a task where it does not fit. Source: Amazon ECS API reference, StartTask.

use crate::core::Command;
use crate::core::instance::find_instance;
use crate::core::mutation::Changes;
use crate::core::named;
use crate::core::record::{InstanceRecord, PlacementFailure};
use crate::core::run_task::{self, Prepared, RunTask, RunTaskAnswer};
use crate::error::ApiError;
use crate::scheduler::explain::lack;
use lighter_model::ids::ContainerInstanceId;
use std::sync::Arc;

/// Container instances of one call (Amazon ECS API reference, StartTask).
const INSTANCES_MAX: usize = 10;

/// Starts tasks on named instances.
#[derive(Debug, Clone)]
pub struct StartTask {
    /// What each of them is.
    pub run: RunTask,
    /// Ids, ARNs, unique beginnings of ids or names.
    pub instances: Vec<String>,
}

impl Command for StartTask {
    type Answer = RunTaskAnswer;

    fn decide(self, changes: &mut Changes<'_>) -> Result<RunTaskAnswer, ApiError> {
        let named = self.instances.len();
        if !(1..=INSTANCES_MAX).contains(&named) {
            let problem = format!("must be 1 to {INSTANCES_MAX}, got {named}");
            return Err(ApiError::invalid("containerInstances", problem));
        }
        self.run.check_group()?;
        let prepared = self.run.prepare(changes.state(), changes.settings())?;
        let mut answer = RunTaskAnswer { tasks: Vec::new(), failures: Vec::new() };
        let found = |name: &str| find_instance(changes.state(), &self.run.cluster, name);
        for (name, instance) in named::each(&self.instances, found)? {
            match self.place(changes, &prepared, name, instance) {
                Ok(instance) => {
                    let task = self.run.new_task(changes, &prepared, instance);
                    answer.tasks.push(changes.put_task(task));
                }
                Err(failure) => answer.failures.push(failure),
            }
        }
        Ok(answer)
    }
}

impl StartTask {
    /// The instance, or why it does not take the task.
    fn place(
        &self,
        changes: &Changes<'_>,
        prepared: &Prepared,
        name: &str,
        instance: Result<Arc<InstanceRecord>, ApiError>,
    ) -> Result<ContainerInstanceId, PlacementFailure> {
        let missing = |error: ApiError| PlacementFailure {
            id: name.to_owned(),
            reason: "MISSING".to_owned(),
            detail: error.to_string(),
        };
        let instance = instance.map_err(missing)?;
        let nodes = changes.state().columns().of(&self.run.cluster);
        let ask = prepared.need.ask(changes.settings(), &prepared.group, &self.run.placement, 0);
        let lack = nodes.row(&instance.id).and_then(|row| lack(nodes, &ask, row));
        match lack {
            Some(lack) => Err(run_task::failure(&instance.id, &lack)),
            None => Ok(instance.id.clone()),
        }
    }
}
