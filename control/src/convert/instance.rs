//! Container instances as messages of the user service.
//! In: records. Out: messages. Never: decides anything.

use super::{attribute, capacity_type, ms, ms_or_zero, wire_tags};
use crate::core::record::InstanceSnapshot;
use lighter_model::attribute::CAPACITY_TYPE;
use lighter_model::node::{Notice, NoticeKind};
use lighter_model::resources::Resources;
use lighter_model::status::ContainerInstanceStatus;
use lighter_model::task_definition::TransportProtocol;
use lighter_proto::v1;

pub(super) fn resources(resources: &Resources) -> v1::Resources {
    let ports = |protocol| {
        let ports = resources.host_ports.iter().filter(move |port| port.protocol == protocol);
        ports.map(|port| u32::from(port.port)).collect()
    };
    v1::Resources {
        cpu_units: resources.cpu_units,
        memory_mib: resources.memory_mib,
        ports_tcp: ports(TransportProtocol::Tcp),
        ports_udp: ports(TransportProtocol::Udp),
        devices: resources.devices.clone().into_iter().collect(),
    }
}

pub fn instance_status(status: ContainerInstanceStatus) -> v1::ContainerInstanceStatus {
    match status {
        ContainerInstanceStatus::Registering => v1::ContainerInstanceStatus::Registering,
        ContainerInstanceStatus::RegistrationFailed => v1::ContainerInstanceStatus::RegistrationFailed,
        ContainerInstanceStatus::Active => v1::ContainerInstanceStatus::Active,
        ContainerInstanceStatus::Draining => v1::ContainerInstanceStatus::Draining,
        ContainerInstanceStatus::Deregistering => v1::ContainerInstanceStatus::Deregistering,
        ContainerInstanceStatus::Inactive => v1::ContainerInstanceStatus::Inactive,
    }
}

fn notice(notice: &Notice) -> v1::Notice {
    let kind = match notice.kind {
        NoticeKind::SpotInterruption => v1::NoticeKind::SpotInterruption,
        NoticeKind::Maintenance => v1::NoticeKind::Maintenance,
    };
    v1::Notice {
        id: notice.id.clone(),
        kind: kind.into(),
        at_unix_ms: ms(notice.at_unix_ms),
        detail: notice.detail.clone(),
        stop_tasks_at_unix_ms: ms_or_zero(notice.stop_tasks_at_unix_ms),
    }
}

pub fn instance(snapshot: &InstanceSnapshot) -> v1::ContainerInstance {
    let record = &snapshot.instance;
    let attributes = record.attributes().into_iter();
    v1::ContainerInstance {
        container_instance_id: record.id.to_string(),
        cluster: record.cluster.to_string(),
        name: record.name.clone(),
        status: instance_status(record.status).into(),
        agent_connected: record.connected,
        agent_version: record.agent_version.clone(),
        registered_resources: Some(resources(&record.offered)),
        remaining_resources: Some(resources(&snapshot.remaining)),
        running_tasks_count: snapshot.running_tasks,
        pending_tasks_count: snapshot.pending_tasks,
        attributes: attributes.map(|(name, (value, source))| attribute(name, value, source)).collect(),
        registered_at_unix_ms: ms(record.registered_at_unix_ms),
        address: record.address.map(|address| address.ip().to_string()).unwrap_or_default(),
        status_reason: record.drain.as_ref().map(|drain| drain.reason.clone()).unwrap_or_default(),
        status_deadline_unix_ms: ms_or_zero(record.drain.as_ref().and_then(|d| d.deadline_unix_ms)),
        stop_tasks: record.drain.as_ref().is_some_and(|drain| drain.stop_tasks),
        notices: record.notices.iter().map(notice).collect(),
        tags: wire_tags(&record.tags),
        capacity_type: capacity_type(record.attribute(CAPACITY_TYPE)),
    }
}
