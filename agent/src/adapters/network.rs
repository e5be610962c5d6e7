//! The node's network by `lighter_net`.
//! In: records. Out: what `NetworkFacility` promises. Owns the network's handle.
//! Never: changes somebody else's firewall; a dropped packet is reported with the mending command.

use crate::config::AgentConfig;
use crate::errors::{Cause, chain};
use crate::facilities::{Answer, Attached, NetworkFacility, Probe};
use futures_util::future::BoxFuture;
use lighter_model::ids::AttachmentKey;
use lighter_model::resources::HostPort;
use lighter_net::{
    AttachmentRecord, ForwardingVerdict, Network, NetworkConfig, Subnet, Traffic, leftovers, port_owner,
    probe_nf_tables,
};
use std::collections::BTreeMap;

pub(super) struct NetworkAdapter {
    network: Network,
}

impl NetworkAdapter {
    pub(super) fn open(config: &AgentConfig, subnet: Subnet) -> Result<Self, Cause> {
        let settings = NetworkConfig {
            bridge: config.bridge.clone(),
            subnet,
            netns_dir: config.netns_dir(),
            table: config.nft_table.clone(),
            block_imds: !config.allow_instance_metadata,
            metadata_port: config.task_metadata.then_some(crate::metadata::PORT),
            ..NetworkConfig::default()
        };
        Ok(Self { network: Network::open(settings)? })
    }

    async fn probe_nf_tables(&self) -> Probe {
        let (ok, detail) = match probe_nf_tables().await {
            Ok(()) => (true, "works".to_owned()),
            Err(error) => (false, chain(&error)),
        };
        let mend = if ok { String::new() } else { "modprobe nf_tables nf_nat".to_owned() };
        Probe { name: "nf_tables", ok, detail, mend, vital: true }
    }
}

impl NetworkFacility for NetworkAdapter {
    fn restore<'a>(&'a self, records: &'a [AttachmentRecord]) -> Answer<'a, ()> {
        Box::pin(async move { Ok(self.network.restore(records).await?) })
    }

    fn add<'a>(&'a self, record: &'a AttachmentRecord) -> Answer<'a, Attached> {
        Box::pin(async move {
            let attachment = self.network.add(record).await?;
            Ok(Attached { netns: attachment.netns_path, gateway: attachment.gateway })
        })
    }

    fn del<'a>(&'a self, record: &'a AttachmentRecord) -> Answer<'a, ()> {
        Box::pin(async move { Ok(self.network.del(record).await?) })
    }

    fn remove_leftovers<'a>(&'a self, records: &'a [AttachmentRecord]) -> Answer<'a, Vec<String>> {
        Box::pin(async move {
            let kernel = self.network.list_kernel().await?;
            let found = leftovers(&kernel, records);
            let ports = found.ports.iter().map(|port| format!("port map of host port {}", port.host_port));
            let names = found
                .netns
                .iter()
                .map(|name| format!("netns {name}"))
                .chain(found.veths.iter().map(|name| format!("link {name}")));
            let removed: Vec<String> = names.chain(ports).collect();
            if removed.is_empty() {
                return Ok(removed);
            }
            match self.network.remove_leftovers(&found).await {
                Ok(()) => Ok(removed),
                Err(errors) => {
                    Err(errors.iter().map(|error| chain(error)).collect::<Vec<_>>().join("; ").into())
                }
            }
        })
    }

    fn port_owner(&self, port: HostPort) -> Option<String> {
        port_owner(port.protocol, port.port).map(|owner| owner.to_string())
    }

    fn traffic<'a>(
        &'a self,
        records: &'a [AttachmentRecord],
    ) -> Answer<'a, BTreeMap<AttachmentKey, Traffic>> {
        Box::pin(async move { Ok(self.network.traffic(records).await?) })
    }

    fn self_test(&self) -> BoxFuture<'_, Vec<Probe>> {
        Box::pin(async move { vec![self.probe_nf_tables().await] })
    }

    fn probe_forwarding(&self) -> BoxFuture<'_, Probe> {
        Box::pin(async move {
            let (ok, detail, mend) = match self.network.probe_forwarding().await {
                Ok(ForwardingVerdict::Passes) => (true, "packets pass".to_owned(), String::new()),
                Ok(ForwardingVerdict::Dropped { path, suspect, mend }) => {
                    (false, format!("packets {path} are dropped, perhaps by {suspect}"), mend)
                }
                Err(error) => (false, chain(&error), String::new()),
            };
            Probe { name: "forwarding", ok, detail, mend, vital: false }
        })
    }
}
