//! Counters of the log drivers since the agent started, for metrics. In: what shippers did. Out: one
//! row for each driver. Never: a row for each container; their number has no bound.

use std::sync::atomic::{AtomicU64, Ordering};

/// What one driver has done for all containers of this node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogDriverTotals {
    pub driver: &'static str,
    /// Records that the sink has taken; one sent twice counts twice.
    pub sent_records: u64,
    pub sent_bytes: u64,
    /// Records that left the ring before they were sent.
    pub lost_records: u64,
    /// Records that the sink will not take.
    pub refused_records: u64,
    /// Sends that failed and were tried again.
    pub failed_sends: u64,
}

/// The counters of one driver.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) sent_records: AtomicU64,
    pub(super) sent_bytes: AtomicU64,
    pub(super) lost_records: AtomicU64,
    pub(super) refused_records: AtomicU64,
    pub(super) failed_sends: AtomicU64,
}

const DRIVERS: [&str; 4] = ["journald", "syslog", "fluentd", "http"];

#[derive(Debug, Default)]
pub(super) struct Totals([Counters; DRIVERS.len()]);

impl Totals {
    /// Of a driver that sends; others share the first, and never count.
    pub(super) fn of(&self, driver: &str) -> &Counters {
        let at = DRIVERS.iter().position(|name| *name == driver).unwrap_or(0);
        &self.0[at]
    }

    pub(super) fn rows(&self) -> Vec<LogDriverTotals> {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let rows = DRIVERS.iter().zip(&self.0).map(|(driver, counters)| LogDriverTotals {
            driver,
            sent_records: read(&counters.sent_records),
            sent_bytes: read(&counters.sent_bytes),
            lost_records: read(&counters.lost_records),
            refused_records: read(&counters.refused_records),
            failed_sends: read(&counters.failed_sends),
        });
        rows.collect()
    }
}

pub(super) fn count(counter: &AtomicU64, number: u64) {
    counter.fetch_add(number, Ordering::Relaxed);
}
