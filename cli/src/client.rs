//! Finds the control plane and the key, and connects: Unix socket, or TLS with both sides proven.
//! In: options and the files of this machine. Out: gRPC clients. Owns: the order of the search.
//! Never: speaks plaintext to anything but a Unix socket or a loopback address.

use crate::args::Global;
use crate::failure::Failure;
use crate::patience::Patient;
use lighter_control::config::is_loopback_host;
use lighter_proto::v1;
use lighter_proto::v1::agent_client::AgentClient;
use lighter_proto::v1::lighter_client::LighterClient;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tonic::Status;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic_types::StatusExt;

/// The control plane's socket for users of its own machine.
pub const CONTROL_SOCKET: &str = "/run/lighter/control.sock";
/// The name in every control plane's certificate, whatever its address.
const SERVER_NAME: &str = "control.lighter.internal";
/// The port when the endpoint names none.
const DEFAULT_PORT: u16 = 7443;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a leader is looked for: the takeover from one that died.
const FIND_LEADER: Duration = Duration::from_secs(12);
/// Between two rounds of the control planes known.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// So that a watch over a dead path ends.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// A client of the user-facing service.
pub type Client = LighterClient<Patient>;

/// Where to connect to, before anything is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    Unix(PathBuf),
    /// `http://` to this machine itself.
    Plain(String),
    /// `https://host:port`.
    Tls(String),
}

impl Target {
    /// As a person would write it.
    pub fn text(&self) -> String {
        match self {
            Self::Unix(path) => format!("unix://{}", path.display()),
            Self::Plain(url) | Self::Tls(url) => url.clone(),
        }
    }
}

/// Connects to the control plane.
pub async fn connect(global: &Global) -> Result<Client, Failure> {
    let known = targets(global)?;
    let (begun, mut pause, mut at) = (Instant::now(), FIRST_PAUSE, 0);
    let mut named = None;
    loop {
        let target = match named.take() {
            Some(leader) => leader,
            None => known.get(at % known.len().max(1)).cloned().ok_or(Failure::NoEndpoint)?,
        };
        let failed = match try_target(global, &target).await {
            Ok(client) => return Ok(client),
            Err(NoClient::Failed(failure)) if known.len() < 2 => return Err(failure),
            Err(NoClient::Failed(failure)) => failure,
            Err(NoClient::Standby { leader, status }) => {
                named = parse_target(&leader).ok().filter(|leader| matches!(leader, Target::Tls(_)));
                Failure::Rpc { what: format!("use the control plane at {}", target.text()), status }
            }
        };
        if begun.elapsed() > FIND_LEADER {
            return Err(failed);
        }
        at += 1;
        if named.is_none() && at.is_multiple_of(known.len()) {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

/// Why a target gave no client.
enum NoClient {
    Failed(Failure),
    /// Another leads: this one, if it is known.
    Standby {
        leader: String,
        status: Box<Status>,
    },
}

/// Connects, and asks something that only a leader answers.
async fn try_target(global: &Global, target: &Target) -> Result<Client, NoClient> {
    let channel = open_target(global, target).await.map_err(NoClient::Failed)?;
    let mut client = LighterClient::new(Patient::new(channel)).max_decoding_message_size(64 * 1024 * 1024);
    let Err(status) = client.describe_tasks(v1::DescribeTasksRequest::default()).await else {
        return Ok(client);
    };
    let details = status.get_error_details();
    match details.error_info().filter(|info| info.reason == "NOT_LEADER") {
        Some(info) => {
            let leader = info.metadata.get("leader").cloned().unwrap_or_default();
            Err(NoClient::Standby { leader, status: Box::new(status) })
        }
        // Whatever is wrong with it, the command itself will hear.
        None => Ok(client),
    }
}

async fn open_target(global: &Global, target: &Target) -> Result<Channel, Failure> {
    match target {
        Target::Unix(_) | Target::Plain(_) => open(endpoint(target)?, target, "control plane").await,
        Target::Tls(_) => {
            let tls = tls(&key_path(global).ok_or(Failure::NoEndpoint)?)?;
            let endpoint = endpoint(target)?.tls_config(tls).map_err(|source| Failure::Connect {
                peer: "control plane",
                endpoint: target.text(),
                source,
            })?;
            open(endpoint, target, "control plane").await
        }
    }
}

/// Connects to the agent of this machine.
pub async fn connect_agent(socket: &Path) -> Result<AgentClient<Channel>, Failure> {
    let target = Target::Unix(socket.to_owned());
    Ok(AgentClient::new(open(endpoint(&target)?, &target, "agent").await?))
}

/// Which control planes are meant: several stand in one text with commas.
pub fn targets(global: &Global) -> Result<Vec<Target>, Failure> {
    match &global.endpoint {
        Some(text) if text.contains(',') => text.split(',').map(str::trim).map(parse_target).collect(),
        _ => Ok(vec![target(global)?]),
    }
}

/// Which control plane is meant; see `lighter --help`.
fn target(global: &Global) -> Result<Target, Failure> {
    match &global.endpoint {
        Some(text) => parse_target(text),
        None if Path::new(CONTROL_SOCKET).exists() => Ok(Target::Unix(CONTROL_SOCKET.into())),
        None if key_path(global).is_some() => Ok(Target::Tls(format!("https://127.0.0.1:{DEFAULT_PORT}"))),
        None => Err(Failure::NoEndpoint),
    }
}

fn parse_target(text: &str) -> Result<Target, Failure> {
    let wrong = |problem: &str| Failure::Endpoint { endpoint: text.to_owned(), problem: problem.to_owned() };
    if let Some(path) = text.strip_prefix("unix:") {
        let path = path.strip_prefix("//").unwrap_or(path);
        return if path.starts_with('/') {
            Ok(Target::Unix(path.into()))
        } else {
            Err(wrong("needs an absolute path"))
        };
    }
    if text.starts_with('/') {
        return Ok(Target::Unix(text.into()));
    }
    if let Some(rest) = text.strip_prefix("http://") {
        return if is_loopback_host(host_of(rest)) {
            Ok(Target::Plain(text.to_owned()))
        } else {
            Err(wrong("is not of this machine and must be https://"))
        };
    }
    let host = text.strip_prefix("https://").unwrap_or(text).trim_end_matches('/');
    if host.is_empty() || host.contains("://") || host.contains('/') {
        return Err(wrong("is not an address of a control plane"));
    }
    // An IPv6 address has colons of its own; its port comes after the bracket.
    let has_port = host.rsplit_once(']').map_or_else(|| host.contains(':'), |(_, rest)| rest.contains(':'));
    Ok(Target::Tls(if has_port {
        format!("https://{host}")
    } else {
        format!("https://{host}:{DEFAULT_PORT}")
    }))
}

fn host_of(authority: &str) -> &str {
    let authority = authority.split('/').next().unwrap_or_default();
    match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    }
}

/// The key file that `--key`, LIGHTER_KEY or the search gives.
fn key_path(global: &Global) -> Option<PathBuf> {
    if let Some(path) = &global.key {
        return Some(path.clone());
    }
    let home = std::env::var_os("HOME").map(|home| Path::new(&home).join(".config/lighter/admin.pem"));
    home.into_iter().chain([PathBuf::from("/var/lib/lighter/admin.pem")]).find(|path| path.exists())
}

fn tls(path: &Path) -> Result<ClientTlsConfig, Failure> {
    let problem = |problem: String| Failure::Key { path: path.to_owned(), problem };
    let text = std::fs::read_to_string(path).map_err(|error| problem(format!("cannot be read: {error}")))?;
    let mode = std::fs::metadata(path).map_err(|error| problem(format!("cannot be read: {error}")))?.mode();
    if mode & 0o077 != 0 {
        return Err(problem(format!("is open to others (mode {:04o})", mode & 0o7777)));
    }
    let key = Key::parse(&text).map_err(problem)?;
    Ok(ClientTlsConfig::new()
        .domain_name(SERVER_NAME)
        .ca_certificate(Certificate::from_pem(key.authorities))
        .identity(Identity::from_pem(key.certificate, key.private_key)))
}

/// The parts of admin.pem: the user's certificate first, its private key, then the CA.
#[derive(Debug, Default, PartialEq, Eq)]
struct Key {
    certificate: String,
    private_key: String,
    authorities: String,
}

impl Key {
    fn parse(text: &str) -> Result<Self, String> {
        let mut key = Self::default();
        for block in blocks(text) {
            if block.contains("PRIVATE KEY-----") {
                key.private_key = block;
            } else if block.starts_with("-----BEGIN CERTIFICATE-----") {
                let certificate =
                    if key.certificate.is_empty() { &mut key.certificate } else { &mut key.authorities };
                certificate.push_str(&block);
            }
        }
        match [&key.certificate, &key.private_key, &key.authorities].iter().any(|part| part.is_empty()) {
            true => {
                Err("does not hold a certificate, its private key and the certificate of the CA".to_owned())
            }
            false => Ok(key),
        }
    }
}

/// The PEM blocks of a text (RFC 7468), each with its lines.
fn blocks(text: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut open: Option<String> = None;
    for line in text.lines() {
        if line.starts_with("-----BEGIN ") {
            open = Some(String::new());
        }
        let Some(block) = &mut open else { continue };
        block.push_str(line.trim_end());
        block.push('\n');
        if line.starts_with("-----END ") {
            blocks.extend(open.take());
        }
    }
    blocks
}

fn endpoint(target: &Target) -> Result<Endpoint, Failure> {
    let url = target.text();
    let endpoint = Endpoint::from_shared(url.clone())
        .map_err(|_| Failure::Endpoint { endpoint: url, problem: "is not a URL".into() })?;
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .user_agent(concat!("lighter/", env!("CARGO_PKG_VERSION")))
        .unwrap_or_else(|_| Endpoint::from_static("http://localhost")))
}

async fn open(endpoint: Endpoint, target: &Target, peer: &'static str) -> Result<Channel, Failure> {
    endpoint.connect().await.map_err(|source| Failure::Connect { peer, endpoint: target.text(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read_as_people_write_them() {
        let tls = |url: &str| Target::Tls(url.to_owned());
        for (text, target) in [
            ("https://c.example:8443", tls("https://c.example:8443")),
            ("c.example", tls("https://c.example:7443")),
            ("https://10.0.0.1/", tls("https://10.0.0.1:7443")),
            ("[fd00::1]", tls("https://[fd00::1]:7443")),
            ("https://[fd00::1]:1", tls("https://[fd00::1]:1")),
            ("unix:///run/x.sock", Target::Unix("/run/x.sock".into())),
            ("unix:/run/x.sock", Target::Unix("/run/x.sock".into())),
            ("/run/x.sock", Target::Unix("/run/x.sock".into())),
            ("http://127.0.0.1:1", Target::Plain("http://127.0.0.1:1".into())),
            ("http://[::1]:1", Target::Plain("http://[::1]:1".into())),
        ] {
            assert_eq!(parse_target(text).unwrap(), target, "{text}");
        }
        for text in [
            "http://10.0.0.1:1",
            "ftp://x",
            "",
            "https://",
            "unix:run/x",
            "https://a/b",
            "http://localhost.evil:1",
        ] {
            assert!(parse_target(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_key_file_has_three_parts() {
        let block = |label: &str| format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n");
        let whole =
            format!("# note\n{}{}{}", block("CERTIFICATE"), block("PRIVATE KEY"), block("CERTIFICATE"));
        let key = Key::parse(&whole).unwrap();
        assert_eq!(key.private_key, block("PRIVATE KEY"));
        assert_eq!((key.certificate, key.authorities), (block("CERTIFICATE"), block("CERTIFICATE")));
        for part in ["", &block("CERTIFICATE"), &block("PRIVATE KEY")] {
            assert!(Key::parse(part).is_err());
        }
    }
}
