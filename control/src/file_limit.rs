//! How many connections the kernel's limit of open files allows.
//! In: /proc/self/limits. Out: counts, and words at the start when they are few.
//! Never: changes the limit; systemd's unit sets it.

use std::path::Path;

/// Descriptors kept for the store, listeners, people and streams.
const RESERVE: u64 = 128;
/// Assumed where /proc cannot be read: Linux's own default.
const UNKNOWN: u64 = 1_024;

/// The soft limit of this process.
pub(crate) fn soft_limit() -> u64 {
    let text = std::fs::read_to_string(Path::new("/proc/self/limits")).unwrap_or_default();
    parse(&text).unwrap_or(UNKNOWN)
}

/// `Max open files  1024  524288  files`
fn parse(text: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match rest.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

/// Connections that this limit leaves room for; a node takes one.
pub(crate) fn connections(soft_limit: u64) -> usize {
    usize::try_from(soft_limit.saturating_sub(RESERVE).max(1)).unwrap_or(usize::MAX)
}

/// Says at the start how many nodes there can be, when that is fewer than are allowed.
pub(crate) fn warn_if_low(soft_limit: u64, nodes_wanted: u32) {
    let nodes = connections(soft_limit);
    if nodes < nodes_wanted as usize {
        tracing::warn!(
            soft_limit,
            nodes,
            "the limit of open files allows {nodes} nodes at most; raise it: LimitNOFILE= of \
             lighter-control.service, or ulimit -n"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_text_is_read_and_the_reserve_taken_off() {
        let text = "Limit                     Soft Limit           Hard Limit           Units\n\
                    Max open files            1024                 524288               files\n";
        assert_eq!(parse(text), Some(1_024));
        assert_eq!(parse("Max open files  unlimited unlimited files"), Some(u64::MAX));
        assert_eq!(parse("nothing"), None);
        assert_eq!((connections(1_024), connections(5)), (896, 1));
        assert!(soft_limit() > 0);
    }
}
