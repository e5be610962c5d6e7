//! Network of the fake machine: attachments are names in a set.
//! In: records. Out: paths that lead nowhere. Owns nothing. Never: netlink.

use super::Machine;
use crate::facilities::{Answer, Attached, NetworkFacility, Probe};
use futures_util::future::BoxFuture;
use lighter_model::ids::AttachmentKey;
use lighter_model::resources::HostPort;
use lighter_net::{AttachmentRecord, Traffic};
use std::collections::BTreeMap;
use std::path::PathBuf;

impl NetworkFacility for Machine {
    fn restore<'a>(&'a self, records: &'a [AttachmentRecord]) -> Answer<'a, ()> {
        Box::pin(async move {
            let restored = self.call("restore", records.len().to_string(), |_| Ok(()));
            Ok(restored.await?)
        })
    }

    fn add<'a>(&'a self, record: &'a AttachmentRecord) -> Answer<'a, Attached> {
        Box::pin(async move {
            let added = self.call("add", record.key.to_string(), |world| {
                let held =
                    world.shims.get(&record.key.task).map(|shim| shim.ports.clone()).unwrap_or_default();
                for port in &record.ports {
                    let port = HostPort { protocol: port.protocol, port: port.host_port };
                    if !held.contains(&port) {
                        world.offences.push(format!("{port:?} is mapped before the shim has bound it"));
                    }
                }
                world.attachments.insert(record.netns.clone());
                Ok(())
            });
            added.await?;
            Ok(Attached { netns: PathBuf::from("/run/lighter/netns").join(&record.netns), gateway: None })
        })
    }

    fn del<'a>(&'a self, record: &'a AttachmentRecord) -> Answer<'a, ()> {
        Box::pin(async move {
            let deleted = self.call("del", record.key.to_string(), |world| {
                world.attachments.remove(&record.netns);
                Ok(())
            });
            Ok(deleted.await?)
        })
    }

    fn remove_leftovers<'a>(&'a self, records: &'a [AttachmentRecord]) -> Answer<'a, Vec<String>> {
        Box::pin(async move {
            Ok(self.with(|world| {
                let known = |name: &String| records.iter().any(|record| record.netns == *name);
                let stray: Vec<String> =
                    world.attachments.iter().filter(|name| !known(name)).cloned().collect();
                world.attachments.retain(known);
                stray
            }))
        })
    }

    fn port_owner(&self, port: HostPort) -> Option<String> {
        self.with(|world| world.foreign_ports.contains(&port).then(|| "nginx (pid 7)".to_owned()))
    }

    fn traffic<'a>(
        &'a self,
        records: &'a [AttachmentRecord],
    ) -> Answer<'a, BTreeMap<AttachmentKey, Traffic>> {
        Box::pin(async move {
            Ok(self.with(|world| {
                let there = records.iter().filter(|record| world.attachments.contains(&record.netns));
                let counted = Traffic { received_bytes: 1500, sent_bytes: 300, ..Traffic::default() };
                there.map(|record| (record.key.clone(), counted)).collect()
            }))
        })
    }

    fn self_test(&self) -> BoxFuture<'_, Vec<Probe>> {
        Box::pin(async { Vec::new() })
    }

    fn probe_forwarding(&self) -> BoxFuture<'_, Probe> {
        let detail = "packets from the bridge to the outside are dropped".to_owned();
        Box::pin(async {
            Probe { name: "forwarding", ok: false, detail, mend: "nft add rule".into(), vital: false }
        })
    }
}
