//! Who has a host port: the process behind a bound socket, for the message "port in use by …".
//! In: protocol and port. Out: pid and name. Owns nothing; reads /proc (proc(5), /proc/net/tcp).
//! Never: on the way of a task's start; it walks every process and is asked only after a failure.

use lighter_model::task_definition::TransportProtocol;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The process that has a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortOwner {
    pub pid: u32,
    /// The kernel's name of the process, at most 15 bytes; "?" when it is gone by now.
    pub comm: String,
}

impl std::fmt::Display for PortOwner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (pid {})", self.comm, self.pid)
    }
}

/// TCP_LISTEN and TCP_CLOSE (bound, not listening) in /proc/net/tcp; the latter is also every udp
/// socket without a peer.
const HOLDING_STATES: [&str; 2] = ["0A", "07"];

/// The process that has the port in this network namespace, by any local address. None when the
/// port is free, or held by the kernel itself or a process that cannot be seen. A bound tcp socket
/// that does not listen is in no /proc table: the port is taken all the same.
pub fn port_owner(protocol: TransportProtocol, port: u16) -> Option<PortOwner> {
    let names = match protocol {
        TransportProtocol::Tcp => ["tcp", "tcp6"],
        TransportProtocol::Udp => ["udp", "udp6"],
    };
    // thread-self: /proc/net follows the main thread, which may be in another namespace.
    let tables = names.map(|name| fs::read_to_string(format!("/proc/thread-self/net/{name}")));
    let inodes: BTreeSet<u64> = tables.iter().flatten().flat_map(|text| inodes_of_port(text, port)).collect();
    if inodes.is_empty() { None } else { find_process(&inodes) }
}

/// The socket inodes of one of the tables that hold `port`; listening ones and those without peer.
fn inodes_of_port(table: &str, port: u16) -> Vec<u64> {
    let row = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let local = words.get(1)?;
        let state = words.get(3)?;
        let row_port = u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?;
        let holds = row_port == port && HOLDING_STATES.contains(state);
        words.get(9)?.parse().ok().filter(|inode| holds && *inode != 0)
    };
    table.lines().skip(1).filter_map(row).collect()
}

fn find_process(inodes: &BTreeSet<u64>) -> Option<PortOwner> {
    let pids = fs::read_dir("/proc").ok()?.flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    for pid in pids {
        if holds_one_of(Path::new(&format!("/proc/{pid}/fd")), inodes) {
            let comm = fs::read_to_string(format!("/proc/{pid}/comm"));
            let comm = comm.map_or_else(|_| "?".to_owned(), |text| text.trim_end().to_owned());
            return Some(PortOwner { pid, comm });
        }
    }
    None
}

/// A process that ends while it is looked at simply does not hold the port any more.
fn holds_one_of(fd_dir: &Path, inodes: &BTreeSet<u64>) -> bool {
    let Ok(entries) = fs::read_dir(fd_dir) else { return false };
    entries.flatten().filter_map(|entry| fs::read_link(entry.path()).ok()).any(|target| {
        let inode = target.to_str().and_then(|t| t.strip_prefix("socket:[")?.strip_suffix(']'));
        inode.and_then(|text| text.parse().ok()).is_some_and(|inode: u64| inodes.contains(&inode))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, UdpSocket};

    #[test]
    fn our_own_listeners_are_found() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let me = std::process::id();
        let owner = port_owner(TransportProtocol::Tcp, tcp.local_addr().unwrap().port()).unwrap();
        assert_eq!(owner.pid, me);
        assert!(!owner.comm.is_empty());
        let owner = port_owner(TransportProtocol::Udp, udp.local_addr().unwrap().port()).unwrap();
        assert_eq!(owner.pid, me);
    }

    #[test]
    fn a_table_row_is_understood() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0\n\
            1: 0100007F:1F90 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0 100 0 0 10 0\n";
        assert_eq!(inodes_of_port(table, 8080), [4711]);
        assert_eq!(inodes_of_port(table, 8081), Vec::<u64>::new());
    }
}
