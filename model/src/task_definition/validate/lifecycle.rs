//! The rules on dependsOn, healthCheck and restartPolicy.
//! In: a definition. Out: what is wrong. Owns nothing. Never: knows what a node has.
//! Source: Amazon ECS API reference, ContainerDependency, HealthCheck, ContainerRestartPolicy.

use super::Found;
use crate::ids::ContainerName;
use crate::task_definition::{ContainerDefinition, DependencyCondition, HealthCheck, TaskDefinition};
use std::collections::{BTreeMap, BTreeSet};

/// ECS's bound.
const IGNORED_EXIT_CODES_MAX: usize = 50;

impl Found {
    pub(super) fn lifecycle(&mut self, definition: &TaskDefinition) {
        let containers = &definition.container_definitions;
        for (index, container) in containers.iter().enumerate() {
            let at = format!("containerDefinitions[{index}]");
            self.depends_on(&at, container, containers);
            if let Some(check) = &container.health_check {
                self.health_check(&format!("{at}.healthCheck"), check);
            }
            let ignored =
                container.restart_policy.iter().flat_map(|policy| &policy.ignored_exit_codes).count();
            if ignored > IGNORED_EXIT_CODES_MAX {
                self.add(
                    format!("{at}.restartPolicy.ignoredExitCodes"),
                    format!("may name {IGNORED_EXIT_CODES_MAX} exit codes, not {ignored}"),
                );
            }
        }
        self.circles(containers);
    }

    fn depends_on(&mut self, at: &str, container: &ContainerDefinition, all: &[ContainerDefinition]) {
        let mut named = BTreeSet::new();
        for (index, dependency) in container.depends_on.iter().enumerate() {
            let field = format!("{at}.dependsOn[{index}]");
            let name = &dependency.container_name;
            if !named.insert((name, dependency.condition.as_str())) {
                self.add(&field, format!("container {:?} is named twice", name.as_str()));
            }
            if *name == container.name {
                self.add(format!("{field}.containerName"), "must be another container");
                continue;
            }
            let Some(other) = all.iter().find(|other| other.name == *name) else {
                self.add(
                    format!("{field}.containerName"),
                    format!("no container of the task definition is named {:?}", name.as_str()),
                );
                continue;
            };
            if let Some(message) = cannot_hold(dependency.condition, other) {
                self.add(format!("{field}.condition"), message);
            }
        }
    }

    fn health_check(&mut self, at: &str, check: &HealthCheck) {
        let command = &check.command;
        match command.first().map(String::as_str) {
            None if check.from_image => {}
            None => self.add(
                format!("{at}.command"),
                "is required: [\"CMD\", …], [\"CMD-SHELL\", \"…\"], or fromImage for the image's own",
            ),
            Some(_) if check.from_image => {
                self.add(format!("{at}.fromImage"), "must not be given together with a command");
            }
            Some("CMD") if command.len() >= 2 && !command[1].is_empty() => {}
            Some("CMD-SHELL") if command.len() == 2 && !command[1].is_empty() => {}
            Some("NONE") if command.len() == 1 => {}
            Some("CMD") => self.add(format!("{at}.command"), "must name a program after CMD"),
            Some("CMD-SHELL") => self.add(format!("{at}.command"), "must be one text after CMD-SHELL"),
            Some(_) => self.add(format!("{at}.command"), "must begin with CMD, CMD-SHELL or NONE"),
        }
    }

    /// Circles over everything that orders two starts.
    fn circles(&mut self, containers: &[ContainerDefinition]) {
        let find = |name: &str| containers.iter().map(|c| &c.name).find(|known| known.as_str() == name);
        let edges: BTreeMap<&ContainerName, Vec<&ContainerName>> = containers
            .iter()
            .map(|c| (&c.name, c.comes_after().filter_map(|(name, _)| find(name)).collect()))
            .collect();
        for (index, container) in containers.iter().enumerate() {
            for (at, dependency) in container.depends_on.iter().enumerate() {
                let other = &dependency.container_name;
                if other != &container.name && super::reaches(&edges, other, &container.name) {
                    self.add(
                        format!("containerDefinitions[{index}].dependsOn[{at}].containerName"),
                        format!("goes in a circle: {:?} comes after this container", other.as_str()),
                    );
                }
            }
        }
    }
}

/// Why a condition can never be true of a container.
fn cannot_hold(condition: DependencyCondition, other: &ContainerDefinition) -> Option<String> {
    let name = other.name.as_str();
    match condition {
        DependencyCondition::Complete | DependencyCondition::Success if other.essential => Some(format!(
            "{} is not possible: container {name:?} is essential, so its end is the task's; make it essential false",
            condition.as_str()
        )),
        DependencyCondition::Healthy if !other.is_checked() => {
            Some(format!("HEALTHY is not possible: container {name:?} has no healthCheck"))
        }
        _ => None,
    }
}
