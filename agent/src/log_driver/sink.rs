//! What a log driver is: something that takes records in order, or says how many it took.
//! In: settings and who the container is. Out: a sink. Owns nothing; each driver owns its connection.
//! Never: retries; the shipper does.

use super::batch::Record;
use super::fluentd::Fluentd;
use super::http::Http;
use super::identity::Identity;
use super::journald::Journald;
use super::syslog::Syslog;
use crate::errors::Cause;
use futures_util::future::BoxFuture;
use lighter_model::task_definition::log::SinkSettings;
use std::path::Path;

/// Where records go.
pub(super) trait Sink: Send {
    /// Sends all in order. Not idempotent: what is sent twice arrives twice. Dropped half-way, it
    /// leaves the sink usable.
    fn send<'a>(&'a mut self, records: &'a [Record]) -> BoxFuture<'a, Result<(), SendError>>;
}

/// Not all were taken.
#[derive(Debug, thiserror::Error)]
#[error("{driver} has not taken the log")]
pub(super) struct SendError {
    pub(super) driver: &'static str,
    /// So many of the batch, from its beginning, need not be sent again.
    pub(super) taken: usize,
    /// The sink is there and will not take what is left, now or later.
    pub(super) refused: bool,
    #[source]
    pub(super) source: Cause,
}

impl SendError {
    /// Sending again later may help.
    pub(super) fn later(driver: &'static str, taken: usize, source: impl Into<Cause>) -> Self {
        Self { driver, taken, refused: false, source: source.into() }
    }
}

/// journald's socket (systemd-journald.socket(8)).
const JOURNAL: &str = "/run/systemd/journal/socket";

/// The sink of these settings; connects at the first record. `None`: the driver needs none.
pub(super) fn make(settings: SinkSettings, identity: &Identity) -> Option<Box<dyn Sink>> {
    Some(match settings {
        SinkSettings::Files | SinkSettings::Nothing => return None,
        SinkSettings::Journald(_) => Box::new(Journald::new(Path::new(JOURNAL), identity)),
        SinkSettings::Syslog(settings) => Box::new(Syslog::new(settings, identity)),
        SinkSettings::Fluentd(settings) => Box::new(Fluentd::new(settings, identity)),
        SinkSettings::Http(settings) => Box::new(Http::new(settings, identity)),
    })
}
