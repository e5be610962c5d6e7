//! The no-leak oracle: what a node holds before and after, compared line by line.
//! In: the guest's own view (guest/inventory.sh: ip, nft, ss, /proc, cgroups). Out: the difference, or nothing.
//! Owns: the baseline. Never: asks Lighter, whose books could be wrong in the same way.

use crate::guest::Guest;
use anyhow::{Result, bail};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Teardown is asynchronous to the report of STOPPED; it must end within this, under emulation too.
const SETTLE_LIMIT: Duration = Duration::from_secs(40);

/// Lines and how often each occurs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inventory(BTreeMap<String, u32>);

impl Inventory {
    /// What the node holds now.
    pub fn take(guest: &Guest) -> Result<Self> {
        Ok(Self::parse(&guest.sh("bash /payload/guest/inventory.sh")?))
    }

    fn parse(text: &str) -> Self {
        let mut lines = BTreeMap::new();
        for line in text.lines().filter(|l| !l.trim().is_empty()) {
            *lines.entry(line.trim().to_string()).or_insert(0) += 1;
        }
        Self(lines)
    }

    /// Lines that are in one of the two only, or more often: `+` is new, `-` has gone.
    pub fn difference(&self, later: &Self) -> Vec<String> {
        let names: std::collections::BTreeSet<&String> = self.0.keys().chain(later.0.keys()).collect();
        let count = |of: &Self, name: &String| of.0.get(name).copied().unwrap_or(0);
        names
            .into_iter()
            .filter(|name| count(self, name) != count(later, name))
            .map(|name| {
                let sign = if count(later, name) > count(self, name) { '+' } else { '-' };
                format!("{sign} {name}")
            })
            .collect()
    }
}

/// Waits until the node holds what it held at `baseline`; fails with what is left or missing.
pub fn settle(guest: &Guest, baseline: &Inventory) -> Result<()> {
    let deadline = Instant::now() + SETTLE_LIMIT;
    loop {
        let difference = baseline.difference(&Inventory::take(guest)?);
        if difference.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("{}: left behind or missing:\n{}", guest.name(), difference.join("\n"));
        }
        std::thread::sleep(Duration::from_millis(300));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_a_lost_and_a_doubled_line_are_seen() {
        let before = Inventory::parse("link lo\nnetns 1\nprocess sshd\n");
        let after = Inventory::parse("link lo\nlink veth1\nprocess sshd\nprocess sshd\n");
        assert_eq!(before.difference(&after), ["+ link veth1", "- netns 1", "+ process sshd"]);
        assert!(before.difference(&before).is_empty());
    }
}
