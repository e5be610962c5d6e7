//! Port mappings as people meet them: from outside, loopback, other attachments and the own one;
//! and what must not be reachable.

use crate::world::{
    HOST, LOOPBACK, OUTSIDE, Server, ask_tcp, ask_udp, ask_udp_by, sh, tcp, udp, udp_is_silent, within, world,
};
use lighter_model::task_definition::TransportProtocol;
use lighter_net::{AddError, AttachmentRecord, PortAllocator, PortForward, port_owner};
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

#[test]
fn a_tcp_port_is_reached_from_everywhere() {
    world(|w| {
        let (record, web) = w.add(vec![tcp(8080, 80)]);
        let (_, other) = w.add(vec![]);
        let server = Server::tcp(Some(&web.netns_path), 80, "web");
        let address = web.address.unwrap();

        assert_eq!(ask_tcp(Some(&w.outside), HOST, 8080).unwrap(), format!("web {OUTSIDE}"));
        let by_loopback = ask_tcp(None, LOOPBACK, 8080).unwrap();
        assert_eq!(by_loopback, "web 172.29.0.1", "from the host's loopback");
        assert!(ask_tcp(None, HOST, 8080).is_some(), "from the host by its own address");
        assert!(ask_tcp(Some(&other.netns_path), HOST, 8080).is_some(), "from another attachment");
        assert!(ask_tcp(Some(&web.netns_path), HOST, 8080).is_some(), "from itself");
        let direct = ask_tcp(Some(&other.netns_path), address, 80).unwrap();
        assert_eq!(direct, format!("web {}", other.address.unwrap()), "by its address");
        let gateway = w.network.config().subnet.gateway();
        assert!(ask_tcp(Some(&other.netns_path), gateway, 8080).is_some(), "through the gateway");

        drop(server);
        w.del(&record);
        assert_eq!(ask_tcp(Some(&w.outside), HOST, 8080), None, "after DEL");
    });
}

/// Where the kernel has br_netfilter, bridged packets pass the rules of routed ones, or not.
#[test]
fn hairpins_work_with_and_without_br_netfilter() {
    world(|w| {
        let (_, web) = w.add(vec![tcp(8080, 80), udp(8080, 80)]);
        let (_, other) = w.add(vec![]);
        let _servers =
            [Server::tcp(Some(&web.netns_path), 80, "web"), Server::udp(Some(&web.netns_path), 80, "web")];
        for call_iptables in ["0", "1"] {
            let switch = "/proc/sys/net/bridge/bridge-nf-call-iptables";
            sh(&format!("test ! -e {switch} || echo {call_iptables} > {switch}"));
            for client in [&web.netns_path, &other.netns_path] {
                assert!(ask_tcp(Some(client), HOST, 8080).is_some(), "{call_iptables} {client:?}");
                assert!(ask_udp(Some(client), HOST, 8080).is_some(), "{call_iptables} {client:?}");
            }
        }
    });
}

#[test]
fn a_udp_port_is_reached_from_everywhere() {
    world(|w| {
        let (_, dns) = w.add(vec![udp(5353, 53)]);
        let (_, other) = w.add(vec![]);
        let _server = Server::udp(Some(&dns.netns_path), 53, "dns");
        assert_eq!(ask_udp(Some(&w.outside), HOST, 5353).unwrap(), format!("dns {OUTSIDE}"));
        assert!(ask_udp(None, LOOPBACK, 5353).is_some(), "from the host's loopback");
        assert!(ask_udp(None, HOST, 5353).is_some(), "from the host by its own address");
        assert!(ask_udp(Some(&other.netns_path), HOST, 5353).is_some(), "from another attachment");
        assert!(ask_udp(Some(&dns.netns_path), HOST, 5353).is_some(), "from itself");
        assert_eq!(ask_tcp(Some(&w.outside), HOST, 5353), None, "udp only");
    });
}

#[test]
fn two_attachments_use_one_target_port() {
    world(|w| {
        let (_, one) = w.add(vec![tcp(8081, 80)]);
        let (_, two) = w.add(vec![tcp(8082, 80)]);
        let _servers =
            [Server::tcp(Some(&one.netns_path), 80, "one"), Server::tcp(Some(&two.netns_path), 80, "two")];
        assert!(ask_tcp(Some(&w.outside), HOST, 8081).unwrap().starts_with("one"));
        assert!(ask_tcp(Some(&w.outside), HOST, 8082).unwrap().starts_with("two"));
    });
}

#[test]
fn a_port_of_one_host_address_is_not_that_of_another() {
    world(|w| {
        sh("ip addr add 203.0.113.3/24 dev uplink");
        let first = PortForward { host_ip: HOST, ..tcp(80, 80) };
        let second = PortForward { host_ip: Ipv4Addr::new(203, 0, 113, 3), ..tcp(80, 80) };
        let (_, one) = w.add(vec![first]);
        let (_, two) = w.add(vec![second]);
        let _servers =
            [Server::tcp(Some(&one.netns_path), 80, "one"), Server::tcp(Some(&two.netns_path), 80, "two")];
        assert!(ask_tcp(Some(&w.outside), first.host_ip, 80).unwrap().starts_with("one"));
        assert!(ask_tcp(Some(&w.outside), second.host_ip, 80).unwrap().starts_with("two"));
        assert_eq!(ask_tcp(None, LOOPBACK, 80), None);
    });
}

#[test]
fn what_is_not_mapped_is_not_reached_from_outside() {
    world(|w| {
        let (_, web) = w.add(vec![tcp(8080, 80)]);
        let _servers =
            [Server::tcp(Some(&web.netns_path), 80, "web"), Server::tcp(Some(&web.netns_path), 81, "secret")];
        sh("ip -n outside route add 172.29.0.0/16 via 203.0.113.1");
        let address = web.address.unwrap();
        assert_eq!(ask_tcp(Some(&w.outside), address, 81), None, "by a route to our subnet");
        assert_eq!(ask_tcp(Some(&w.outside), HOST, 81), None);
        assert!(ask_tcp(Some(&w.outside), HOST, 8080).is_some());
    });
}

#[test]
fn a_service_of_somebody_else_on_the_same_port_number_is_left_alone() {
    world(|w| {
        let (_, web) = w.add(vec![tcp(80, 80)]);
        let _ours = Server::tcp(Some(&web.netns_path), 80, "ours");
        let _theirs = Server::tcp(Some(&w.outside), 80, "theirs");
        assert!(ask_tcp(None, OUTSIDE, 80).unwrap().starts_with("theirs"), "from the host");
        let from_inside = ask_tcp(Some(&web.netns_path), OUTSIDE, 80).unwrap();
        assert_eq!(from_inside, format!("theirs {HOST}"), "masqueraded");
    });
}

#[test]
fn outbound_udp_shows_the_hosts_address() {
    world(|w| {
        let (_, client) = w.add(vec![]);
        let _server = Server::udp(Some(&w.outside), 53, "dns");
        let seen = ask_udp(Some(&client.netns_path), OUTSIDE, 53).unwrap();
        assert_eq!(seen, format!("dns {HOST}"));
    });
}

#[test]
fn neighbours_do_not_reach_the_hosts_loopback() {
    world(|w| {
        let (_, inside) = w.add(vec![]);
        let private = UdpSocket::bind("127.0.0.1:9999").unwrap();
        private.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        // As a hostile neighbour: 127.0.0.1 is routed to the host instead of the own lo.
        let send = |netns: &Path, via: &str, dev: &str| {
            let path = netns.display();
            sh(&format!(
                "nsenter --net={path} sh -euc '
                    echo 1 > /proc/sys/net/ipv4/conf/{dev}/route_localnet
                    ip route del local 127.0.0.0/8 dev lo table local || true
                    ip route del local 127.0.0.1 dev lo table local || true
                    ip route replace 127.0.0.1 via {via} dev {dev} src {src}' 2>&1",
                src = if dev == "wan" { "203.0.113.2" } else { "172.29.0.2" },
            ));
            within(Some(netns), || {
                let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
                socket.send_to(b"hello", (LOOPBACK, 9999)).unwrap();
            });
            private.recv(&mut [0; 16]).is_ok()
        };
        assert!(!send(&w.outside, "203.0.113.1", "wan"), "from the uplink");
        assert!(!send(&inside.netns_path, "172.29.0.1", "eth0"), "from an attachment");
        sh("nft flush chain ip lighter guard");
        assert!(!send(&w.outside, "203.0.113.1", "wan"), "the uplink has no route_localnet");
        assert!(send(&inside.netns_path, "172.29.0.1", "eth0"), "the guard is what stops it");
        let localnet = sh("cd /proc/sys/net/ipv4/conf
            cat all/route_localnet uplink/route_localnet lighter0/route_localnet");
        assert_eq!(localnet, "0\n0\n1\n");
    });
}

#[test]
fn the_metadata_service_is_out_of_reach() {
    world(|w| {
        let (_, inside) = w.add(vec![]);
        sh("ip -n outside addr add 169.254.169.254/32 dev wan
            ip route add 169.254.169.254 via 203.0.113.2");
        let imds = Ipv4Addr::new(169, 254, 169, 254);
        let _server = Server::tcp(Some(&w.outside), 80, "imds");
        assert!(ask_tcp(None, imds, 80).is_some(), "the host itself may");
        assert_eq!(ask_tcp(Some(&inside.netns_path), imds, 80), None);
        sh("nft flush chain ip lighter guard");
        assert!(ask_tcp(Some(&inside.netns_path), imds, 80).is_some(), "the guard is what stops it");
    });
}

#[test]
fn a_second_owner_of_a_port_is_refused_by_name() {
    world(|w| {
        let (first, _) = w.add(vec![tcp(8080, 80)]);
        let record = w.plan(vec![tcp(8080, 80), tcp(8081, 80)]);
        let error = w.runtime.block_on(w.network.add(&record)).unwrap_err();
        let AddError::PortMapped { port, owner, .. } = &error else { panic!("{error:?}") };
        assert_eq!((port.host_port, *owner), (8080, first.address.unwrap()));
        // All or none, and the DEL of the loser leaves the owner's mapping alone.
        assert!(!sh("nft list table ip lighter").contains("8081"));
        w.del(&record);
        assert!(sh("nft list table ip lighter").contains("8080"));
        w.del(&first);
        w.assert_nothing_left();
    });
}

#[test]
fn a_udp_flow_follows_its_mapping() {
    world(|w| {
        let (mut record, dns) = w.add(vec![]);
        let _server = Server::udp(Some(&dns.netns_path), 53, "dns");
        // A client that sends before the mapping is there, and goes on from the same port.
        let client = within(Some(&w.outside), || UdpSocket::bind("0.0.0.0:0").unwrap());
        client.connect((HOST, 5353)).unwrap();
        // The host answers "port unreachable" once a socket is bound no more; keep one bound.
        let _bound = UdpSocket::bind("0.0.0.0:5353").unwrap();
        assert!(udp_is_silent(&client), "not mapped yet");
        record.ports = vec![udp(5353, 53)];
        w.runtime.block_on(w.network.map_ports(&record)).unwrap();
        assert!(ask_udp_by(&client).is_some(), "mapped: the old entry is gone");
        assert!(flows(&record).contains("dport=5353"), "{}", flows(&record));
        w.runtime.block_on(w.network.unmap_ports(&record)).unwrap();
        assert_eq!(flows(&record), "", "the entry went with the mapping");
        assert!(udp_is_silent(&client), "unmapped");
        w.runtime.block_on(w.network.map_ports(&record)).unwrap();
        assert!(ask_udp_by(&client).is_some());
        w.del(&record);
        assert_eq!(flows(&record), "", "the entry went with the attachment");
    });
}

fn flows(record: &AttachmentRecord) -> String {
    let address = record.address.unwrap();
    sh(&format!("conntrack -L -f ipv4 2>/dev/null | grep -F {address} || true"))
}

#[test]
fn connections_of_others_survive_a_del() {
    world(|w| {
        let (_, stays) = w.add(vec![udp(5301, 53)]);
        let (goes, gone) = w.add(vec![udp(5302, 53)]);
        let _stays = Server::udp(Some(&stays.netns_path), 53, "stays");
        let gone = Server::udp(Some(&gone.netns_path), 53, "gone");
        assert!(ask_udp(Some(&w.outside), HOST, 5301).is_some());
        assert!(ask_udp(Some(&w.outside), HOST, 5302).is_some());
        drop(gone);
        w.del(&goes);
        let left = sh("conntrack -L -f ipv4 -p udp 2>/dev/null");
        assert!(left.contains("dport=5301") && !left.contains("dport=5302"), "{left}");
    });
}

/// Without waiting for the carrier, the first packets were lost for up to a second.
#[test]
fn the_first_packet_after_add_arrives() {
    world(|w| {
        let receiver = within(Some(&w.outside), || UdpSocket::bind("0.0.0.0:7000").unwrap());
        receiver.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        for round in 0..5 {
            let (_, web) = w.add(vec![udp(7100 + round, 80)]);
            let inner = within(Some(&web.netns_path), || UdpSocket::bind("0.0.0.0:80").unwrap());
            inner.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            inner.send_to(b"out", (OUTSIDE, 7000)).unwrap();
            assert_eq!(receiver.recv(&mut [0; 8]).unwrap(), 3, "outbound, round {round}");
            receiver.send_to(b"in", (HOST, 7100 + round)).unwrap();
            assert_eq!(inner.recv(&mut [0; 8]).unwrap(), 2, "inbound, round {round}");
        }
    });
}

#[test]
fn a_dynamic_port_passes_over_what_is_taken() {
    world(|w| {
        sh("echo '40000 40009' > /proc/sys/net/ipv4/ip_local_port_range");
        let mut allocator = PortAllocator::from_kernel();
        assert_eq!(allocator.range(), 40000..=40009);
        let _taken = [40000, 40001].map(|port| TcpListener::bind(("0.0.0.0", port)).unwrap());
        let tcp_protocol = TransportProtocol::Tcp;
        // As the agent and the task's monitor do: try until a port can be bound, then map it.
        let (port, _held) = std::iter::from_fn(|| allocator.next_candidate(tcp_protocol))
            .take(10)
            .find_map(|port| Some((port, TcpListener::bind(("0.0.0.0", port)).ok()?)))
            .unwrap();
        assert_eq!(port, 40002);
        allocator.mark_in_use(tcp_protocol, port);
        let (_, web) = w.add(vec![tcp(port, 80)]);
        let _server = Server::tcp(Some(&web.netns_path), 80, "web");
        assert!(ask_tcp(Some(&w.outside), HOST, port).unwrap().starts_with("web"));
        assert!(ask_tcp(None, LOOPBACK, port).unwrap().starts_with("web"), "also where it is bound");
    });
}

#[test]
fn the_process_that_has_a_port_is_named() {
    world(|_| {
        let script = "import socket,sys
s = socket.socket(); s.bind(('0.0.0.0', 8080)); s.listen(); print('ready', flush=True); sys.stdin.read()";
        let mut child = Command::new("python3")
            .args(["-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let owner = port_owner(TransportProtocol::Tcp, 8080);
        let free = port_owner(TransportProtocol::Udp, 8080);
        drop(child.stdin.take());
        child.wait().unwrap();
        let owner = owner.unwrap();
        assert_eq!(owner.pid, child.id());
        assert!(owner.to_string().starts_with("python3"), "{owner}");
        assert_eq!(free, None, "udp is another port");
    });
}
