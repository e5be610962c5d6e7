//! The terminal of a container's main process: from the container's own devpts, as its user, right
//! before the program. libcontainer's console socket would need a file for each container, and its
//! terminal belongs to root whatever the user is.
//! In: the socket to the shim. Out: the controlling terminal on 0 to 2; the master at the shim.
//! Never: trusts what the container has at the path: it must be the devpts multiplexer.

use lighter_shim_wire::{HelperReport, encode_frame};
use rustix::fs::{FileType, Mode, OFlags, fstat, fstatfs, major, minor, open};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use std::fs::File;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

/// linux/magic.h
const DEVPTS_SUPER_MAGIC: i64 = 0x1cd1;
/// Device number of the multiplexer, Documentation/admin-guide/devices.txt
const PTMX: (u32, u32) = (5, 2);
/// What a terminal is that nobody has looked at yet.
const SIZE: Winsize = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };

/// Runs inside the container, as a session leader (libcontainer made it one).
pub(crate) fn take(shim: &File) -> io::Result<()> {
    let master = open_multiplexer()?;
    unlockpt(&master)?;
    let slave = ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
    tcsetwinsize(&master, SIZE)?;
    rustix::process::ioctl_tiocsctty(&slave)?;
    rustix::stdio::dup2_stdin(&slave)?;
    rustix::stdio::dup2_stdout(&slave)?;
    rustix::stdio::dup2_stderr(&slave)?;
    give(shim, &master)
}

fn open_multiplexer() -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let master = open("/dev/pts/ptmx", flags, Mode::empty())?;
    let stat = fstat(&master)?;
    let is_ptmx = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && (major(stat.st_rdev), minor(stat.st_rdev)) == PTMX
        && fstatfs(&master)?.f_type == DEVPTS_SUPER_MAGIC;
    if is_ptmx { Ok(master) } else { Err(io::Error::from_raw_os_error(libc::ENODEV)) }
}

fn give(shim: &File, master: &OwnedFd) -> io::Result<()> {
    let frame = encode_frame(0, &HelperReport::Terminal);
    let descriptors = [master.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&descriptors));
    sendmsg(shim, &[IoSlice::new(&frame)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}
