//! Row 7, and the part of row 9 that can be done early: shim, devices, host ports, leases, attachments.
//! In: the definition, what an earlier agent had begun. Out: a network namespace a container.
//! The shim binds the ports first, then leases and ports are recorded, then the network is made: a
//! mapping never leads a port that is not ours. Owns nothing; `teardown` undoes it.
//! Never: maps a port it has not bound; touches the kernel itself.

use super::journal::Journal;
use super::prepare::Failure;
use super::{Begun, Held, TaskContext};
use crate::errors::{Cause, chain};
use crate::facilities::{Attached, BindFailure, Shim};
use crate::store::records::Step;
use futures_util::future::join_all;
use lighter_model::ids::{AttachmentKey, ContainerName};
use lighter_model::report::NetworkBinding;
use lighter_model::resources::HostPort;
use lighter_model::task_definition::{
    ContainerDefinition, NetworkMode, TaskDefinition, TransportProtocol, UsernsMode,
};
use lighter_net::{AddRequest, AttachmentMode, PortForward};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Instant;
use tokio_util::sync::CancellationToken;

/// By container; empty in host mode.
pub(super) type AttachedAll = BTreeMap<ContainerName, Attached>;

/// Candidates tried for the dynamic ports of one task before it is given up.
const BIND_ATTEMPTS: usize = 500;

/// One mapping with the host ports it has got: `count` ports in a row on both sides.
#[derive(Debug, Clone)]
struct Mapping {
    container: ContainerName,
    /// The first.
    container_port: u16,
    count: u16,
    protocol: TransportProtocol,
    /// The first; 0: none yet.
    host_port: u16,
    dynamic: bool,
}

impl Mapping {
    fn host_ports(&self) -> RangeInclusive<u16> {
        self.host_port..=self.host_port.saturating_add(self.count.saturating_sub(1))
    }

    /// Container port and host port, each with its partner.
    fn pairs(&self) -> impl Iterator<Item = (u16, u16)> {
        (self.container_port..=u16::MAX).zip(self.host_ports())
    }
}

pub(super) async fn place(
    context: &TaskContext,
    journal: &mut Journal,
    held: &mut Held,
    begun: Option<Begun>,
    give_up: &CancellationToken,
) -> Result<AttachedAll, Failure> {
    let definition = held.definition.clone();
    let resumed = begun.is_some();
    let begun_at = Instant::now();
    held.link = Some(match begun {
        Some(begun) => begun.link,
        None => context.facilities.runtime.start_shim(&journal.record.task, &definition).await.map_err(
            |error| {
                Failure::words(
                    "ResourceInitializationError",
                    format!("start the task's monitor: {}", chain(error.as_ref())),
                )
            },
        )?,
    });
    tracing::debug!(task = %journal.record.task, took = ?begun_at.elapsed(), "the monitor is there");
    if give_up.is_cancelled() {
        return Err(Failure::GaveUp);
    }
    // An earlier agent had bound and recorded everything; ADD again gives the same answer.
    if !resumed && let Some(link) = &held.link {
        lease(context, journal, &definition, link.shim.as_ref()).await?;
    }
    tracing::debug!(task = %journal.record.task, after = ?begun_at.elapsed(), "ports and leases are recorded");
    let added = add_all(context, journal, &definition).await;
    tracing::debug!(task = %journal.record.task, after = ?begun_at.elapsed(), "attachments are made");
    added
}

/// Binds ports, leases addresses, and writes both down in one commit.
async fn lease(
    context: &TaskContext,
    journal: &mut Journal,
    definition: &Arc<TaskDefinition>,
    shim: &dyn Shim,
) -> Result<(), Failure> {
    let mut devices = context
        .leases
        .take_devices(&journal.record.task, definition)
        .await
        .map_err(|error| Failure::words("ResourceInitializationError", error))?;
    let mappings = match definition.network_mode {
        NetworkMode::Bridge => bind(context, definition, shim).await?,
        NetworkMode::Host => host_mappings(definition),
        NetworkMode::None => Vec::new(),
    };
    for container in &mut journal.record.containers {
        let own = mappings.iter().filter(|mapping| mapping.container == container.name);
        container.bindings = own.flat_map(bindings).collect();
        container.devices = devices.remove(&container.name).unwrap_or_default();
    }
    let requests: Vec<AddRequest> = definition
        .container_definitions
        .iter()
        .filter_map(|container| {
            let mode = attachment_mode(definition, container)?;
            Some(request(journal, mode, container, &mappings))
        })
        .collect();
    if !requests.is_empty() {
        let planned = context.leases.plan(requests).await;
        let records =
            planned.map_err(|error| Failure::words("ResourceInitializationError", chain(&error)))?;
        for record in records {
            if let Some(container) = journal.record.container_mut(&record.key.container) {
                container.attachment = Some(record.clone());
            }
        }
    }
    journal.commit(Step::Preparing).await.map_err(|error| Failure::store(&error))
}

fn bindings(mapping: &Mapping) -> impl Iterator<Item = NetworkBinding> {
    mapping.pairs().map(|(container_port, host_port)| NetworkBinding {
        bind_ip: Ipv4Addr::UNSPECIFIED.to_string(),
        container_port,
        host_port,
        protocol: mapping.protocol,
    })
}

/// The namespace of a container; `None`: the node's own.
fn attachment_mode(definition: &TaskDefinition, container: &ContainerDefinition) -> Option<AttachmentMode> {
    match definition.network_mode {
        _ if container.disable_networking => Some(AttachmentMode::None),
        NetworkMode::Bridge => Some(AttachmentMode::Bridge),
        NetworkMode::None => Some(AttachmentMode::None),
        NetworkMode::Host => None,
    }
}

fn request(
    journal: &Journal,
    mode: AttachmentMode,
    container: &ContainerDefinition,
    mappings: &[Mapping],
) -> AddRequest {
    let own = mappings.iter().filter(|mapping| mapping.container == container.name);
    AddRequest {
        key: AttachmentKey::new(journal.record.task.clone(), container.name.clone()),
        mode,
        address: None,
        ports: own
            .flat_map(|mapping| {
                mapping.pairs().map(|(target_port, host_port)| PortForward {
                    protocol: mapping.protocol,
                    host_ip: Ipv4Addr::UNSPECIFIED,
                    host_port,
                    target_port,
                })
            })
            .collect(),
    }
}

/// The containers use the host's ports themselves; nothing is bound for them.
fn host_mappings(definition: &TaskDefinition) -> Vec<Mapping> {
    let mut mappings = wanted(definition);
    for mapping in &mut mappings {
        if mapping.host_port == 0 {
            mapping.host_port = mapping.container_port;
        }
        mapping.dynamic = false;
    }
    mappings
}

fn wanted(definition: &TaskDefinition) -> Vec<Mapping> {
    let containers = definition.container_definitions.iter();
    let all =
        containers.flat_map(|container| container.port_mappings.iter().map(move |port| (container, port)));
    all.map(|(container, port)| Mapping {
        container: container.name.clone(),
        container_port: *port.container_ports().start(),
        count: port.container_ports().len() as u16,
        protocol: port.protocol,
        host_port: port.host_port,
        dynamic: port.host_port == 0,
    })
    .collect()
}

async fn bind(
    context: &TaskContext,
    definition: &TaskDefinition,
    shim: &dyn Shim,
) -> Result<Vec<Mapping>, Failure> {
    let mut mappings = wanted(definition);
    if mappings.is_empty() {
        return Ok(mappings);
    }
    let bound = bind_candidates(context, &mut mappings, shim).await;
    if bound.is_err() {
        for mapping in mappings.iter().filter(|mapping| mapping.dynamic && mapping.host_port != 0) {
            context.leases.release_ports(mapping.protocol, mapping.host_ports()).await;
        }
    }
    bound.map(|()| mappings)
}

/// Tries candidates for the dynamic ports until the shim could bind all; only its bind decides.
async fn bind_candidates(
    context: &TaskContext,
    mappings: &mut [Mapping],
    shim: &dyn Shim,
) -> Result<(), Failure> {
    for _ in 0..BIND_ATTEMPTS {
        for mapping in mappings.iter_mut().filter(|mapping| mapping.host_port == 0) {
            let first = context.leases.next_ports(mapping.protocol, mapping.count).await;
            mapping.host_port = first.ok_or_else(|| no_port(mapping.count))?;
        }
        let row = |m: &Mapping| {
            let protocol = m.protocol;
            m.host_ports().map(move |port| HostPort { protocol, port })
        };
        let ports: Vec<HostPort> = mappings.iter().flat_map(row).collect();
        let Err(failure) = shim.bind_ports(&ports).await else { return Ok(()) };
        let taken = mappings.iter_mut().find(|mapping| {
            failure.in_use
                && mapping.dynamic
                && mapping.host_ports().contains(&failure.port.port)
                && mapping.protocol == failure.port.protocol
        });
        let Some(taken) = taken else { return Err(cannot_bind(context, &failure)) };
        context.leases.release_ports(taken.protocol, taken.host_ports()).await;
        taken.host_port = 0;
    }
    Err(Failure::words(
        "ResourceInitializationError",
        format!("no dynamic host port could be bound in {BIND_ATTEMPTS} attempts"),
    ))
}

fn no_port(count: u16) -> Failure {
    let what = match count {
        1 => "no dynamic host port is".to_owned(),
        count => format!("no {count} dynamic host ports in a row are"),
    };
    let text = format!("{what} free on this node (ip_local_port_range)");
    Failure::words("ResourceInitializationError", text)
}

fn cannot_bind(context: &TaskContext, failure: &BindFailure) -> Failure {
    let owner = failure.in_use.then(|| context.facilities.network.port_owner(failure.port)).flatten();
    let text = match owner {
        Some(owner) => format!(
            "host port {}/{} is in use by {owner}; stop it or choose another hostPort",
            failure.port.port,
            failure.port.protocol.as_str()
        ),
        None => chain(failure),
    };
    Failure::words("CannotStartContainerError", text)
}

async fn add_all(
    context: &TaskContext,
    journal: &Journal,
    definition: &TaskDefinition,
) -> Result<AttachedAll, Failure> {
    let mapped = definition.userns_mode == UsernsMode::Auto;
    let adds = journal.record.attachments().map(|record| async move {
        let failed = |error: Cause| {
            let text = format!("network of container {}: {}", record.key.container, chain(error.as_ref()));
            Failure::words("ResourceInitializationError", text)
        };
        if mapped {
            let path = context.config.netns_dir().join(&record.netns);
            context.facilities.runtime.make_netns(&record.key.task, &path).await.map_err(failed)?;
        }
        let attached = context.facilities.network.add(record).await.map_err(failed)?;
        Ok((record.key.container.clone(), attached))
    });
    // Every one is awaited, also when another fails: teardown must find nothing under way.
    join_all(adds).await.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_of_ports_meets_as_many_host_ports() {
        let mapping = Mapping {
            container: "a".parse().unwrap(),
            container_port: 65_530,
            count: 6,
            protocol: TransportProtocol::Tcp,
            host_port: 40_000,
            dynamic: true,
        };
        let pairs: Vec<(u16, u16)> = mapping.pairs().collect();
        assert_eq!((pairs.len(), pairs[0], pairs[5]), (6, (65_530, 40_000), (65_535, 40_005)));
        let json = r#"{"family":"f","networkMode":"host","containerDefinitions":[{"name":"a","image":"i","portMappings":[{"containerPortRange":"80-82"}]}]}"#;
        let definition: TaskDefinition = serde_json::from_str(json).unwrap();
        let host = host_mappings(&definition);
        assert_eq!(host[0].pairs().collect::<Vec<_>>(), [(80, 80), (81, 81), (82, 82)]);
    }

    #[test]
    fn a_container_without_networking_has_only_a_loopback() {
        for (network, disabled, expected) in [
            ("bridge", false, Some(AttachmentMode::Bridge)),
            ("bridge", true, Some(AttachmentMode::None)),
            ("host", false, None),
            ("host", true, Some(AttachmentMode::None)),
            ("none", false, Some(AttachmentMode::None)),
        ] {
            let json = format!(
                r#"{{"family":"f","networkMode":"{network}","containerDefinitions":[{{"name":"a","image":"i","disableNetworking":{disabled}}}]}}"#
            );
            let definition: TaskDefinition = serde_json::from_str(&json).unwrap();
            let mode = attachment_mode(&definition, &definition.container_definitions[0]);
            assert_eq!(mode, expected, "{network} {disabled}");
        }
    }
}
