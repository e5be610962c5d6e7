//! The network of one node: a bridge, and for every attachment a network namespace, a veth pair, an
//! address and port mappings, all made in process over netlink.
//! In: a configuration, and records that the agent stores before anything is done.
//! Out: attachments. Owns: the bridge, one nf_tables table, the files under the netns directory.
//! Never: runs `ip`, `nft` or `iptables`; changes tables or links of others; knows what runs in a
//! namespace.
//!
//! The way of the agent: `LeasePool::from_records` and `Network::restore` at its start; for every
//! attachment `plan_attachment`, store the record, `Network::add`; at the end `Network::del`, delete
//! the record, release the address.

mod attach;
mod check;
mod config;
mod conntrack;
pub mod files;
mod firewall;
mod host;
mod kernel;
mod lease;
mod link;
mod netlink;
mod netns;
mod network;
mod nft;
mod ports;
mod probe;
mod record;
mod subnet;
mod teardown;
mod traffic;

pub use attach::AttachError;
pub use check::CheckError;
pub use config::{ConfigError, METADATA_ADDRESS, NetworkConfig};
pub use conntrack::ConntrackError;
pub use host::HostError;
pub use kernel::{KernelState, ListError, leftovers};
pub use lease::{LeaseError, LeasePool};
pub use link::LinkError;
pub use netns::NetnsError;
pub use network::{AddError, Attachment, Network, OpenError};
pub use nft::{NftError, PortElement};
pub use ports::owner::{PortOwner, port_owner};
pub use ports::{FALLBACK_RANGE, PortAllocator, RESERVED};
pub use probe::{ForwardingVerdict, ProbeError, probe_nf_tables};
pub use record::{AddRequest, AttachmentMode, AttachmentRecord, PlanError, PortForward, plan_attachment};
pub use subnet::{Subnet, SubnetError};
pub use teardown::{DelError, DelStepError};
pub use traffic::Traffic;
