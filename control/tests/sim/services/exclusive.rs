//! Services of exclusive tasks (invariant 7): no more of them run at any instant than the maximum allows.
//! In: a world, a service's number, a task. Out: a member of its input, whether the task runs. Owns: nothing.
//! Never: asks the control plane how long a lease is good for: it looks at the machine.

use crate::lease;
use crate::world::World;
use lighter_control::core::record::TaskRecord;
use lighter_control::core::service::record::ServiceRecord;
use lighter_control::core::silence::policy::SETTLED_BEATS;
use lighter_control::view::Shown;
use lighter_model::ids::ContainerInstanceId;
use lighter_model::status::TaskStatus;
use std::collections::BTreeSet;

/// Whether a seed's world has them: of 63,000 to 69,999 all, and half of the services of a commit, so that
/// the older seeds of the fixed set are what they were.
pub(crate) fn are_in(seed: u64) -> bool {
    super::are_in(seed) && ((63_000..70_000).contains(&seed) || seed >= 70_000 && seed % 16 >= 8)
}

/// A member of a service's input, or nothing. The first is replaced, the second has no more than a lease.
pub(crate) fn policy(world: &World, service: u64) -> String {
    let beats = |count: u64| (count * world.shape.heartbeat_ms).div_ceil(1_000);
    let (lost_after_s, lease_s) = (beats(SETTLED_BEATS), beats(6) + u64::from(lease::STOP_TIMEOUT_S));
    match service {
        _ if !world.shape.exclusive => String::new(),
        0 => format!(
            r#","nodeSilence":{{"exclusive":true,"replace":true,"lostAfterSeconds":{lost_after_s},
                "leaseSeconds":{lease_s}}}"#
        ),
        1 => r#","nodeSilence":{"exclusive":true,"replace":false}"#.to_owned(),
        _ => String::new(),
    }
}

/// Whether its tasks are exclusive and no agent that is left for them keeps leases.
pub(super) fn fits_nowhere(
    shown: &Shown,
    service: &ServiceRecord,
    active: &BTreeSet<ContainerInstanceId>,
) -> bool {
    let keeps = |id| shown.state.instances.get(id).is_some_and(|instance| instance.leases);
    service.silence.is_some_and(|policy| policy.exclusive) && !active.iter().any(keeps)
}

/// Whether an exclusive task that is not known to have STOPPED runs on a machine at this moment.
pub(crate) fn runs(world: &World, task: &TaskRecord) -> bool {
    let exclusive = task.silence.is_some_and(|policy| policy.exclusive) && task.last < TaskStatus::Stopped;
    let now_ms = world.now_ms();
    exclusive && world.nodes.borrow().iter().any(|node| node.disk.borrow().runs(&task.id, now_ms))
}
