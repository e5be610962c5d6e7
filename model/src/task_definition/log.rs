//! `logConfiguration`: where a container's output goes, and the options of each driver under the
//! names that Docker and ECS give them.
//! In: driver and options as text. Out: `LogSettings`, or every option that is wrong, by name.
//! Owns: the list of drivers. Never: ignores an option; one that a driver does not have is refused.
//! Source: Docker's documentation of its logging drivers; ECS's LogConfiguration. Driver `http` and
//! what a tag may name are our own: docs/logging.md.

mod address;
mod options;
mod tag;

pub use address::{FluentdAddress, SyslogAddress, SyslogFacility};
pub use tag::{TagField, TagTemplate};

use options::Options;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// ECS's `logConfiguration`, as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LogConfiguration {
    pub log_driver: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
}

/// What a `logConfiguration` means.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogSettings {
    pub ring: RingSize,
    pub sink: SinkSettings,
}

/// How much of a container's output the node keeps in files; what is absent is the node's choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RingSize {
    /// A file is rotated before it grows beyond this.
    pub file_bytes_max: Option<u64>,
    /// The current file included.
    pub files_max: Option<u32>,
}

/// Where output goes besides the node's files.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum SinkSettings {
    /// Nowhere else: `json-file`.
    #[default]
    Files,
    /// Nothing is kept, not even in files: `none`.
    Nothing,
    Journald(Attributes),
    Syslog(SyslogSettings),
    Fluentd(FluentdSettings),
    Http(HttpSettings),
}

/// What is said of the container beside each line.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Attributes {
    pub tag: TagTemplate,
    /// Keys of `dockerLabels` that go along.
    pub labels: Vec<String>,
    /// Names of `environment` that go along.
    pub env: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyslogSettings {
    pub tag: TagTemplate,
    pub address: SyslogAddress,
    pub facility: SyslogFacility,
    pub format: SyslogFormat,
}

/// Names as Docker's `syslog-format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SyslogFormat {
    /// Docker's default: RFC 3164 without the host's name, as syslog(3) writes it.
    #[default]
    Local,
    Rfc3164,
    Rfc5424,
    /// RFC 5424 with microseconds.
    Rfc5424Micro,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FluentdSettings {
    pub attributes: Attributes,
    pub address: FluentdAddress,
    /// The sink says what it has taken; without that a line counts as delivered once the kernel has it.
    pub request_ack: bool,
    /// Nanoseconds (EventTime) instead of seconds.
    pub sub_second_precision: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpSettings {
    pub attributes: Attributes,
    /// `http://…` or `https://…`.
    pub url: String,
    pub headers: Vec<(String, String)>,
    /// PEM file of the node with the certificate authority to trust beside the system's.
    pub tls_ca_cert: Option<String>,
}

/// Every driver there is.
pub const LOG_DRIVERS: &[&str] = &["json-file", "none", "journald", "syslog", "fluentd", "http"];

/// Drivers of ECS that are refused, and why.
const REFUSED: &[(&str, &str)] = &[
    ("awslogs", "is not supported: CloudWatch Logs is out of scope"),
    ("awsfirelens", "is not supported: run the router as a container and use fluentd"),
    ("splunk", "is not supported: use http with the collector's raw endpoint"),
    ("gelf", "is not supported: use syslog, fluentd or http"),
];

/// What is wrong with one member inside `logConfiguration`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogProblem {
    /// `logDriver`, or `options.NAME`.
    pub field: String,
    pub message: String,
}

impl LogConfiguration {
    /// What this means.
    ///
    /// # Errors
    /// The driver is not known, or an option is not one of the driver's or has a wrong value.
    pub fn settings(&self) -> Result<LogSettings, Vec<LogProblem>> {
        let mut options = Options::new(&self.log_driver, &self.options);
        let settings = match self.log_driver.as_str() {
            "json-file" => json_file(&mut options),
            "none" => LogSettings { ring: RingSize::default(), sink: SinkSettings::Nothing },
            "journald" => with_ring(&mut options, |options| SinkSettings::Journald(attributes(options))),
            "syslog" => with_ring(&mut options, syslog),
            "fluentd" => with_ring(&mut options, fluentd),
            "http" => with_ring(&mut options, http),
            other => return Err(vec![unknown_driver(other)]),
        };
        let problems = options.finish();
        if problems.is_empty() { Ok(settings) } else { Err(problems) }
    }
}

fn unknown_driver(name: &str) -> LogProblem {
    let refused = REFUSED.iter().find(|(driver, _)| *driver == name);
    let message = match refused {
        Some((_, why)) => format!("{name} {why}"),
        None => format!("{name:?} is no log driver; there are {}", LOG_DRIVERS.join(", ")),
    };
    LogProblem { field: "logDriver".to_owned(), message }
}

fn json_file(options: &mut Options<'_>) -> LogSettings {
    options.mode();
    let ring = RingSize { file_bytes_max: options.size("max-size"), files_max: options.count("max-file") };
    if options.flag("compress") {
        options.wrong("compress", "must be false: rotated files are not compressed");
    }
    LogSettings { ring, sink: SinkSettings::Files }
}

/// Files of the ring: when it is full a quarter of it goes.
const RING_FILES: u32 = 4;

fn with_ring(options: &mut Options<'_>, sink: impl FnOnce(&mut Options<'_>) -> SinkSettings) -> LogSettings {
    options.mode();
    let whole = options.size("max-buffer-size");
    let ring = RingSize {
        file_bytes_max: whole.map(|bytes| (bytes / u64::from(RING_FILES)).max(1)),
        files_max: whole.map(|_| RING_FILES),
    };
    LogSettings { ring, sink: sink(options) }
}

fn attributes(options: &mut Options<'_>) -> Attributes {
    Attributes { tag: tag(options), labels: options.list("labels"), env: options.list("env") }
}

fn tag(options: &mut Options<'_>) -> TagTemplate {
    options.parsed("tag").unwrap_or_default()
}

fn syslog(options: &mut Options<'_>) -> SinkSettings {
    let format = match options.one_of("syslog-format", &["rfc3164", "rfc5424", "rfc5424micro"]) {
        Some("rfc3164") => SyslogFormat::Rfc3164,
        Some("rfc5424") => SyslogFormat::Rfc5424,
        Some("rfc5424micro") => SyslogFormat::Rfc5424Micro,
        _ => SyslogFormat::Local,
    };
    SinkSettings::Syslog(SyslogSettings {
        tag: tag(options),
        address: options.parsed("syslog-address").unwrap_or_default(),
        facility: options.parsed("syslog-facility").unwrap_or_default(),
        format,
    })
}

fn fluentd(options: &mut Options<'_>) -> SinkSettings {
    // Whatever it says, the application never waits for the sink.
    options.flag("fluentd-async");
    SinkSettings::Fluentd(FluentdSettings {
        attributes: attributes(options),
        address: options.parsed("fluentd-address").unwrap_or_default(),
        request_ack: options.flag("fluentd-request-ack"),
        sub_second_precision: options.flag("fluentd-sub-second-precision"),
    })
}

fn http(options: &mut Options<'_>) -> SinkSettings {
    let url = options.text("http-url").unwrap_or_default().to_owned();
    let host = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    if host.is_none_or(|rest| rest.is_empty() || rest.starts_with('/')) || url.contains(char::is_whitespace) {
        options.wrong("http-url", "is required and must be http://… or https://…");
    }
    let headers = options.pairs("http-headers");
    let tls_ca_cert = options.text("http-tls-ca-cert").map(str::to_owned);
    if tls_ca_cert.as_ref().is_some_and(|path| !path.starts_with('/')) {
        options.wrong("http-tls-ca-cert", "must be the absolute path of a PEM file of the node");
    }
    SinkSettings::Http(HttpSettings { attributes: attributes(options), url, headers, tls_ca_cert })
}

#[cfg(test)]
mod tests;
