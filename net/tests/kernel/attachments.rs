//! ADD, CHECK, DEL, restarts and recovery of attachments.

use crate::world::{HOST, LOOPBACK, Server, ask_tcp, bare_world, eventually, key, sh, tcp, udp, world};
use lighter_net::{
    AddError, AddRequest, AttachmentMode, HostError, LeaseError, LeasePool, Network, NetworkConfig,
    PlanError, leftovers, plan_attachment,
};
use std::error::Error;
use std::time::{Duration, Instant};

#[test]
fn add_again_gives_the_same_answer() {
    world(|w| {
        let (record, first) = w.add(vec![tcp(8080, 80)]);
        let before = sh("ip -o link show master lighter0; nft list table ip lighter");
        let second = w.runtime.block_on(w.network.add(&record)).unwrap();
        assert_eq!(first, second);
        assert_eq!(before, sh("ip -o link show master lighter0; nft list table ip lighter"));
        w.runtime.block_on(w.network.check(&record)).unwrap();
        let path = first.netns_path.display();
        let inside = sh(&format!("nsenter --net={path} ip -o -4 addr show; nsenter --net={path} ip route"));
        assert!(inside.contains("172.29.0.2/16") && inside.contains("default via 172.29.0.1"), "{inside}");
        assert!(inside.contains("127.0.0.1/8"), "lo is up: {inside}");
        let link = sh("ip -d link show master lighter0");
        assert!(link.contains(&format!("alias {}", record.key)), "{link}");
    });
}

#[test]
fn traffic_is_counted_as_the_attachment_sees_it() {
    world(|w| {
        let (record, web) = w.add(vec![]);
        let (silent, _) = w.add(vec![]);
        let none =
            AddRequest { key: key(99, "none"), mode: AttachmentMode::None, address: None, ports: vec![] };
        let none = plan_attachment(&mut w.pool, none).unwrap();
        let path = web.netns_path.display().to_string();
        let server = Server::tcp(Some(&web.netns_path), 80, "web");
        assert!(ask_tcp(None, record.address.unwrap(), 80).is_some());
        drop(server);
        let count = |w: &crate::world::World| {
            let records = [record.clone(), silent.clone(), none.clone()];
            w.runtime.block_on(w.network.traffic(&records)).unwrap()
        };
        let inside = |what: &str| -> u64 {
            // nsenter --net keeps the old /sys; /proc/net follows the process.
            let line = sh(&format!("nsenter --net={path} cat /proc/net/dev | grep eth0"));
            let column = if what == "rx" { 1 } else { 9 };
            line.split_whitespace().nth(column).unwrap().parse().unwrap()
        };
        // The last packets of the connection may come between the two looks.
        let deadline = Instant::now() + Duration::from_secs(10);
        let counted = loop {
            let (before, counted) = ((inside("rx"), inside("tx")), count(w));
            let of = counted[&record.key];
            if before == (of.received_bytes, of.sent_bytes) {
                assert!(of.sent_bytes >= 200 && of.received_bytes >= 200, "{of:?}");
                break counted;
            }
            assert!(Instant::now() < deadline, "{of:?} beside {before:?}");
        };
        assert!(counted.contains_key(&silent.key));
        assert!(!counted.contains_key(&none.key));
        w.del(&record);
        assert!(!w.runtime.block_on(w.network.traffic(&[record])).unwrap().contains_key(&key(1, "web")));
    });
}

#[test]
fn del_leaves_nothing_and_may_be_repeated() {
    world(|w| {
        let (record, web) = w.add(vec![tcp(8080, 80), udp(8080, 80)]);
        let server = Server::tcp(Some(&web.netns_path), 80, "web");
        assert!(ask_tcp(None, LOOPBACK, 8080).is_some());
        drop(server);
        w.del(&record);
        w.assert_nothing_left();
        assert_eq!(sh("conntrack -L 2>/dev/null | grep -F 172.29.0.2 || true"), "");
        w.del(&record);
        let again = w.runtime.block_on(w.network.add(&record)).unwrap();
        assert_eq!(again.address, record.address);
        w.del(&record);
        w.assert_nothing_left();
    });
}

#[test]
fn del_gets_rid_of_a_namespace_that_is_still_held() {
    world(|w| {
        let (record, web) = w.add(vec![]);
        // A process that will not die, in small.
        let held = std::fs::File::open(&web.netns_path).unwrap();
        w.del(&record);
        w.assert_nothing_left();
        drop(held);
    });
}

#[test]
fn mode_none_has_loopback_only() {
    world(|w| {
        let request =
            AddRequest { key: key(9, "batch"), mode: AttachmentMode::None, address: None, ports: vec![] };
        let record = plan_attachment(&mut w.pool, request).unwrap();
        let attachment = w.runtime.block_on(w.network.add(&record)).unwrap();
        assert_eq!((attachment.address, attachment.veth), (None, None));
        let path = attachment.netns_path.display();
        let links = sh(&format!("nsenter --net={path} ip -o link show"));
        assert_eq!(links.lines().count(), 1, "{links}");
        assert!(links.contains("LOOPBACK,UP"), "{links}");
        w.runtime.block_on(w.network.check(&record)).unwrap();
        w.del(&record);
        w.assert_nothing_left();
    });
}

#[test]
fn check_says_what_is_missing_and_add_mends_it() {
    world(|w| {
        let (record, web) = w.add(vec![tcp(8080, 80)]);
        let path = web.netns_path.display();
        sh(&format!(
            "nsenter --net={path} ip addr flush dev eth0
            nft delete element ip lighter ports '{{ tcp . 8080 }}'"
        ));
        let error = w.runtime.block_on(w.network.check(&record)).unwrap_err().to_string();
        assert!(error.contains("address on eth0") && error.contains("host port 8080"), "{error}");
        w.runtime.block_on(w.network.add(&record)).unwrap();
        w.runtime.block_on(w.network.check(&record)).unwrap();
        sh(&format!("ip link set {} nomaster down", web.veth.as_deref().unwrap()));
        assert!(w.runtime.block_on(w.network.check(&record)).is_err());
        w.runtime.block_on(w.network.add(&record)).unwrap();
        w.runtime.block_on(w.network.check(&record)).unwrap();
        sh(&format!("ip link del {}", web.veth.as_deref().unwrap()));
        assert!(w.runtime.block_on(w.network.check(&record)).is_err());
        w.runtime.block_on(w.network.add(&record)).unwrap();
        w.runtime.block_on(w.network.check(&record)).unwrap();
        sh(&format!("umount {path}"));
        let error = w.runtime.block_on(w.network.check(&record)).unwrap_err().to_string();
        assert!(error.contains("namespace"), "{error}");
        w.runtime.block_on(w.network.add(&record)).unwrap();
        w.runtime.block_on(w.network.check(&record)).unwrap();
    });
}

#[test]
fn a_restart_goes_on_where_the_last_process_ended() {
    world(|w| {
        let (first, web) = w.add(vec![tcp(8080, 80)]);
        let (second, _) = w.add(vec![udp(5353, 53)]);
        let _server = Server::tcp(Some(&web.netns_path), 80, "web");
        let before = sh("nft list table ip lighter; ip -o link show master lighter0; ip addr show lighter0");

        let network = Network::open(NetworkConfig::default()).unwrap();
        let records = [first.clone(), second.clone()];
        w.runtime.block_on(network.restore(&records)).unwrap();
        let after = sh("nft list table ip lighter; ip -o link show master lighter0; ip addr show lighter0");
        assert_eq!(before, after);
        assert_eq!(w.runtime.block_on(network.add(&first)).unwrap(), web);
        assert!(ask_tcp(Some(&w.outside), HOST, 8080).is_some());

        let mut pool = LeasePool::from_records(w.pool.subnet(), &records);
        let request =
            AddRequest { key: key(99, "next"), mode: AttachmentMode::Bridge, address: None, ports: vec![] };
        let third = plan_attachment(&mut pool, request).unwrap();
        assert!(!records.iter().any(|record| record.address == third.address));
    });
}

#[test]
fn restore_after_a_reboot_starts_from_nothing() {
    bare_world(|w| {
        let record = w.plan(vec![tcp(8080, 80)]);
        w.runtime.block_on(w.network.restore(std::slice::from_ref(&record))).unwrap();
        let web = w.runtime.block_on(w.network.add(&record)).unwrap();
        let _server = Server::tcp(Some(&web.netns_path), 80, "web");
        assert!(ask_tcp(Some(&w.outside), HOST, 8080).is_some());
    });
}

#[test]
fn leftovers_are_found_and_removed() {
    world(|w| {
        let (known, _) = w.add(vec![tcp(8080, 80)]);
        let (lost, _) = w.add(vec![tcp(8081, 80)]);
        sh("touch /run/lighter/netns/half-made
            ip link add stray type veth peer name stray1
            ip link set stray master lighter0");
        let state = w.runtime.block_on(w.network.list_kernel()).unwrap();
        assert!(state.bridge);
        assert_eq!((state.netns.len(), state.veths.len(), state.ports.len()), (3, 3, 2));
        let found = leftovers(&state, [&known]);
        assert_eq!(found.netns, [lost.netns.clone(), "half-made".to_owned()]);
        assert_eq!((found.veths.len(), found.ports.len()), (2, 1));
        w.runtime.block_on(w.network.remove_leftovers(&found)).unwrap();
        w.runtime.block_on(w.network.check(&known)).unwrap();
        let state = w.runtime.block_on(w.network.list_kernel()).unwrap();
        assert!(leftovers(&state, [&known]).is_empty());
        w.del(&known);
        w.assert_nothing_left();
    });
}

#[test]
fn an_empty_pool_stops_one_task_and_no_other() {
    world(|w| {
        w.pool = LeasePool::new("10.77.0.0/29".parse().unwrap());
        for _ in 0..4 {
            let _ = w.plan(vec![]);
        }
        let request =
            AddRequest { key: key(77, "late"), mode: AttachmentMode::Bridge, address: None, ports: vec![] };
        let error = plan_attachment(&mut w.pool, request).unwrap_err();
        let PlanError::Lease { source, .. } = &error else { panic!("{error:?}") };
        assert!(matches!(source, LeaseError::Exhausted { taken: 4, capacity: 4, .. }));
        assert!(error.source().unwrap().to_string().contains("4 of 4"));
    });
}

#[test]
fn without_the_hosts_side_add_says_so() {
    bare_world(|w| {
        let record = w.plan(vec![]);
        let error = w.runtime.block_on(w.network.add(&record)).unwrap_err();
        assert!(matches!(error, AddError::Attach { .. }));
        assert!(error.source().unwrap().to_string().contains("lighter0"), "{error:?}");
        w.del(&record);
    });
}

#[test]
fn a_subnet_that_is_in_use_is_refused() {
    bare_world(|w| {
        sh("ip addr add 172.29.7.1/24 dev uplink");
        let error = w.runtime.block_on(w.network.ensure_host()).unwrap_err();
        assert!(matches!(error, HostError::SubnetTaken { .. }));
        assert!(error.to_string().contains("172.29.7.1/24 of uplink"), "{error}");
    });
}

#[test]
fn many_at_once_all_work() {
    world(|w| {
        let records: Vec<_> = (0..24).map(|n| w.plan(vec![tcp(9000 + n, 80)])).collect();
        let adds = records.iter().map(|record| {
            let (network, record) = (w.network.clone(), record.clone());
            async move { network.add(&record).await }
        });
        let added = w.runtime.block_on(futures_util::future::join_all(adds));
        assert!(added.iter().all(Result::is_ok), "{added:?}");
        assert_eq!(sh("ip -o link show master lighter0").lines().count(), 24);
        let dels = records.iter().map(|record| w.network.del(record));
        let deleted = w.runtime.block_on(futures_util::future::join_all(dels));
        assert!(deleted.iter().all(Result::is_ok), "{deleted:?}");
        w.assert_nothing_left();
        w.runtime.block_on(w.network.remove_host()).unwrap();
        eventually("the bridge is gone", || !sh("ip -o link").contains("lighter0"));
        assert!(!sh("nft list tables").contains("lighter"));
    });
}
