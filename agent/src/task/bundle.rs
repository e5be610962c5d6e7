//! Row 8: definition + image configuration + attachment → a bundle for each container, all at once.
//! In: what the earlier steps made. Out: bundles, written by the runtime crate.
//! A crash here costs nothing: the bundle is written again. Owns nothing.
//! Never: makes a spec; that is the runtime's.

use super::TaskContext;
use super::prepare::Failure;
use super::volumes::Mounts;
use crate::errors::chain;
use crate::facilities::{Attached, Bundle, BundleOrder, Image};
use crate::join::identity::host_name;
use crate::store::records::TaskRecord;
use futures_util::future::join_all;
use lighter_model::ids::ContainerName;
use lighter_model::task_definition::{ContainerDefinition, NetworkMode, TaskDefinition};
use lighter_net::files;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;

/// What the earlier steps made, by container.
pub(super) struct Parts<'a> {
    pub images: &'a BTreeMap<ContainerName, Image>,
    pub rootfs: &'a BTreeMap<ContainerName, PathBuf>,
    pub attached: &'a BTreeMap<ContainerName, Attached>,
    pub mounts: &'a BTreeMap<ContainerName, Mounts>,
}

pub(super) async fn write_all(
    context: &TaskContext,
    record: &TaskRecord,
    definition: &Arc<TaskDefinition>,
    parts: &Parts<'_>,
) -> Result<Vec<(ContainerName, Bundle)>, Failure> {
    let resolv_conf = resolv_conf(context, definition.network_mode);
    let orders = definition.container_definitions.iter().map(|container| {
        let order = order(context, record, definition, container, parts, &resolv_conf);
        async move {
            let Some(order) = order else {
                return Err(Failure::words(
                    "CannotCreateContainerError",
                    format!("container {} has no image", container.name),
                ));
            };
            let bundle = context.facilities.runtime.write_bundle(&order).await.map_err(|error| {
                Failure::words(
                    "CannotCreateContainerError",
                    format!("container {}: {}", container.name, chain(error.as_ref())),
                )
            })?;
            Ok((container.name.clone(), bundle))
        }
    });
    join_all(orders).await.into_iter().collect()
}

fn order(
    context: &TaskContext,
    record: &TaskRecord,
    definition: &Arc<TaskDefinition>,
    container: &ContainerDefinition,
    parts: &Parts<'_>,
    resolv_conf: &str,
) -> Option<BundleOrder> {
    let host_network = definition.network_mode == NetworkMode::Host;
    let hostname = match &container.hostname {
        Some(hostname) => hostname.clone(),
        None if host_network => host_name(),
        None => files::hostname(container.name.as_str()),
    };
    let attachment = record.attachments().find(|attachment| attachment.key.container == container.name);
    let address: Option<Ipv4Addr> = attachment.and_then(|attachment| attachment.address);
    Some(BundleOrder {
        task: record.task.clone(),
        container: container.name.clone(),
        definition: definition.clone(),
        image: parts.images.get(&container.name)?.config.clone(),
        rootfs: parts.rootfs.get(&container.name)?.clone(),
        netns: parts.attached.get(&container.name).map(|attached| attached.netns.clone()),
        hosts: files::hosts_file(&hostname, address, &[]),
        hostname_file: files::hostname_file(&hostname),
        resolv_conf: resolv_conf.to_owned(),
        hostname,
        mounts: parts.mounts.get(&container.name).cloned().unwrap_or_default(),
        allow_privileged: context.config.allow_privileged,
        allow_devices: context.config.allow_devices,
    })
}

fn resolv_conf(context: &TaskContext, mode: NetworkMode) -> String {
    let host = files::host_resolv_conf();
    if mode == NetworkMode::Host {
        return host;
    }
    let fallback = &context.config.dns_fallback;
    files::resolv_conf(&host, if fallback.is_empty() { &files::PUBLIC_NAME_SERVERS } else { fallback })
}
