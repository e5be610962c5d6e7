//! What a daemon needs around its work: logging, signals, word to systemd.
//! In: LIGHTER_LOG, NOTIFY_SOCKET, signals. Out: log lines on standard error.
//! Never: ends the process; `main` does.

use crate::failure::Failure;
use crate::output;
use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// The variable with the filter, like `info,lighter_net=debug`.
const FILTER: &str = "LIGHTER_LOG";

/// Logs to standard error: daemons from `info` on, other commands only what LIGHTER_LOG asks for.
pub fn start_logging(daemon: bool) {
    let default = if daemon { "info" } else { "off" };
    let wanted = std::env::var(FILTER).unwrap_or_else(|_| default.to_owned());
    let filter = EnvFilter::try_new(&wanted).unwrap_or_else(|error| {
        output::note(&format!("{FILTER}={wanted:?} is not a filter ({error}); using {default:?}"));
        EnvFilter::new(default)
    });
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let builder = builder.with_ansi(output::colour_errors()).with_target(false);
    // The journal has times of its own. An error means that logging is set up already.
    let _ = match std::env::var_os("JOURNAL_STREAM") {
        Some(_) => builder.without_time().try_init(),
        None => builder.try_init(),
    };
}

/// SIGINT and SIGTERM, both of which ask us to end.
pub struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupts {
    /// From here on the signals do not end the process by themselves.
    pub fn new() -> Result<Self, Failure> {
        let of = |kind| signal(kind).map_err(|source| Failure::io("listen for signals", source));
        Ok(Self { interrupt: of(SignalKind::interrupt())?, terminate: of(SignalKind::terminate())? })
    }

    /// The next of them.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// sd_notify(3): tells systemd, if it started us and listens, that we serve.
pub fn ready() {
    if let Some(socket) = std::env::var_os("NOTIFY_SOCKET")
        && let Err(error) = notify(&socket, "READY=1")
    {
        tracing::warn!(%error, "cannot tell systemd that we are ready");
    }
}

fn notify(socket: &OsStr, state: &str) -> std::io::Result<()> {
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systemd_is_told_on_paths_and_on_abstract_names() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let by_path = UnixDatagram::bind(&path).unwrap();
        notify(path.as_os_str(), "READY=1").unwrap();
        let name = format!("lighter-test-{}", std::process::id());
        let abstract_name = SocketAddr::from_abstract_name(&name).unwrap();
        let by_name = UnixDatagram::bind_addr(&abstract_name).unwrap();
        notify(OsStr::new(&format!("@{name}")), "READY=1").unwrap();
        for socket in [by_path, by_name] {
            let mut buffer = [0; 32];
            let length = socket.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], b"READY=1");
        }
    }
}
