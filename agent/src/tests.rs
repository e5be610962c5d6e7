//! T1: the whole agent on a fake machine, against a fake control plane over real gRPC on a Unix
//! socket. In: scenarios. Out: assertions on what the control plane was told and what the machine
//! has. The agent runs on a tokio runtime of its own, which is dropped to kill it.
//! Never: sleeps to wait for something; conditions have deadlines.

mod adjust;
mod bench;
mod control;
mod crash;
mod failures;
mod images;
mod lease;
mod life;
mod lifecycle;
mod node_life;
mod session;
mod streams;
mod telemetry;
mod volumes;
