//! The network of a node: ADD, CHECK and DEL of attachments, as CNI means them.
//! In: records. Out: what the agent tells the task. Owns the bridge, the table and the netns
//! directory, together with nobody else. Never: decides names or addresses (see `record.rs`), keeps
//! state: the records and the kernel are all there is, so a new value goes on where the last ended.

use crate::attach::{self, AttachError};
use crate::check::{self, CheckError};
use crate::config::{ConfigError, NetworkConfig};
use crate::conntrack::{self, Wanted};
use crate::firewall::{Firewall, Flows};
use crate::host::{self, HostError};
use crate::kernel::{self, KernelState, ListError, elements_of};
use crate::link;
use crate::netns;
use crate::nft::{self, NftError, PortElement};
use crate::record::{AttachmentRecord, PortForward};
use crate::teardown::{self, DelError, DelStepError};
use crate::traffic::{self, Traffic};
use lighter_model::ids::AttachmentKey;
use lighter_model::task_definition::TransportProtocol;
use nix::errno::Errno;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;

/// Why the network cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the network is configured wrongly")]
    Config(#[source] ConfigError),
    #[error("cannot open the network namespace of the host")]
    Namespace(#[source] io::Error),
    #[error("cannot talk to nf_tables: is the kernel built with it, and is this root?")]
    Netlink(#[source] io::Error),
}

/// Why an attachment was not made. DEL what may be there of it.
#[derive(Debug, thiserror::Error)]
pub enum AddError {
    #[error("attachment {key} cannot be made")]
    Attach {
        key: AttachmentKey,
        #[source]
        source: AttachError,
    },
    #[error("attachment {key} cannot map {port}: the port leads to {owner} already")]
    PortMapped { key: AttachmentKey, port: PortForward, owner: Ipv4Addr },
    #[error("attachment {key} cannot map its ports")]
    Ports {
        key: AttachmentKey,
        #[source]
        source: NftError,
    },
    #[error("attachment {key}: stale connections to its ports remain")]
    Conntrack {
        key: AttachmentKey,
        #[source]
        source: conntrack::ConntrackError,
    },
}

/// The answer of ADD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    pub key: AttachmentKey,
    /// The namespace, to be joined by path.
    pub netns_path: PathBuf,
    /// None in mode none, and so are the two after it.
    pub address: Option<Ipv4Addr>,
    pub gateway: Option<Ipv4Addr>,
    /// The host's end of the veth pair.
    pub veth: Option<String>,
    /// Prefix length of the bridge's subnet in bits.
    pub prefix_len: u8,
    pub ports: Vec<PortForward>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) config: NetworkConfig,
    /// The network namespace where `open` was called; every thread of ours works in it.
    pub(crate) home: File,
    firewall: Firewall,
    flows: Flows,
}

/// A handle to the node's network; clones are cheap. See the file's header.
#[derive(Debug, Clone)]
pub struct Network {
    inner: Arc<Inner>,
}

impl Network {
    /// Opens the network in the calling thread's network namespace. Changes nothing.
    pub fn open(config: NetworkConfig) -> Result<Self, OpenError> {
        config.check().map_err(OpenError::Config)?;
        let home = netns::current().map_err(OpenError::Namespace)?;
        let firewall = Firewall::start().map_err(OpenError::Netlink)?;
        let flows = Flows::start().map_err(OpenError::Netlink)?;
        Ok(Self { inner: Arc::new(Inner { config, home, firewall, flows }) })
    }

    /// The configuration it was opened with.
    pub fn config(&self) -> &NetworkConfig {
        &self.inner.config
    }

    pub(crate) fn firewall(&self) -> &Firewall {
        &self.inner.firewall
    }

    pub(crate) fn flows(&self) -> &Flows {
        &self.inner.flows
    }

    pub(crate) fn inner(&self) -> Arc<Inner> {
        self.inner.clone()
    }

    /// Makes or completes the bridge, the sysctls and, if it is not there, the table. Leaves mappings
    /// alone. Idempotent.
    pub async fn ensure_host(&self) -> Result<(), HostError> {
        if !self.has_table().await? {
            self.replace_table(Vec::new()).await?;
        }
        self.ensure_bridge().await
    }

    /// Makes the host's side as the records say: the table is replaced whole, in one transaction, so
    /// that mappings of live attachments are never missing and those no record knows are gone.
    /// Attachments whose namespaces are lost (a reboot) come back by `add`.
    pub async fn restore(&self, records: &[AttachmentRecord]) -> Result<(), HostError> {
        self.replace_table(records.iter().flat_map(elements_of).collect()).await?;
        self.ensure_bridge().await
    }

    async fn ensure_bridge(&self) -> Result<(), HostError> {
        let inner = self.inner.clone();
        let made = netns::on_own_thread("lighter-host", move || {
            netns::enter(&inner.home).map_err(HostError::Thread)?;
            link::with_routes(async |handle| host::ensure(handle, &inner.config).await)
                .map_err(HostError::Thread)?
        });
        made.await.map_err(HostError::Thread)?
    }

    async fn has_table(&self) -> Result<bool, HostError> {
        let chains = self.inner.firewall.run(nft::list::list_chains).await;
        let table = &self.inner.config.table;
        let chains = chains.map_err(|source| HostError::Table { table: table.clone(), source })?;
        Ok(chains.iter().any(|c| c.family == nft::list::Family::Ip && c.table == *table))
    }

    async fn replace_table(&self, elements: Vec<PortElement>) -> Result<(), HostError> {
        let inner = self.inner.clone();
        let replace = move |socket: &mut _| nft::replace_table(socket, &inner.config, &elements);
        let table = &self.inner.config.table;
        let replaced = self.inner.firewall.run(replace).await;
        replaced.map_err(|source| HostError::Table { table: table.clone(), source })
    }

    /// Makes the attachment of a stored record, or completes it; ADD again gives the same answer.
    /// Maps the record's ports: leave them out of the record and use `map_ports` later when the ports
    /// are bound only then.
    pub async fn add(&self, record: &AttachmentRecord) -> Result<Attachment, AddError> {
        let failed = |source| AddError::Attach { key: record.key.clone(), source };
        let (inner, copy) = (self.inner.clone(), record.clone());
        let made =
            netns::on_own_thread("lighter-add", move || attach::attach(&inner.home, &inner.config, &copy));
        made.await.map_err(AttachError::Thread).and_then(|made| made).map_err(failed)?;
        self.map_ports(record).await?;
        Ok(self.describe(record))
    }

    /// What ADD of this record answers; asks nobody.
    pub fn describe(&self, record: &AttachmentRecord) -> Attachment {
        let config = &self.inner.config;
        Attachment {
            key: record.key.clone(),
            netns_path: config.netns_dir.join(&record.netns),
            address: record.address,
            gateway: record.address.map(|_| config.subnet.gateway()),
            veth: record.veth.clone(),
            prefix_len: config.subnet.prefix_len(),
            ports: record.ports.clone(),
        }
    }

    /// Maps every port of the record, all or none; again is a success. From then on the traffic of the
    /// host's port goes to the attachment: bind the port first, so that it is nobody else's.
    pub async fn map_ports(&self, record: &AttachmentRecord) -> Result<(), AddError> {
        let elements = elements_of(record);
        if elements.is_empty() {
            return Ok(());
        }
        let (inner, wanted) = (self.inner.clone(), elements.clone());
        let add = move |socket: &mut _| nft::add_elements(socket, &inner.config.table, &wanted);
        match self.inner.firewall.run(add).await {
            Ok(()) => self.forget_old_flows(record, &elements).await,
            Err(error) if matches!(error.errno, Errno::EEXIST | Errno::EBUSY) => {
                Err(self.who_has_a_port(record, elements, error).await)
            }
            Err(source) => Err(AddError::Ports { key: record.key.clone(), source }),
        }
    }

    /// A udp client that sent before the mapping was there would never meet it.
    async fn forget_old_flows(
        &self,
        record: &AttachmentRecord,
        elements: &[PortElement],
    ) -> Result<(), AddError> {
        let udp = elements.iter().filter(|e| e.protocol == TransportProtocol::Udp);
        let ports: Vec<u16> = udp.map(|e| e.host_port).collect();
        if ports.is_empty() {
            return Ok(());
        }
        let deleted = self.inner.flows.delete(Wanted::UntranslatedUdp(ports)).await;
        deleted.map_err(|source| AddError::Conntrack { key: record.key.clone(), source })
    }

    async fn who_has_a_port(
        &self,
        record: &AttachmentRecord,
        elements: Vec<PortElement>,
        error: NftError,
    ) -> AddError {
        let (inner, key) = (self.inner.clone(), record.key.clone());
        let ask = move |socket: &mut _| {
            for (index, element) in elements.iter().enumerate() {
                match nft::get_element(socket, &inner.config.table, element)? {
                    Some(there) if there != *element => return Ok(Some((index, there.target))),
                    _ => continue,
                }
            }
            Ok::<_, NftError>(None)
        };
        match self.inner.firewall.run(ask).await {
            Ok(Some((index, owner))) => AddError::PortMapped { key, port: record.ports[index], owner },
            _ => AddError::Ports { key, source: error },
        }
    }

    /// Deletes the record's port mappings and the connections through them; the attachment stays.
    pub async fn unmap_ports(&self, record: &AttachmentRecord) -> Result<(), DelError> {
        let mut failures = self.delete_elements(elements_of(record)).await;
        if let Some(target) = record.address.filter(|_| !record.ports.is_empty()) {
            let ports = record.ports.iter().map(|p| (p.protocol, p.host_port)).collect();
            let deleted = self.inner.flows.delete(Wanted::OfMappings { target, ports }).await;
            failures.extend(deleted.err().map(DelStepError::Conntrack));
        }
        finish(&record.key, failures)
    }

    async fn delete_elements(&self, elements: Vec<PortElement>) -> Vec<DelStepError> {
        if elements.is_empty() {
            return Vec::new();
        }
        let inner = self.inner.clone();
        let delete = move |socket: &mut _| {
            let failed = elements.iter().filter_map(|element| {
                let deleted = nft::delete_element(socket, &inner.config.table, element);
                deleted.err().map(|source| DelStepError::Port { port: element.forward(), source })
            });
            Ok::<_, NftError>(failed.collect::<Vec<_>>())
        };
        // The closure itself never fails; only the thread behind it can be gone.
        self.inner
            .firewall
            .run(delete)
            .await
            .unwrap_or_else(|error| vec![DelStepError::Thread(io::Error::other(error.to_string()))])
    }

    /// Compares the kernel with the record.
    pub async fn check(&self, record: &AttachmentRecord) -> Result<(), CheckError> {
        let (inner, copy) = (self.inner.clone(), record.clone());
        let found = netns::on_own_thread("lighter-check", move || {
            check::attachment(&inner.home, &inner.config, &copy)
        });
        let mut missing = found.await.map_err(CheckError::Thread)??;
        let (inner, elements) = (self.inner.clone(), elements_of(record));
        let ask = move |socket: &mut _| {
            let table = &inner.config.table;
            let mut absent = Vec::new();
            for element in elements {
                if nft::get_element(socket, table, &element)? != Some(element) {
                    absent.push(format!("the mapping of host port {}", element.host_port));
                }
            }
            Ok::<_, NftError>(absent)
        };
        missing.extend(self.inner.firewall.run(ask).await.map_err(CheckError::Ports)?);
        if missing.is_empty() {
            return Ok(());
        }
        Err(CheckError::Missing { key: record.key.clone(), missing })
    }

    /// Removes everything the record says, and waits until it is gone. Idempotent. The processes in
    /// the namespace should have ended; release the lease only after this.
    pub async fn del(&self, record: &AttachmentRecord) -> Result<(), DelError> {
        let mut failures = self.delete_elements(elements_of(record)).await;
        let (inner, copy) = (self.inner.clone(), record.clone());
        let detached = netns::on_own_thread("lighter-del", move || {
            teardown::detach(&inner.home, &inner.config, &copy.netns, copy.veth.as_deref())
        });
        failures.extend(detached.await.unwrap_or_else(|e| vec![DelStepError::Thread(e)]));
        if let Some(address) = record.address {
            let deleted = self.inner.flows.delete(Wanted::OfAddress(address)).await;
            failures.extend(deleted.err().map(DelStepError::Conntrack));
        }
        finish(&record.key, failures)
    }

    /// What the attachments of these records have sent and received; one without a link, or whose
    /// link is gone, is not in the answer. One reading for all.
    pub async fn traffic(
        &self,
        records: &[AttachmentRecord],
    ) -> io::Result<BTreeMap<AttachmentKey, Traffic>> {
        let inner = self.inner.clone();
        let all = netns::on_own_thread("lighter-traffic", move || traffic::read(&inner.home)).await??;
        let of = |record: &AttachmentRecord| Some((record.key.clone(), *all.get(record.veth.as_ref()?)?));
        Ok(records.iter().filter_map(of).collect())
    }

    /// Everything of ours in the kernel.
    pub async fn list_kernel(&self) -> Result<KernelState, ListError> {
        let inner = self.inner.clone();
        let listed = netns::on_own_thread("lighter-list", move || kernel::list(&inner.home, &inner.config));
        let state = listed.await.map_err(ListError::Thread)??;
        let inner = self.inner.clone();
        let list = move |socket: &mut _| nft::list_elements(socket, &inner.config.table);
        let ports = self.inner.firewall.run(list).await.map_err(ListError::Ports)?;
        Ok(KernelState { ports, ..state })
    }

    /// Deletes what `leftovers` found. Every step runs.
    pub async fn remove_leftovers(&self, found: &KernelState) -> Result<(), Vec<DelStepError>> {
        let mut failures = self.delete_elements(found.ports.clone()).await;
        let (inner, names) = (self.inner.clone(), found.clone());
        let detached = netns::on_own_thread("lighter-del", move || {
            let netns = names.netns.iter();
            let mut failures: Vec<_> =
                netns.flat_map(|name| teardown::detach(&inner.home, &inner.config, name, None)).collect();
            failures.extend(names.veths.iter().filter_map(|v| teardown::end_of_link(v).err()));
            failures
        });
        failures.extend(detached.await.unwrap_or_else(|e| vec![DelStepError::Thread(e)]));
        if failures.is_empty() { Ok(()) } else { Err(failures) }
    }

    /// Takes the host's side down: table and bridge. For tests and for leaving a machine for good;
    /// attachments are not looked at. Forwarding stays on.
    pub async fn remove_host(&self) -> Result<(), HostError> {
        let inner = self.inner.clone();
        let delete = move |socket: &mut _| nft::delete_table(socket, &inner.config.table);
        let table = self.inner.config.table.clone();
        let deleted = self.inner.firewall.run(delete).await;
        deleted.map_err(|source| HostError::Table { table, source })?;
        let inner = self.inner.clone();
        let removed = netns::on_own_thread("lighter-host", move || {
            netns::enter(&inner.home).map_err(HostError::Thread)?;
            let bridge = &inner.config.bridge;
            link::with_routes(async |handle| link::delete(handle, bridge).await)
                .map_err(HostError::Thread)?
                .map_err(|source| HostError::Bridge { bridge: bridge.clone(), source })
        });
        removed.await.map_err(HostError::Thread)?
    }
}

fn finish(key: &AttachmentKey, failures: Vec<DelStepError>) -> Result<(), DelError> {
    if failures.is_empty() { Ok(()) } else { Err(DelError { key: key.clone(), failures }) }
}
