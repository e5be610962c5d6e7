//! Extended attributes of files and directories in an archive: PAX records `SCHILY.xattr.NAME`, as GNU
//! tar, bsdtar and Docker write them. In: an open file. Out: records, or attributes set.
//! Which names travel is decided where images are unpacked: capabilities, access lists and `user.`;
//! labels of the host's security module stay behind, and what overlayfs obeys is refused.
//! Never: more of one file than `BYTES_MAX`.

use crate::ArchiveError;
use crate::destination::Rules;
use crate::ids::Ids;
use lighter_image::unpack::attributes::{Fate, fate};
use rustix::fd::AsFd;
use rustix::fs::{XattrFlags, fgetxattr, flistxattr, fsetxattr};
use rustix::io::Errno;

/// What the kernel lets a file have: names together, and each value (xattr(7)).
const LIST_BYTES: usize = 64 * 1024;
const VALUE_BYTES: usize = 64 * 1024;
/// Records of one file; our reader takes 1 MiB.
const BYTES_MAX: usize = 512 * 1024;
const PREFIX: &[u8] = b"SCHILY.xattr.";
const CAPABILITY: &[u8] = b"security.capability";

/// The records of an open file; empty when it has no such attributes.
pub(crate) fn records(file: impl AsFd, path: &[u8], ids: Ids) -> Result<Vec<u8>, ArchiveError> {
    let mut records = Vec::new();
    let mut names = vec![0; LIST_BYTES];
    let length = match flistxattr(&file, names.as_mut_slice()) {
        // Most files have none.
        Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(records),
        length => length.map_err(ArchiveError::at("reading the attributes of", path))?,
    };
    let mut value = vec![0; VALUE_BYTES];
    for name in names[..length].split(|byte| *byte == 0).filter(|name| fate(name) == Fate::Set) {
        let length = match fgetxattr(&file, name, value.as_mut_slice()) {
            Ok(length) => length,
            // Taken away since it was listed.
            Err(Errno::NODATA) => continue,
            Err(error) => return Err(ArchiveError::at("reading an attribute of", path)(error)),
        };
        if let Some(value) = ids.attribute_inside(name, &value[..length]) {
            records.extend_from_slice(&record(name, &value));
        }
        if records.len() > BYTES_MAX {
            return Err(ArchiveError::refused(path, "has more extended attributes than are copied"));
        }
    }
    Ok(records)
}

/// `<length> SCHILY.xattr.<name>=<value>\n`, where the length counts its own digits too.
fn record(name: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = 1 + PREFIX.len() + name.len() + 1 + value.len() + 1;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    [length.to_string().as_bytes(), b" ", PREFIX, name, b"=", value, b"\n"].concat()
}

/// Refuses an entry whose attributes are an attack, before anything is made of it.
pub(crate) fn check(attributes: &[(Vec<u8>, Vec<u8>)], path: &[u8]) -> Result<(), ArchiveError> {
    let hostile = |name: &[u8]| fate(name) == Fate::Refuse || name.is_empty() || name.contains(&0);
    match attributes.iter().any(|(name, _)| hostile(name)) {
        true => Err(ArchiveError::refused(path, "has an extended attribute that overlayfs or nobody obeys")),
        false => Ok(()),
    }
}

/// Sets what may be taken over. After owner and mode, whose change clears capabilities.
pub(crate) fn set(
    file: impl AsFd,
    attributes: &[(Vec<u8>, Vec<u8>)],
    rules: Rules,
    path: &[u8],
) -> Result<(), ArchiveError> {
    for (name, value) in attributes.iter().filter(|(name, _)| fate(name) == Fate::Set) {
        // Capabilities give rights away as a set-uid bit does.
        if name == CAPABILITY && !rules.keep_suid {
            continue;
        }
        let Some(value) = rules.ids.attribute_here(name, value) else {
            return Err(ArchiveError::refused(path, "has an attribute for ids that the container has not"));
        };
        match fsetxattr(&file, name.as_slice(), &value, XattrFlags::empty()) {
            // A file system without such attributes, or a person without the right to set them.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::PERM) => {}
            Err(error) => return Err(ArchiveError::at("setting an attribute of", path)(error)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::record;

    #[test]
    fn a_record_counts_its_own_digits() {
        for size in [0, 60, 61, 62, 63, 64, 65, 66, 67, 68, 69, 70, 950, 960, 970, 65_536] {
            let record = record(b"user.x", &vec![b'v'; size]);
            let space = record.iter().position(|byte| *byte == b' ').unwrap();
            let length: usize = std::str::from_utf8(&record[..space]).unwrap().parse().unwrap();
            assert_eq!(length, record.len(), "value of {size}");
        }
    }
}
