//! Address leases: which address of the subnet belongs to which attachment.
//! In: the subnet and the addresses that records hold. Out: the next free address.
//! Owns the set of taken addresses of this process; the records in the agent's store are the truth.
//! Never: asks the kernel, writes a file. Addresses are given round robin, so that one just released
//! is the last to be given again (neighbours' ARP caches and late packets of its former owner).

use crate::record::AttachmentRecord;
use crate::subnet::Subnet;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

/// Why no address could be leased.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    #[error(
        "no free address in {subnet}: {taken} of {capacity} are leased; \
         stop tasks or configure a larger subnet"
    )]
    Exhausted { subnet: Subnet, taken: u32, capacity: u32 },
    #[error("the address {address} cannot be leased from {subnet}")]
    Outside { address: Ipv4Addr, subnet: Subnet },
    #[error("the address {address} is leased already")]
    Taken { address: Ipv4Addr },
}

/// The addresses of one subnet, free or leased.
#[derive(Debug, Clone)]
pub struct LeasePool {
    subnet: Subnet,
    taken: BTreeSet<Ipv4Addr>,
    next: u32,
}

impl LeasePool {
    /// A pool with nothing leased.
    pub fn new(subnet: Subnet) -> Self {
        Self { subnet, taken: BTreeSet::new(), next: 0 }
    }

    /// The pool as the records say it is. Addresses of a former subnet are left out: they cannot
    /// collide with new ones. Goes on after the highest recorded address.
    pub fn from_records<'a>(subnet: Subnet, records: impl IntoIterator<Item = &'a AttachmentRecord>) -> Self {
        let addresses = records.into_iter().filter_map(|record| record.address);
        let taken: BTreeSet<_> = addresses.filter(|a| subnet.is_leasable(*a)).collect();
        let next = taken.last().map_or(0, |last| subnet.index_of(*last) + 1);
        Self { subnet, taken, next }
    }

    /// The subnet the addresses are from.
    pub fn subnet(&self) -> Subnet {
        self.subnet
    }

    /// How many addresses are leased.
    pub fn taken(&self) -> u32 {
        self.taken.len() as u32
    }

    /// Leases the next free address after the one given last.
    pub fn lease(&mut self) -> Result<Ipv4Addr, LeaseError> {
        let capacity = self.subnet.capacity();
        if self.taken() >= capacity {
            return Err(LeaseError::Exhausted { subnet: self.subnet, taken: self.taken(), capacity });
        }
        // At least one is free, so at most `taken` steps lead to it.
        let mut index = self.next % capacity;
        while self.taken.contains(&self.subnet.nth(index)) {
            index = (index + 1) % capacity;
        }
        let address = self.subnet.nth(index);
        self.next = (index + 1) % capacity;
        self.taken.insert(address);
        Ok(address)
    }

    /// Leases one certain address.
    pub fn claim(&mut self, address: Ipv4Addr) -> Result<(), LeaseError> {
        if !self.subnet.is_leasable(address) {
            return Err(LeaseError::Outside { address, subnet: self.subnet });
        }
        if !self.taken.insert(address) {
            return Err(LeaseError::Taken { address });
        }
        Ok(())
    }

    /// True when the address is leased.
    pub fn is_taken(&self, address: Ipv4Addr) -> bool {
        self.taken.contains(&address)
    }

    /// Gives an address back; one that is not leased does no harm.
    pub fn release(&mut self, address: Ipv4Addr) {
        self.taken.remove(&address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pool(text: &str) -> LeasePool {
        LeasePool::new(text.parse().unwrap())
    }

    #[test]
    fn an_empty_pool_says_how_many_are_leased() {
        let mut pool = pool("10.9.0.0/29");
        for _ in 0..4 {
            pool.lease().unwrap();
        }
        let error = pool.lease().unwrap_err();
        assert_eq!(
            error.to_string(),
            "no free address in 10.9.0.0/29: 4 of 4 are leased; stop tasks or configure a larger subnet"
        );
        pool.release(Ipv4Addr::new(10, 9, 0, 3));
        assert_eq!(pool.lease(), Ok(Ipv4Addr::new(10, 9, 0, 3)));
    }

    #[test]
    fn a_released_address_is_the_last_to_come_back() {
        let mut pool = pool("10.9.0.0/29");
        let first = pool.lease().unwrap();
        pool.release(first);
        assert_ne!(pool.lease().unwrap(), first);
    }

    #[test]
    fn a_claim_outside_or_twice_is_refused() {
        let mut pool = pool("10.9.0.0/29");
        let gateway = pool.subnet().gateway();
        assert!(matches!(pool.claim(gateway), Err(LeaseError::Outside { .. })));
        let address = Ipv4Addr::new(10, 9, 0, 4);
        assert_eq!(pool.claim(address), Ok(()));
        assert_eq!(pool.claim(address), Err(LeaseError::Taken { address }));
    }

    proptest! {
        #[test]
        fn leases_are_unique_inside_and_complete(
            prefix in 24u8..=29,
            steps in proptest::collection::vec((any::<bool>(), any::<proptest::sample::Index>()), 0..400),
        ) {
            let mut pool = pool(&format!("10.9.0.0/{prefix}"));
            let subnet = pool.subnet();
            let mut held: Vec<Ipv4Addr> = Vec::new();
            for (give_back, which) in steps {
                if give_back && !held.is_empty() {
                    let address = held.swap_remove(which.index(held.len()));
                    pool.release(address);
                } else {
                    match pool.lease() {
                        Ok(address) => {
                            prop_assert!(subnet.is_leasable(address));
                            prop_assert!(!held.contains(&address), "{} was given twice", address);
                            held.push(address);
                        }
                        Err(_) => prop_assert_eq!(held.len() as u32, subnet.capacity()),
                    }
                }
                prop_assert_eq!(pool.taken(), held.len() as u32);
            }
        }
    }
}
