//! The IPv4 subnet of the bridge: which address is the gateway's, which may be leased.
//! In: "172.29.0.0/16". Out: addresses. Owns nothing; pure.
//! Never: asks the kernel; overlap with the node's other networks is checked in `host.rs`.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// Why a text is not a subnet for a bridge.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubnetError {
    #[error("a subnet is written like 172.29.0.0/16, got {text:?}")]
    NotASubnet { text: String },
    #[error("the subnet {text:?} must have a prefix length from 8 to 29")]
    BadPrefix { text: String },
    #[error("the subnet {text:?} has host bits set; did you mean {meant}?")]
    HostBits { text: String, meant: Subnet },
}

/// An IPv4 network with a prefix of 8 to 29 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subnet {
    network: u32,
    prefix_len: u8,
}

impl Subnet {
    /// The subnet a node uses unless told otherwise: 172.29.0.0/16.
    pub const DEFAULT: Self = Self { network: 0xac1d_0000, prefix_len: 16 };

    /// Length of the network part in bits.
    pub fn prefix_len(&self) -> u8 {
        self.prefix_len
    }

    /// The network's own address, the first of all.
    pub fn network(&self) -> Ipv4Addr {
        self.network.into()
    }

    /// The netmask, such as 255.255.0.0.
    pub fn netmask(&self) -> Ipv4Addr {
        self.mask().into()
    }

    /// The bridge's address: the first usable one.
    pub fn gateway(&self) -> Ipv4Addr {
        (self.network + 1).into()
    }

    /// The last usable address, kept for the forwarding probe and never leased.
    pub fn probe_address(&self) -> Ipv4Addr {
        (self.broadcast_bits() - 1).into()
    }

    /// The directed broadcast address.
    pub fn broadcast(&self) -> Ipv4Addr {
        self.broadcast_bits().into()
    }

    /// How many addresses can be leased.
    pub fn capacity(&self) -> u32 {
        self.broadcast_bits() - 1 - self.first_lease()
    }

    /// True for an address that may be leased: inside, and neither network, gateway, probe nor broadcast.
    pub fn is_leasable(&self, address: Ipv4Addr) -> bool {
        let bits = u32::from(address);
        bits >= self.first_lease() && bits < self.broadcast_bits() - 1
    }

    /// True for every address of the network.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        u32::from(address) & self.mask() == self.network
    }

    /// True when the two networks share an address. `prefix_len` is at most 32.
    pub fn overlaps(&self, other: Ipv4Addr, prefix_len: u8) -> bool {
        let mask = mask_of(self.prefix_len.min(prefix_len));
        self.network & mask == u32::from(other) & mask
    }

    /// The leasable address number `index`, counted from 0 and wrapping at the capacity.
    pub(crate) fn nth(&self, index: u32) -> Ipv4Addr {
        (self.first_lease() + index % self.capacity()).into()
    }

    /// The number of a leasable address; the inverse of `nth`.
    pub(crate) fn index_of(&self, address: Ipv4Addr) -> u32 {
        u32::from(address).saturating_sub(self.first_lease())
    }

    fn first_lease(&self) -> u32 {
        self.network + 2
    }

    fn mask(&self) -> u32 {
        mask_of(self.prefix_len)
    }

    fn broadcast_bits(&self) -> u32 {
        self.network | !self.mask()
    }
}

fn mask_of(prefix_len: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix_len)).unwrap_or(0)
}

impl Default for Subnet {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network(), self.prefix_len)
    }
}

impl FromStr for Subnet {
    type Err = SubnetError;
    fn from_str(text: &str) -> Result<Self, SubnetError> {
        let wrong = || SubnetError::NotASubnet { text: text.to_owned() };
        let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let address: Ipv4Addr = address.parse().map_err(|_| wrong())?;
        let prefix_len: u8 = prefix.parse().map_err(|_| wrong())?;
        if !(8..=29).contains(&prefix_len) {
            return Err(SubnetError::BadPrefix { text: text.to_owned() });
        }
        let subnet = Self { network: u32::from(address) & mask_of(prefix_len), prefix_len };
        if subnet.network() != address {
            return Err(SubnetError::HostBits { text: text.to_owned(), meant: subnet });
        }
        Ok(subnet)
    }
}

impl TryFrom<String> for Subnet {
    type Error = SubnetError;
    fn try_from(text: String) -> Result<Self, SubnetError> {
        text.parse()
    }
}

impl From<Subnet> for String {
    fn from(subnet: Subnet) -> String {
        subnet.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_special_addresses_are_never_leased() {
        let subnet: Subnet = "10.1.2.0/29".parse().unwrap();
        assert_eq!(subnet.gateway(), Ipv4Addr::new(10, 1, 2, 1));
        assert_eq!(subnet.probe_address(), Ipv4Addr::new(10, 1, 2, 6));
        assert_eq!(subnet.broadcast(), Ipv4Addr::new(10, 1, 2, 7));
        assert_eq!(subnet.capacity(), 4);
        let leasable: Vec<u8> =
            (0..8).filter(|last| subnet.is_leasable(Ipv4Addr::new(10, 1, 2, *last))).collect();
        assert_eq!(leasable, [2, 3, 4, 5]);
        assert_eq!(Subnet::DEFAULT.to_string(), "172.29.0.0/16");
    }

    #[test]
    fn wrong_texts_are_refused_with_a_hint() {
        let error = "172.29.3.4/16".parse::<Subnet>().unwrap_err();
        assert!(error.to_string().contains("172.29.0.0/16"), "{error}");
        assert!("172.29.0.0".parse::<Subnet>().is_err());
        assert!("172.29.0.0/31".parse::<Subnet>().is_err());
        assert!("::/16".parse::<Subnet>().is_err());
    }

    #[test]
    fn overlap_is_seen_both_ways() {
        let subnet = Subnet::DEFAULT;
        assert!(subnet.overlaps(Ipv4Addr::new(172, 29, 5, 1), 24));
        assert!(subnet.overlaps(Ipv4Addr::new(172, 16, 0, 0), 12));
        assert!(!subnet.overlaps(Ipv4Addr::new(172, 17, 0, 1), 16));
        assert!(subnet.overlaps(Ipv4Addr::new(0, 0, 0, 0), 0));
    }
}
