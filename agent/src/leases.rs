//! Addresses, dynamic host ports and devices: one tokio task owns the pools, because every container
//! task takes from them at once. In: requests by handle. Out: attachment records, port numbers.
//! The pools are rebuilt from the task records at start; the records are the truth.
//! Never: binds a port or touches the kernel; the shim's bind decides whether a port is free.

pub(crate) mod devices;

use devices::{DevicePool, Granted, NoDevice};
use lighter_model::ids::TaskId;
use lighter_model::task_definition::{TaskDefinition, TransportProtocol};
use lighter_net::{AddRequest, AttachmentRecord, LeasePool, PlanError, PortAllocator, plan_attachment};
use std::ops::RangeInclusive;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// One request a task at a time; 64 tasks starting at once do not wait for each other's turn.
const QUEUE_DEPTH: usize = 64;

enum Request {
    Plan {
        requests: Vec<AddRequest>,
        answer: oneshot::Sender<Result<Vec<AttachmentRecord>, PlanError>>,
    },
    Release {
        records: Vec<AttachmentRecord>,
    },
    NextPorts {
        protocol: TransportProtocol,
        count: u16,
        answer: oneshot::Sender<Option<u16>>,
    },
    TakeDevices {
        task: TaskId,
        definition: Arc<TaskDefinition>,
        answer: oneshot::Sender<Result<Granted, NoDevice>>,
    },
    ReleaseDevices {
        task: TaskId,
    },
    ReleasePorts {
        protocol: TransportProtocol,
        ports: RangeInclusive<u16>,
    },
}

/// A handle to the pools.
#[derive(Debug, Clone)]
pub(crate) struct Leases {
    queue: mpsc::Sender<Request>,
}

impl Leases {
    /// Starts the owner, which ends with the last handle.
    pub(crate) fn start(
        mut pool: LeasePool,
        mut ports: PortAllocator,
        mut devices: DevicePool,
        recorded: &[AttachmentRecord],
    ) -> Self {
        for port in recorded.iter().flat_map(|record| &record.ports) {
            ports.mark_in_use(port.protocol, port.host_port);
        }
        let (queue, mut requests) = mpsc::channel(QUEUE_DEPTH);
        tokio::spawn(async move {
            while let Some(request) = requests.recv().await {
                serve(&mut pool, &mut ports, &mut devices, request);
            }
        });
        Self { queue }
    }

    /// Leases what all requests need, or nothing.
    pub(crate) async fn plan(&self, requests: Vec<AddRequest>) -> Result<Vec<AttachmentRecord>, PlanError> {
        let (answer, got) = oneshot::channel();
        let _ = self.queue.send(Request::Plan { requests, answer }).await;
        // The owner lives as long as this handle.
        got.await.unwrap_or_else(|_| Ok(Vec::new()))
    }

    /// Gives addresses and ports back; harmless to repeat as long as nobody else has them.
    pub(crate) async fn release(&self, records: Vec<AttachmentRecord>) {
        let _ = self.queue.send(Request::Release { records }).await;
    }

    /// The first of `count` ports in a row to try for a mapping with hostPort 0; they are the caller's
    /// until released.
    pub(crate) async fn next_ports(&self, protocol: TransportProtocol, count: u16) -> Option<u16> {
        let (answer, got) = oneshot::channel();
        let _ = self.queue.send(Request::NextPorts { protocol, count, answer }).await;
        got.await.ok().flatten()
    }

    /// All devices that the containers of a task ask for, or none; they are the task's until released.
    pub(crate) async fn take_devices(
        &self,
        task: &TaskId,
        definition: &Arc<TaskDefinition>,
    ) -> Result<Granted, NoDevice> {
        let (answer, got) = oneshot::channel();
        let (task, definition) = (task.clone(), definition.clone());
        let _ = self.queue.send(Request::TakeDevices { task, definition, answer }).await;
        // The owner lives as long as this handle.
        got.await.unwrap_or_else(|_| Ok(Granted::new()))
    }

    /// Gives back the devices of a task; harmless to repeat.
    pub(crate) async fn release_devices(&self, task: &TaskId) {
        let _ = self.queue.send(Request::ReleaseDevices { task: task.clone() }).await;
    }

    /// One of the ports was somebody else's, or the task does not go on.
    pub(crate) async fn release_ports(&self, protocol: TransportProtocol, ports: RangeInclusive<u16>) {
        let _ = self.queue.send(Request::ReleasePorts { protocol, ports }).await;
    }
}

fn serve(pool: &mut LeasePool, ports: &mut PortAllocator, devices: &mut DevicePool, request: Request) {
    match request {
        Request::Plan { requests, answer } => {
            let planned = plan_all(pool, requests);
            if let Err(Ok(unclaimed)) = answer.send(planned) {
                unclaimed
                    .iter()
                    .filter_map(|record| record.address)
                    .for_each(|address| pool.release(address));
            }
        }
        Request::Release { records } => {
            for record in records {
                record.address.into_iter().for_each(|address| pool.release(address));
                record.ports.iter().for_each(|port| ports.release(port.protocol, port.host_port));
            }
        }
        Request::NextPorts { protocol, count, answer } => {
            let first = ports.next_candidates(protocol, count);
            // The allocator gives rows that end within the range.
            let row = |first: u16| first..=first.saturating_add(count.saturating_sub(1));
            first.into_iter().flat_map(row).for_each(|port| ports.mark_in_use(protocol, port));
            if let Err(Some(first)) = answer.send(first) {
                row(first).for_each(|port| ports.release(protocol, port));
            }
        }
        Request::TakeDevices { task, definition, answer } => {
            let taken = devices.take(&task, &definition);
            if let Err(Ok(_)) = answer.send(taken) {
                devices.release(&task);
            }
        }
        Request::ReleaseDevices { task } => devices.release(&task),
        Request::ReleasePorts { protocol, ports: row } => {
            row.for_each(|port| ports.release(protocol, port));
        }
    }
}

fn plan_all(pool: &mut LeasePool, requests: Vec<AddRequest>) -> Result<Vec<AttachmentRecord>, PlanError> {
    let mut planned: Vec<AttachmentRecord> = Vec::new();
    for request in requests {
        match plan_attachment(pool, request) {
            Ok(record) => planned.push(record),
            Err(error) => {
                planned.iter().filter_map(|record| record.address).for_each(|address| pool.release(address));
                return Err(error);
            }
        }
    }
    Ok(planned)
}
