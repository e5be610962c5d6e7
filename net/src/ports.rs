//! Host ports: which one a dynamic mapping (hostPort 0) tries next.
//! In: the kernel's ephemeral range and the ports in use by records. Out: candidates, round robin.
//! Owns the set of ports this agent uses. Never: binds; the task's monitor does, and only its bind
//! decides: on EADDRINUSE ask for the next candidate. Who has a port: see `ports/owner.rs`.

pub(crate) mod owner;

use lighter_model::task_definition::TransportProtocol;
use std::collections::BTreeSet;
use std::ops::RangeInclusive;

/// ECS's range when the kernel's cannot be read.
pub const FALLBACK_RANGE: RangeInclusive<u16> = 49153..=65535;

/// Ports ECS never gives to a task: ssh, Docker's, and the agent's own.
pub const RESERVED: [u16; 6] = [22, 2375, 2376, 51678, 51679, 51680];

/// Chooses dynamic host ports. Ports of tcp and udp are counted apart.
#[derive(Debug, Clone)]
pub struct PortAllocator {
    range: RangeInclusive<u16>,
    reserved: BTreeSet<u16>,
    in_use: BTreeSet<(TransportProtocol, u16)>,
    next_tcp: u16,
    next_udp: u16,
}

impl PortAllocator {
    /// A range with at least one port; an empty or zero-based one is replaced by `FALLBACK_RANGE`.
    pub fn new(range: RangeInclusive<u16>, reserved: impl IntoIterator<Item = u16>) -> Self {
        let good = !range.is_empty() && *range.start() > 0;
        let range = if good { range } else { FALLBACK_RANGE };
        let (next_tcp, next_udp) = (*range.start(), *range.start());
        let reserved = reserved.into_iter().collect();
        Self { range, reserved, in_use: BTreeSet::new(), next_tcp, next_udp }
    }

    /// The range of /proc/sys/net/ipv4/ip_local_port_range of this network namespace (as ECS does),
    /// else `FALLBACK_RANGE`; without the ports of `RESERVED`.
    pub fn from_kernel() -> Self {
        let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
        let range = text.ok().and_then(|text| parse_range(&text)).unwrap_or(FALLBACK_RANGE);
        Self::new(range, RESERVED)
    }

    /// The range that candidates are from.
    pub fn range(&self) -> RangeInclusive<u16> {
        self.range.clone()
    }

    /// The next port that is neither reserved nor in use, and moves on, so that two callers never
    /// try the same one at a time. None when every port of the range is taken.
    pub fn next_candidate(&mut self, protocol: TransportProtocol) -> Option<u16> {
        self.next_candidates(protocol, 1)
    }

    /// As `next_candidate`, the first of `count` ports in a row that are all free. None when there is
    /// no such row, and for a count of 0.
    pub fn next_candidates(&mut self, protocol: TransportProtocol, count: u16) -> Option<u16> {
        let (first, last) = (*self.range.start(), *self.range.end());
        let mut port = match protocol {
            TransportProtocol::Tcp => self.next_tcp,
            TransportProtocol::Udp => self.next_udp,
        };
        let free = |port: u16| !self.reserved.contains(&port) && !self.in_use.contains(&(protocol, port));
        let following = |port: u16| if port >= last { first } else { port + 1 };
        for _ in self.range.clone() {
            let end = port.checked_add(count.checked_sub(1)?).filter(|end| *end <= last);
            if let Some(end) = end.filter(|end| (port..=*end).all(free)) {
                match protocol {
                    TransportProtocol::Tcp => self.next_tcp = following(end),
                    TransportProtocol::Udp => self.next_udp = following(end),
                }
                return Some(port);
            }
            port = following(port);
        }
        None
    }

    /// Notes that one of our tasks holds the port.
    pub fn mark_in_use(&mut self, protocol: TransportProtocol, port: u16) {
        self.in_use.insert((protocol, port));
    }

    /// True when one of our tasks holds the port.
    pub fn is_in_use(&self, protocol: TransportProtocol, port: u16) -> bool {
        self.in_use.contains(&(protocol, port))
    }

    /// Gives a port back; one that is not in use does no harm.
    pub fn release(&mut self, protocol: TransportProtocol, port: u16) {
        self.in_use.remove(&(protocol, port));
    }
}

/// "32768\t60999\n".
fn parse_range(text: &str) -> Option<RangeInclusive<u16>> {
    let mut words = text.split_whitespace();
    let first = words.next()?.parse().ok()?;
    let last = words.next()?.parse().ok()?;
    Some(first..=last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use TransportProtocol::{Tcp, Udp};
    use proptest::prelude::*;

    #[test]
    fn the_kernels_range_is_understood() {
        assert_eq!(parse_range("32768\t60999\n"), Some(32768..=60999));
        assert_eq!(parse_range("nonsense"), None);
        let allocator = PortAllocator::new(0..=4, RESERVED);
        assert_eq!(allocator.range(), FALLBACK_RANGE);
    }

    #[test]
    fn reserved_ports_are_passed_over_and_protocols_are_apart() {
        let mut allocator = PortAllocator::new(51677..=51681, RESERVED);
        assert_eq!(allocator.next_candidate(Tcp), Some(51677));
        assert_eq!(allocator.next_candidate(Tcp), Some(51681));
        assert_eq!(allocator.next_candidate(Tcp), Some(51677));
        allocator.mark_in_use(Tcp, 51677);
        allocator.mark_in_use(Tcp, 51681);
        assert_eq!(allocator.next_candidate(Tcp), None);
        assert_eq!(allocator.next_candidate(Udp), Some(51677));
        allocator.release(Tcp, 51681);
        assert_eq!(allocator.next_candidate(Tcp), Some(51681));
    }

    #[test]
    fn rows_of_ports_are_free_from_end_to_end() {
        let mut allocator = PortAllocator::new(100..=110, [104]);
        assert_eq!(allocator.next_candidates(Tcp, 4), Some(100));
        // 104 is reserved.
        assert_eq!(allocator.next_candidates(Tcp, 4), Some(105));
        allocator.mark_in_use(Tcp, 107);
        assert_eq!(allocator.next_candidates(Tcp, 4), Some(100));
        assert_eq!(allocator.next_candidates(Tcp, 3), Some(108));
        assert_eq!(allocator.next_candidates(Tcp, 5), None);
        assert_eq!(allocator.next_candidates(Tcp, 0), None);
        assert_eq!(allocator.next_candidates(Udp, 6), Some(105));
        let mut end = PortAllocator::new(65530..=65535, []);
        assert_eq!(end.next_candidates(Tcp, 6), Some(65530));
        assert_eq!(end.next_candidates(Tcp, 7), None);
    }

    #[test]
    fn the_last_port_of_all_does_not_overflow() {
        let mut allocator = PortAllocator::new(65534..=65535, []);
        let given: Vec<_> = (0..3).filter_map(|_| allocator.next_candidate(Tcp)).collect();
        assert_eq!(given, [65534, 65535, 65534]);
    }

    proptest! {
        #[test]
        fn a_marked_port_is_never_a_candidate_and_none_means_full(
            length in 1u16..40,
            reserved in proptest::collection::btree_set(50_000u16..50_040, 0..10),
            steps in proptest::collection::vec((0u8..4, any::<bool>(), any::<proptest::sample::Index>()), 0..200),
        ) {
            let range = 50_000..=(50_000 + length - 1);
            let mut allocator = PortAllocator::new(range.clone(), reserved.iter().copied());
            let mut held: Vec<(TransportProtocol, u16)> = Vec::new();
            for (what, tcp, which) in steps {
                let protocol = if tcp { Tcp } else { Udp };
                if what == 0 && !held.is_empty() {
                    let (protocol, port) = held.swap_remove(which.index(held.len()));
                    allocator.release(protocol, port);
                } else if let Some(port) = allocator.next_candidate(protocol) {
                    prop_assert!(range.contains(&port) && !reserved.contains(&port));
                    prop_assert!(!held.contains(&(protocol, port)));
                    allocator.mark_in_use(protocol, port);
                    held.push((protocol, port));
                } else {
                    let usable = range.clone().filter(|p| !reserved.contains(p)).count();
                    prop_assert_eq!(held.iter().filter(|h| h.0 == protocol).count(), usable);
                }
            }
        }
    }
}
