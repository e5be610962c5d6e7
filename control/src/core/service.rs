//! Services: a number of tasks that is kept, and how they become those of another revision.
//! In: what is wanted of a service, what its tasks are. Out: tasks started and stopped, events.
//! Owns: services, their deployments and events. What to do now is decided by pure functions
//! (`decide`, `daemon`, `breaker`, `throttle`); `tend` acts on it, at every change and by the clock.
//! Never: stops a healthy task below the minimum, or starts one above the maximum.
//! Source: Amazon ECS Developer Guide, "Amazon ECS services".

pub mod breaker;
pub mod change;
pub mod control;
pub mod daemon;
pub mod decide;
pub mod deployment;
pub mod digest;
pub mod endpoints;
pub mod events;
pub mod look;
pub mod place;
pub mod protection;
pub mod rebalance;
pub mod record;
pub mod tend;
pub mod throttle;
pub mod witness;
