//! A task under a lease: it starts only under one, and ends when its monitor says that it is over.
//! In: the orders' lease, the monitor's answers. Out: nothing, or why the task has to end.
//! Owns nothing; renewals go past the actor (`crate::lease`). Never: lengthens a lease.

use super::{Held, StopOrder, TaskActor};
use crate::errors::chain;
use crate::facilities::{LeaseAnswer, Shim};
use crate::lease::{self, Lease};
use crate::time::BootInstant;
use lighter_model::status::StopCode;
use lighter_model::wait::WaitKind;
use lighter_runtime::{LeaseOrder, Leased};

const CANNOT_KEEP: &str =
    "ResourceInitializationError: the task's monitor is of an older release, which keeps no lease";

fn end(code: StopCode, reason: String) -> StopOrder {
    StopOrder { code: Some(code), reason, force: false }
}

/// The end of a task whose lease is over.
pub(super) fn expired(lease: &Lease) -> StopOrder {
    end(StopCode::InfrastructureHealth, lease.expired())
}

impl TaskActor {
    fn lease_order(&self, lease: &Lease) -> LeaseOrder {
        let stops = lease::stops(&self.journal.record);
        LeaseOrder { ends_at_boot_ms: lease.ends_at_boot_ms(), stops }
    }

    /// Before any container starts: the monitor has the lease, and there is time for more than a stop.
    pub(super) async fn first_lease(&mut self, shim: &dyn Shim) -> Result<(), StopOrder> {
        loop {
            let (lease, stop) = {
                let orders = self.orders.borrow_and_update();
                (orders.lease, orders.stop.clone())
            };
            if lease.length.is_none() {
                return Ok(());
            }
            if let Some(order) = stop {
                return Err(order);
            }
            let order = self.lease_order(&lease);
            match shim.lease(&order).await {
                Ok(LeaseAnswer::Kept(Leased { over: false, ends_at_boot_ms: Some(at) }))
                    if BootInstant::now().ms() < lease::starts_before_ms(at, &order.stops) =>
                {
                    self.journal.log.wait_over(WaitKind::Node, None);
                    self.journal.log.leased(lease);
                    return Ok(());
                }
                Ok(LeaseAnswer::Kept(Leased { over: false, ends_at_boot_ms: None })) => {}
                Ok(LeaseAnswer::Kept(_)) => return Err(expired(&lease)),
                Ok(LeaseAnswer::CannotKeep) => {
                    return Err(end(StopCode::TaskFailedToStart, CANNOT_KEEP.to_owned()));
                }
                Err(error) => {
                    let why = chain(error.as_ref());
                    let reason = format!("ResourceInitializationError: set the task's lease: {why}");
                    return Err(end(StopCode::TaskFailedToStart, reason));
                }
            }
            let what = "the control plane to answer: an exclusive task starts only under a lease";
            let ends_by = "a session begins and lists the task, or the task is stopped";
            if self.journal.log.wait(WaitKind::Node, None, what, None, ends_by) {
                self.journal.tell().await;
            }
            if self.orders.changed().await.is_err() {
                // The reconciler has ended: the agent leaves.
                std::future::pending::<()>().await;
            }
        }
    }

    /// After a connection to the monitor of a task that may run: what happened to its lease meanwhile.
    pub(super) async fn lease_over(&self, held: &Held) -> Option<StopOrder> {
        let lease = self.orders.borrow().lease;
        lease.length?;
        let shim = held.link.as_ref()?.shim.clone();
        match shim.lease(&self.lease_order(&lease)).await {
            Ok(LeaseAnswer::Kept(Leased { over: true, .. })) => Some(expired(&lease)),
            Ok(LeaseAnswer::Kept(_)) => None,
            Ok(LeaseAnswer::CannotKeep) => Some(end(StopCode::InfrastructureHealth, CANNOT_KEEP.to_owned())),
            Err(error) => {
                // A lost connection is an event of its own, and then this is asked again.
                tracing::warn!(task = %self.task(), cause = %chain(error.as_ref()), "the monitor does not say how the task's lease stands");
                None
            }
        }
    }
}
