//! The whole control plane over real connections (T1) and its core under random commands (T0).
//! In: nothing but a temporary directory and loopback. Out: verdicts. Leaves nothing behind.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod cluster;
mod conformance;
mod digests;
mod drain;
mod etcd;
mod fake_node;
mod faults;
mod format;
mod full;
mod growth;
mod hostile;
mod images;
mod join;
mod journal;
mod late_etcd;
mod leader;
mod limits;
mod logs;
mod metrics;
mod permission;
mod placement;
mod queue;
mod recovery;
mod restart;
mod robot;
mod service_health;
mod service_nodes;
mod service_protection;
mod service_races;
mod services;
mod session;
mod silence;
mod simulation;
mod state;
mod storm;
mod streams;
mod support;
mod tasks;
mod transfer;
mod watch;
