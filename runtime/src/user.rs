//! Who a container runs as: the image's or the definition's `user[:group]`, by name or number,
//! looked up in the image's own /etc/passwd and /etc/group.
//! In: text, and the root file system, which is hostile: opened with RESOLVE_IN_ROOT (openat2(2)),
//! read only if they are regular files, and not beyond 1 MiB. Out: numbers.
//! Never: asks the host's user database.

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// A user as the kernel and the environment need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    /// Groups beside `gid`, without repeats.
    pub additional_gids: Vec<u32>,
    /// Value of HOME; `/` when the image does not say.
    pub home: String,
}

/// Why a user cannot be found.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    #[error("unable to find user {user}: no matching entries in the image's /etc/passwd")]
    NoUser { user: String },
    #[error("unable to find group {group}: no matching entries in the image's /etc/group")]
    NoGroup { group: String },
    #[error("the image's {path} cannot be read")]
    Read { path: &'static str, source: io::Error },
}

/// Largest passwd or group file that is read.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Looks `text` up in the root file system, empty means root, and adds `groups`.
pub fn resolve(text: &str, groups: &[String], rootfs: &Path) -> Result<User, UserError> {
    let read =
        |path: &'static str| read_in_root(rootfs, path).map_err(|source| UserError::Read { path, source });
    let group_file = read("/etc/group")?;
    let mut user = resolve_in(text, &read("/etc/passwd")?, &group_file)?;
    for wanted in groups {
        let gid = group_id(wanted, &group_file)?;
        if gid != user.gid && !user.additional_gids.contains(&gid) {
            user.additional_gids.push(gid);
        }
    }
    Ok(user)
}

/// As `resolve`, with the two files as text. Docker's rules: a number need not be in the files;
/// supplementary groups come from the files unless a group is given.
pub fn resolve_in(text: &str, passwd: &str, group: &str) -> Result<User, UserError> {
    let (user_text, group_text) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (text, None),
    };
    let user_text = if user_text.is_empty() { "0" } else { user_text };
    let number = user_text.parse::<u32>().ok();
    // A name wins over a number, as in Docker: a user may be called "1000".
    let entries = || passwd.lines().filter_map(PasswdEntry::parse);
    let entry = entries()
        .find(|entry| entry.name == user_text)
        .or_else(|| entries().find(|entry| Some(entry.uid) == number));
    let (uid, gid, home) = match (&entry, number) {
        (Some(entry), _) => (entry.uid, entry.gid, entry.home.to_owned()),
        (None, Some(number)) => (number, 0, String::new()),
        (None, None) => return Err(UserError::NoUser { user: user_text.to_owned() }),
    };
    let home = if home.is_empty() { "/".to_owned() } else { home };
    match group_text {
        Some(wanted) => Ok(User { uid, gid: group_id(wanted, group)?, additional_gids: Vec::new(), home }),
        None => {
            let additional_gids = entry.map(|entry| memberships(entry.name, gid, group)).unwrap_or_default();
            Ok(User { uid, gid, additional_gids, home })
        }
    }
}

fn group_id(wanted: &str, group: &str) -> Result<u32, UserError> {
    let by_name = group.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let gid = fields.nth(1)?.parse().ok()?;
        (name == wanted).then_some(gid)
    });
    by_name.or_else(|| wanted.parse().ok()).ok_or_else(|| UserError::NoGroup { group: wanted.to_owned() })
}

fn memberships(name: &str, gid: u32, group: &str) -> Vec<u32> {
    let mut gids: Vec<u32> = group
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(':').skip(2);
            let gid: u32 = fields.next()?.parse().ok()?;
            let members = fields.next()?;
            members.split(',').any(|member| member.trim() == name).then_some(gid)
        })
        .filter(|found| *found != gid)
        .collect();
    gids.sort_unstable();
    gids.dedup();
    gids
}

struct PasswdEntry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

impl<'a> PasswdEntry<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, gid, _, home, ..] = fields.as_slice() else { return None };
        Some(Self { name, uid: uid.parse().ok()?, gid: gid.parse().ok()?, home })
    }
}

/// The text of a file of the image; empty when it is not there.
fn read_in_root(rootfs: &Path, path: &str) -> io::Result<String> {
    let root = openat(CWD, rootfs, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let fd = match openat2(&root, path, flags, Mode::empty(), resolve) {
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(String::new()),
        other => other?,
    };
    if FileType::from_raw_mode(fstat(&fd)?.st_mode) != FileType::RegularFile {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is not a regular file"));
    }
    let mut bytes = Vec::new();
    let read = File::from(fd).take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if read as u64 > FILE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is larger than 1 MiB"));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests;
