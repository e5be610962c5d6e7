//! How long a new port mapping takes with 10 and with 10,000 present, and ADD and DEL of a whole
//! attachment, in namespaces of its own. Needs root; touches nothing of the host.
//! In: optionally the number of runs. Out: p50 and p99 in microseconds on stdout.
//! Run: cargo run --release -p lighter-net --example port_map_bench
#![allow(clippy::unwrap_used)]

use lighter_model::ids::AttachmentKey;
use lighter_model::task_definition::TransportProtocol;
use lighter_net::{
    AddRequest, AttachmentMode, AttachmentRecord, LeasePool, Network, NetworkConfig, PortForward, Subnet,
    plan_attachment,
};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

fn main() {
    let runs = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(300);
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
    let private = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(bench(runs));
}

async fn bench(runs: usize) {
    let network = Network::open(NetworkConfig::default()).unwrap();
    let mut pool = LeasePool::new(Subnet::DEFAULT);
    for present in [10u16, 10_000] {
        let crowd: Vec<PortForward> = (0..present).map(|n| forward(20_000 + n)).collect();
        let crowd = record(&mut pool, u64::from(present), crowd);
        network.restore(&[crowd]).await.unwrap();
        let (mut map, mut unmap) = (Vec::new(), Vec::new());
        let mut one = record(&mut pool, u64::from(present) + 1, vec![]);
        for run in 0..runs {
            one.ports = vec![forward(10_000 + (run % 5_000) as u16)];
            let start = Instant::now();
            network.map_ports(&one).await.unwrap();
            map.push(start.elapsed());
        }
        for run in 0..runs.min(50) {
            one.ports = vec![forward(10_000 + run as u16)];
            let start = Instant::now();
            network.unmap_ports(&one).await.unwrap();
            unmap.push(start.elapsed());
        }
        print(&format!("map one port, {present} present"), map);
        print(&format!("unmap one port, {present} present"), unmap);
    }
    network.restore(&[]).await.unwrap();
    let (mut add, mut del) = (Vec::new(), Vec::new());
    for run in 0..runs.min(200) {
        let record = record(&mut pool, 50_000 + run as u64, vec![forward(8080)]);
        let start = Instant::now();
        network.add(&record).await.unwrap();
        add.push(start.elapsed());
        let start = Instant::now();
        network.del(&record).await.unwrap();
        del.push(start.elapsed());
    }
    print("ADD of an attachment with one port", add);
    print("DEL of it, until nothing is left", del);
}

fn record(pool: &mut LeasePool, task: u64, ports: Vec<PortForward>) -> AttachmentRecord {
    let key = AttachmentKey::new(format!("{task:032x}").parse().unwrap(), "web".parse().unwrap());
    let request = AddRequest { key, mode: AttachmentMode::Bridge, address: None, ports };
    plan_attachment(pool, request).unwrap()
}

fn forward(host_port: u16) -> PortForward {
    let host_ip = Ipv4Addr::UNSPECIFIED;
    PortForward { protocol: TransportProtocol::Tcp, host_ip, host_port, target_port: 80 }
}

fn print(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64() * 1e6;
    println!("{what:<40} p50 {:>9.1} us   p99 {:>9.1} us   {} runs", at(50), at(99), times.len());
}
