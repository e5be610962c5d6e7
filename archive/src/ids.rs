//! Copying for a container that has user ids of its own: its 0 is `first` here. Mounts that map owners
//! and file systems of a user namespace let nobody make a file who has no id there, so the thread
//! becomes the container's root for files; owners, access lists and capabilities are translated.
//! In: the two maps of /proc/PID. Out: ids as archives have them, and back.
//! Source: user_namespaces(7), capabilities(7), acl(5), linux/posix_acl_xattr.h, linux/capability.h.
//! Never: an id of the host that the container has not; gives rights to a program outside of it.

use crate::ArchiveError;
use rustix::fs::{Gid, Uid};
use rustix::thread::{CapabilitySet, set_capabilities, set_thread_res_gid, set_thread_res_uid};

/// What the kernel shows in place of an id that has no number in a namespace (proc(5), overflowuid).
const NOBODY: u32 = 65_534;
const CAPABILITY: &[u8] = b"security.capability";
const ACCESS_LIST: &[u8] = b"system.posix_acl_";
/// Revisions of a capability attribute, in the high byte of its first word.
const REVISION_MASK: u32 = 0xff00_0000;
const REVISION_2: u32 = 0x0200_0000;
const REVISION_3: u32 = 0x0300_0000;
const REVISION_2_BYTES: usize = 20;
const REVISION_3_BYTES: usize = 24;
/// An access list: a version, then tag, permissions and id of each entry.
const ACL_HEAD_BYTES: usize = 4;
const ACL_ENTRY_BYTES: usize = 8;
const ACL_USER: u16 = 0x02;
const ACL_GROUP: u16 = 0x08;

/// Ids of a container: those from 0 on are as many from `first` on here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ids {
    first: u32,
    count: u32,
}

impl Ids {
    /// Those of the machine itself.
    pub const HOST: Self = Self { first: 0, count: u32::MAX };

    /// From /proc/PID/uid_map and gid_map; `None` when they are not one part, the same for both, from
    /// 0 on: a task's are, and a namespace that a container has made itself may not be.
    pub fn parse(uid_map: &str, gid_map: &str) -> Option<Self> {
        let words: Vec<u32> = uid_map.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
        match (&words[..], uid_map == gid_map) {
            (&[0, first, count], true) if count > 0 => Some(Self { first, count }),
            _ => None,
        }
    }

    /// The id here.
    pub(crate) fn here(self, id: u32) -> Option<u32> {
        (id < self.count).then(|| self.first.checked_add(id)).flatten()
    }

    /// The id in the container.
    pub(crate) fn inside(self, id: u32) -> u32 {
        id.checked_sub(self.first).filter(|id| *id < self.count).unwrap_or(NOBODY)
    }

    /// Makes the calling thread, for good, the container's root for files. It keeps the rights of root
    /// over files and no others. For a thread that ends with the copy.
    pub fn become_root(self) -> Result<(), ArchiveError> {
        if self == Self::HOST {
            return Ok(());
        }
        let failed = ArchiveError::at("becoming the root of", b"a user namespace");
        let become_root = || {
            set_thread_res_gid(None, Gid::from_raw(self.first), None)?;
            // The effective capabilities go with the effective id; root's real id keeps the permitted.
            set_thread_res_uid(None, Uid::from_raw(self.first), None)?;
            let mut sets = rustix::thread::capabilities(None)?;
            sets.effective = CapabilitySet::CHOWN
                | CapabilitySet::DAC_OVERRIDE
                | CapabilitySet::DAC_READ_SEARCH
                | CapabilitySet::FOWNER
                | CapabilitySet::FSETID
                | CapabilitySet::SETFCAP;
            set_capabilities(None, sets)
        };
        become_root().map_err(failed)
    }

    /// An extended attribute of an archive as it is to be set; `None`: it speaks of somebody who is not
    /// in the container, or cannot be read.
    pub(crate) fn attribute_here(self, name: &[u8], value: &[u8]) -> Option<Vec<u8>> {
        match name {
            CAPABILITY => self.capability(value, |id| self.here(id)),
            name if name.starts_with(ACCESS_LIST) => access_list(value, |id| self.here(id)),
            _ => Some(value.to_vec()),
        }
    }

    /// The same the other way, for an archive.
    pub(crate) fn attribute_inside(self, name: &[u8], value: &[u8]) -> Option<Vec<u8>> {
        match name {
            CAPABILITY => self.capability(value, |id| Some(self.inside(id)).filter(|id| *id != NOBODY)),
            name if name.starts_with(ACCESS_LIST) => access_list(value, |id| Some(self.inside(id))),
            _ => Some(value.to_vec()),
        }
    }

    /// Revision 2 is root's of the namespace that looks, revision 3 names whose. Capabilities that are
    /// not of this container's root stay as they were when there is no container.
    fn capability(self, value: &[u8], change: impl Fn(u32) -> Option<u32>) -> Option<Vec<u8>> {
        if self == Self::HOST {
            return Some(value.to_vec());
        }
        let head = u32::from_le_bytes(value.get(..4)?.try_into().ok()?);
        let root = match (head & REVISION_MASK, value.len()) {
            (REVISION_2, REVISION_2_BYTES) => 0,
            (REVISION_3, REVISION_3_BYTES) => u32::from_le_bytes(value[REVISION_2_BYTES..].try_into().ok()?),
            _ => return None,
        };
        let root = change(root)?;
        let revision = if root == 0 { REVISION_2 } else { REVISION_3 };
        let mut changed = (head & !REVISION_MASK | revision).to_le_bytes().to_vec();
        changed.extend_from_slice(&value[4..REVISION_2_BYTES]);
        if root != 0 {
            changed.extend_from_slice(&root.to_le_bytes());
        }
        Some(changed)
    }
}

fn access_list(value: &[u8], change: impl Fn(u32) -> Option<u32>) -> Option<Vec<u8>> {
    let (head, entries) = value.split_at_checked(ACL_HEAD_BYTES)?;
    let mut changed = head.to_vec();
    for entry in entries.chunks(ACL_ENTRY_BYTES) {
        let [tag_low, tag_high, p0, p1, i0, i1, i2, i3] = *entry else { return None };
        let mut id = u32::from_le_bytes([i0, i1, i2, i3]);
        if matches!(u16::from_le_bytes([tag_low, tag_high]), ACL_USER | ACL_GROUP) {
            id = change(id)?;
        }
        changed.extend_from_slice(&[tag_low, tag_high, p0, p1]);
        changed.extend_from_slice(&id.to_le_bytes());
    }
    Some(changed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TASK: Ids = Ids { first: 0x7000_0000, count: 65_536 };

    #[test]
    fn the_maps_of_proc_are_read() {
        let map = "         0 1879048192      65536\n";
        assert_eq!(Ids::parse(map, map), Some(TASK));
        let host = "         0          0 4294967295\n";
        assert_eq!(Ids::parse(host, host), Some(Ids::HOST));
        for (uids, gids) in
            [(map, host), ("", ""), ("1000 0 1\n", "1000 0 1\n"), ("0 5 1\n1 9 1\n", "0 5 1\n1 9 1\n")]
        {
            assert_eq!(Ids::parse(uids, gids), None, "{uids} {gids}");
        }
    }

    #[test]
    fn a_capability_belongs_to_the_root_of_the_container() {
        let inside = [&0x0200_0001_u32.to_le_bytes()[..], &[7; 16]].concat();
        let here = TASK.attribute_here(CAPABILITY, &inside).unwrap();
        assert_eq!(here[..4], 0x0300_0001_u32.to_le_bytes());
        assert_eq!(here[20..], TASK.first.to_le_bytes());
        assert_eq!(TASK.attribute_inside(CAPABILITY, &here).unwrap(), inside);
        // One of the host's root, or another task's, is none in the container.
        assert_eq!(TASK.attribute_inside(CAPABILITY, &inside), None);
        assert_eq!(TASK.attribute_here(CAPABILITY, &inside[..19]), None);
        assert_eq!(Ids::HOST.attribute_here(CAPABILITY, &inside), Some(inside.clone()));
    }

    proptest! {
        #[test]
        fn no_id_of_another_comes_out_and_all_come_back(id in any::<u32>()) {
            match TASK.here(id) {
                Some(here) => {
                    prop_assert!(here >= TASK.first && here - TASK.first < TASK.count);
                    prop_assert_eq!(TASK.inside(here), id);
                }
                None => prop_assert!(id >= TASK.count),
            }
            prop_assert!(TASK.inside(id) < TASK.count);
        }

        #[test]
        fn an_access_list_keeps_its_entries(list in proptest::collection::vec((any::<u16>(), any::<u16>(), any::<u32>()), 0..9)) {
            let entries = list.iter().map(|(tag, may, id)| (if id % 2 == 0 { ACL_USER } else { *tag }, may, id));
            let value = entries.fold(2_u32.to_le_bytes().to_vec(), |mut bytes, (tag, may, id)| {
                bytes.extend_from_slice(&tag.to_le_bytes());
                bytes.extend_from_slice(&may.to_le_bytes());
                bytes.extend_from_slice(&(id % TASK.count).to_le_bytes());
                bytes
            });
            let name = b"system.posix_acl_access";
            let here = TASK.attribute_here(name, &value).unwrap();
            prop_assert_eq!(TASK.attribute_inside(name, &here).unwrap(), value);
        }
    }
}
