//! Reads back from the kernel which limits are in force. In: the cgroup's directories. Out: limits.
//! Never: writes, or judges; that is `lighter_shim_wire::limits`.

use lighter_shim_wire::{CgroupPaths, Limits, limits};
use std::fs;

/// A file that is not there is "no limit".
pub(crate) fn in_force(paths: &CgroupPaths) -> Limits {
    limits::in_force(paths, |directory, file| {
        fs::read_to_string(format!("{directory}/{file}")).unwrap_or_default()
    })
}
