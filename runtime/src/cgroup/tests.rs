//! The arithmetic of limits; the kernel's side is in tests/.

use super::cpu::{quota_us, weight};
use super::{CgroupRoot, MOUNT};
use std::path::{Path, PathBuf};

#[test]
fn cpu_units_become_quota_and_weight() {
    assert_eq!(quota_us(0), None);
    assert_eq!(quota_us(256), Some(25_000));
    assert_eq!(quota_us(1024), Some(100_000));
    assert_eq!(quota_us(2), Some(1_000));
    assert_eq!((weight(0), weight(1024), weight(u32::MAX)), (1, 100, 10_000));
}

#[test]
fn the_oci_path_starts_at_the_hierarchy() {
    let task = "0".repeat(32).parse().unwrap();
    let container = "web".parse().unwrap();
    let root = CgroupRoot::V2 { path: Path::new(MOUNT).join("system.slice/lighter-tasks.service") };
    let expected = format!("/system.slice/lighter-tasks.service/tasks/{task}/web");
    assert_eq!(root.oci_path(&task, &container), PathBuf::from(expected));
}
