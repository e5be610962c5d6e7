//! Log drivers: send what containers write to journald, syslog, fluentd or an HTTP endpoint.
//! The ring on disk is the container's rotated log files, which lighter-shim writes whatever a sink
//! does. For each container with such a driver one tokio task (`shipper`) reads the ring and gives
//! batches to its sink; how far it is, is in the agent's store (`LogDeliveryRecord`).
//! In: definitions as they are launched, the ends of tasks. Out: records at sinks, at least once and
//! in order; lines that left the ring before are counted and marked. Owns: the shippers (`delivery`).
//! Never: slows a container down; holds more than one batch a container; reads while nothing is
//! written. `json-file` and `none` need nothing of this.

mod batch;
mod delivery;
mod fluentd;
mod http;
mod identity;
mod journald;
mod msgpack;
mod peer;
mod shipper;
mod sink;
mod syslog;
#[cfg(test)]
mod tests;
mod totals;

pub(crate) use delivery::{DeliveryParts, LogDelivery};
pub(crate) use identity::NodeNames;
pub use totals::LogDriverTotals;

use crate::store::records::{FORMAT_VERSION, LogDeliveryRecord};
use lighter_model::ids::TaskId;
use lighter_model::task_definition::log::{Attributes, LogSettings, SinkSettings};
use lighter_model::task_definition::{ContainerDefinition, TaskDefinition};
use std::collections::BTreeMap;

/// What has to be sent of a task's output; empty for a task without such drivers. Pure.
fn deliveries(task: &TaskId, definition: &TaskDefinition) -> Vec<LogDeliveryRecord> {
    let containers = definition.container_definitions.iter();
    containers.filter_map(|container| delivery_of(task, definition, container)).collect()
}

fn delivery_of(
    task: &TaskId,
    definition: &TaskDefinition,
    container: &ContainerDefinition,
) -> Option<LogDeliveryRecord> {
    let configuration = container.log_configuration.as_ref()?;
    let settings: LogSettings = configuration.settings().ok()?;
    let none = Attributes::default();
    let attributes = match &settings.sink {
        SinkSettings::Files | SinkSettings::Nothing => return None,
        SinkSettings::Syslog(_) => &none,
        SinkSettings::Journald(attributes) => attributes,
        SinkSettings::Fluentd(fluentd) => &fluentd.attributes,
        SinkSettings::Http(http) => &http.attributes,
    };
    Some(LogDeliveryRecord {
        version: FORMAT_VERSION,
        task: task.clone(),
        container: container.name.clone(),
        image: container.image.clone(),
        family: definition.family.to_string(),
        configuration: configuration.clone(),
        extra: extra(container, attributes),
        next: 0,
    })
}

/// The labels and variables that `labels` and `env` name.
fn extra(container: &ContainerDefinition, attributes: &Attributes) -> BTreeMap<String, String> {
    let labels = attributes.labels.iter().filter_map(|name| container.docker_labels.get_key_value(name));
    let labels = labels.map(|(name, value)| (name.clone(), value.clone()));
    let variables = container.environment.iter().filter(|pair| attributes.env.contains(&pair.name));
    labels.chain(variables.map(|pair| (pair.name.clone(), pair.value.clone()))).collect()
}
