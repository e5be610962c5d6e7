//! A machine in small: a host namespace with an uplink, an outside behind it, sockets in any of them.
//! In: a test. Out: its result, and the assertion that nothing is left.
//! Owns the namespaces, which end with the thread. Never: touches the real host's network.

use lighter_model::ids::AttachmentKey;
use lighter_model::task_definition::TransportProtocol;
use lighter_net::{
    AddRequest, Attachment, AttachmentMode, AttachmentRecord, LeasePool, Network, NetworkConfig, PortForward,
    Subnet, plan_attachment,
};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub(crate) const HOST: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
pub(crate) const OUTSIDE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);
pub(crate) const LOOPBACK: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// How long an answer may take; and how long silence is listened to.
const PATIENCE: Duration = Duration::from_secs(5);
const SILENCE: Duration = Duration::from_millis(300);

pub(crate) struct World {
    pub(crate) runtime: tokio::runtime::Runtime,
    pub(crate) network: Network,
    pub(crate) pool: LeasePool,
    pub(crate) outside: PathBuf,
    tasks: u64,
}

/// Runs a test on a thread with its own namespaces, the host's side made.
pub(crate) fn world(test: impl FnOnce(&mut World) + Send + 'static) {
    bare_world(|world| {
        world.runtime.block_on(world.network.ensure_host()).unwrap();
        test(world);
    });
}

/// The same with nothing of ours made yet.
pub(crate) fn bare_world(test: impl FnOnce(&mut World) + Send + 'static) {
    let thread = std::thread::spawn(|| {
        let flags = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS;
        unshare(flags).expect("these tests need root");
        let private = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
        mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        let mut world = World::new();
        test(&mut world);
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

impl World {
    fn new() -> Self {
        sh("ip link set lo up
            ip netns add outside
            ip link add uplink type veth peer name wan netns outside
            ip addr add 203.0.113.1/24 dev uplink
            ip link set uplink up
            ip -n outside addr add 203.0.113.2/24 dev wan
            ip -n outside link set wan up
            ip -n outside link set lo up");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let network = Network::open(NetworkConfig::default()).unwrap();
        let pool = LeasePool::new(Subnet::DEFAULT);
        Self { runtime, network, pool, outside: PathBuf::from("/run/netns/outside"), tasks: 0 }
    }

    pub(crate) fn plan(&mut self, ports: Vec<PortForward>) -> AttachmentRecord {
        self.tasks += 1;
        let request =
            AddRequest { key: key(self.tasks, "web"), mode: AttachmentMode::Bridge, address: None, ports };
        plan_attachment(&mut self.pool, request).unwrap()
    }

    pub(crate) fn add(&mut self, ports: Vec<PortForward>) -> (AttachmentRecord, Attachment) {
        let record = self.plan(ports);
        let attachment = self.runtime.block_on(self.network.add(&record)).unwrap();
        (record, attachment)
    }

    pub(crate) fn del(&self, record: &AttachmentRecord) {
        self.runtime.block_on(self.network.del(record)).unwrap();
    }

    /// No namespace, link or element of an attachment, as `ip`, `nft` and `ls` see it.
    pub(crate) fn assert_nothing_left(&self) {
        assert_eq!(sh("ls -A /run/lighter/netns 2>/dev/null || true"), "");
        assert_eq!(sh("ip -o link show master lighter0"), "");
        assert_eq!(sh("grep -c /run/lighter /proc/thread-self/mounts || true").trim(), "0");
        let table = sh("nft list table ip lighter");
        assert!(!table.contains("elements"), "elements are left: {table}");
    }
}

pub(crate) fn key(task: u64, name: &str) -> AttachmentKey {
    AttachmentKey::new(format!("{task:032x}").parse().unwrap(), name.parse().unwrap())
}

pub(crate) fn tcp(host_port: u16, target_port: u16) -> PortForward {
    let (protocol, host_ip) = (TransportProtocol::Tcp, Ipv4Addr::UNSPECIFIED);
    PortForward { protocol, host_ip, host_port, target_port }
}

pub(crate) fn udp(host_port: u16, target_port: u16) -> PortForward {
    PortForward { protocol: TransportProtocol::Udp, ..tcp(host_port, target_port) }
}

/// Runs shell lines in the calling thread's namespaces; its output, or a panic with it.
#[track_caller]
pub(crate) fn sh(script: &str) -> String {
    let output = Command::new("sh").args(["-euc", script]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}\nfailed: {text}{errors}");
    text
}

/// Polls until the condition holds.
#[track_caller]
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Runs `work` in a namespace given by its file, or in that of the test.
pub(crate) fn within<T: Send>(netns: Option<&Path>, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            if let Some(path) = netns {
                setns(File::open(path).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
            }
            work()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// A server that tells each client the server's name and the client's address.
pub(crate) struct Server {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    pub(crate) fn tcp(netns: Option<&Path>, port: u16, name: &'static str) -> Self {
        let listener = within(netns, || TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap());
        listener.set_nonblocking(true).unwrap();
        Self::serve(move || {
            let Ok((mut stream, peer)) = listener.accept() else { return false };
            stream.write_all(format!("{name} {}", peer.ip()).as_bytes()).is_ok()
        })
    }

    pub(crate) fn udp(netns: Option<&Path>, port: u16, name: &'static str) -> Self {
        let socket = within(netns, || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap());
        socket.set_nonblocking(true).unwrap();
        Self::serve(move || {
            let mut buffer = [0; 64];
            let Ok((_, peer)) = socket.recv_from(&mut buffer) else { return false };
            socket.send_to(format!("{name} {}", peer.ip()).as_bytes(), peer).is_ok()
        })
    }

    fn serve(mut once: impl FnMut() -> bool + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let flag = stop.clone();
        let thread = std::thread::spawn(move || {
            while !flag.load(Ordering::Relaxed) {
                if !once() {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

/// What a server at this address says: "name own-address". None when nobody answers.
pub(crate) fn ask_tcp(netns: Option<&Path>, address: Ipv4Addr, port: u16) -> Option<String> {
    within(netns, || {
        let target = SocketAddr::new(IpAddr::V4(address), port);
        let mut stream = TcpStream::connect_timeout(&target, Duration::from_millis(700)).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        Some(text)
    })
}

/// The same with udp; asks again while nobody answers for a while.
pub(crate) fn ask_udp(netns: Option<&Path>, address: Ipv4Addr, port: u16) -> Option<String> {
    within(netns, || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.connect((address, port)).ok()?;
        ask_udp_by(&socket)
    })
}

/// Asks through a connected socket until an answer comes; `None` after `PATIENCE`.
pub(crate) fn ask_udp_by(socket: &UdpSocket) -> Option<String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match ask_udp_once(socket) {
            None if Instant::now() < deadline => {}
            answer => return answer,
        }
    }
}

/// Whether two questions stay without an answer.
pub(crate) fn udp_is_silent(socket: &UdpSocket) -> bool {
    (0..2).all(|_| ask_udp_once(socket).is_none())
}

fn ask_udp_once(socket: &UdpSocket) -> Option<String> {
    socket.set_read_timeout(Some(SILENCE)).unwrap();
    // A question before the mapping may be refused; that is told by the next call.
    let _ = socket.send(b"who?");
    let mut buffer = [0; 64];
    let length = socket.recv(&mut buffer).ok()?;
    Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
}
