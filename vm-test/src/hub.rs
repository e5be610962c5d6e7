//! The wire between guests: a hub that repeats each Ethernet frame to every other machine.
//! In: frames as datagrams from QEMU's `-netdev dgram`. Out: the same frames.
//! Owns: one Unix datagram socket and one thread. Never: leaves the host; there is no route to a real network.

use anyhow::{Context, Result};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A hub; machines join by naming their own socket.
#[derive(Clone)]
pub struct Hub {
    path: PathBuf,
    members: Arc<Mutex<Vec<PathBuf>>>,
    ended: Arc<AtomicBool>,
}

impl Hub {
    /// Opens the hub's socket in `folder` and starts repeating.
    pub fn start(folder: &Path) -> Result<Self> {
        let path = folder.join("hub.sock");
        let socket = UnixDatagram::bind(&path).context("bind the hub's socket")?;
        // The thread looks this often whether the hub has ended.
        socket.set_read_timeout(Some(Duration::from_millis(200)))?;
        let hub = Self { path, members: Arc::default(), ended: Arc::default() };
        let worker = hub.clone();
        std::thread::Builder::new().name("hub".into()).spawn(move || worker.repeat(&socket))?;
        Ok(hub)
    }

    /// QEMU's `-netdev` for a machine whose own socket is `member`.
    pub fn netdev(&self, id: &str, member: &Path) -> String {
        if let Ok(mut members) = self.members.lock() {
            members.push(member.to_path_buf());
        }
        netdev(id, member, &self.path)
    }

    /// Stops the thread at its next look.
    pub fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    fn repeat(&self, socket: &UnixDatagram) {
        let mut frame = vec![0; 65_536];
        while !self.ended.load(Ordering::Relaxed) {
            let Ok((length, from)) = socket.recv_from(&mut frame) else {
                continue;
            };
            let members = self.members.lock().map(|m| m.clone()).unwrap_or_default();
            for member in members.iter().filter(|m| Some(m.as_path()) != from.as_pathname()) {
                // A machine that is down loses the frame, as on a real wire.
                let _ = socket.send_to(&frame[..length], member);
            }
        }
    }
}

/// `-netdev dgram` between two Unix sockets. A machine alone talks to a socket that nobody opens.
pub fn netdev(id: &str, local: &Path, remote: &Path) -> String {
    format!(
        "dgram,id={id},local.type=unix,local.path={},remote.type=unix,remote.path={}",
        local.display(),
        remote.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_reaches_the_others_and_not_its_sender() {
        let folder = tempfile::tempdir().unwrap();
        let hub = Hub::start(folder.path()).unwrap();
        let sockets: Vec<UnixDatagram> = ["a", "b", "c"]
            .iter()
            .map(|name| {
                let path = folder.path().join(name);
                hub.netdev("n", &path);
                let socket = UnixDatagram::bind(&path).unwrap();
                socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                socket
            })
            .collect();
        sockets[0].send_to(b"frame", &hub.path).unwrap();
        let mut buffer = [0; 16];
        for socket in &sockets[1..] {
            assert_eq!(socket.recv(&mut buffer).unwrap(), 5);
        }
        sockets[0].set_nonblocking(true).unwrap();
        assert!(sockets[0].recv(&mut buffer).is_err());
        hub.end();
    }
}
