//! The arithmetic against ECS's examples, the bounds against every view, small worlds to their end.

use super::*;

pub(in crate::core::service) fn task(number: u64) -> TaskView {
    TaskView {
        id: TaskId::from_parts(number, 0),
        current: true,
        wanted: true,
        phase: Phase::Running,
        health: Health::Healthy,
        protected: false,
        draining: false,
        away: false,
        leaving: false,
        left: false,
        moving: false,
        zone: 0,
        instance: 0,
    }
}
