//! Row 8: definition + image configuration + attachment → a bundle for each container, all at once.
//! In: what the earlier steps made. Out: bundles, written by the runtime crate.
//! A crash here costs nothing: the bundle is written again. Owns nothing.
//! Never: makes a spec; that is the runtime's.

use super::TaskContext;
use super::devices;
use super::environment::Variables;
use super::names;
use super::prepare::Failure;
use super::unable::Unable;
use super::volumes::Mounts;
use crate::errors::chain;
use crate::facilities::{Attached, Bundle, BundleOrder, Image};
use crate::join::identity::host_name;
use crate::policy;
use crate::store::records::TaskRecord;
use futures_util::future::join_all;
use lighter_model::ids::ContainerName;
use lighter_model::task_definition::{ContainerDefinition, TaskDefinition};
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
    pub variables: &'a Variables,
    /// Those that none is written for.
    pub unable: &'a Unable,
}

pub(super) async fn write_all(
    context: &TaskContext,
    record: &TaskRecord,
    definition: &Arc<TaskDefinition>,
    parts: &Parts<'_>,
) -> Vec<(ContainerName, Result<Bundle, Failure>)> {
    let host_resolv_conf = files::host_resolv_conf();
    let able = definition.container_definitions.iter().filter(|c| !parts.unable.has(&c.name));
    let bundles = able.map(|container| {
        let order = order(context, record, definition, container, parts, &host_resolv_conf);
        let failed = |text| {
            Failure::words("CannotCreateContainerError", format!("container {}: {text}", container.name))
        };
        async move {
            let bundle = match order {
                Some(order) => {
                    let written = context.facilities.runtime.write_bundle(&order).await;
                    written.map_err(|error| failed(chain(error.as_ref())))
                }
                None => Err(failed("it has no image".to_owned())),
            };
            (container.name.clone(), bundle)
        }
    });
    join_all(bundles).await
}

fn order(
    context: &TaskContext,
    record: &TaskRecord,
    definition: &Arc<TaskDefinition>,
    container: &ContainerDefinition,
    parts: &Parts<'_>,
    host_resolv_conf: &str,
) -> Option<BundleOrder> {
    let hostname = names::hostname(definition, container, &host_name());
    let addresses: BTreeMap<ContainerName, Ipv4Addr> = record
        .attachments()
        .filter_map(|attachment| Some((attachment.key.container.clone(), attachment.address?)))
        .collect();
    let attached = parts.attached.get(&container.name);
    let gateway = attached.and_then(|attached| attached.gateway);
    let fallback = &context.config.dns_fallback;
    let granted = record.containers.iter().find(|own| own.name == container.name);
    let granted = granted.map(|own| own.devices.as_slice()).unwrap_or_default();
    let (devices, variables) = devices::shown(granted, &context.config.devices);
    let mut environment =
        crate::metadata::environment(context, &record.task, container, definition.network_mode);
    environment.extend(variables);
    Some(BundleOrder {
        task: record.task.clone(),
        container: container.name.clone(),
        definition: definition.clone(),
        image: parts.images.get(&container.name)?.config.clone(),
        rootfs: parts.rootfs.get(&container.name)?.clone(),
        netns: attached.map(|attached| attached.netns.clone()),
        hosts: names::hosts(container, &hostname, &addresses, gateway),
        hostname_file: files::hostname_file(&hostname),
        resolv_conf: names::resolv_conf(attached.is_none(), container, host_resolv_conf, fallback),
        hostname,
        mounts: parts.mounts.get(&container.name).cloned().unwrap_or_default(),
        environment,
        devices,
        environment_files: parts.variables.get(&container.name).cloned().unwrap_or_default(),
        privileges: policy::privileges(&context.config),
    })
}
