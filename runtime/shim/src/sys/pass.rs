//! Descriptors over Unix sockets (SCM_RIGHTS, unix(7)). In: bytes and descriptors. Out: the same at
//! the other end. Never: allocates: `send` also runs between fork and exec.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// The most that one message carries: a session's input, output and error.
pub(crate) const DESCRIPTORS_MAX: usize = 3;

/// Room for the control message, aligned as cmsg(3) wants it.
#[repr(C, align(8))]
struct Control([u8; 64]);

/// Sends all of `bytes` with `descriptors` in one message; a socket that does not take them at once
/// is an error, for its buffer is empty when this is used.
pub(crate) fn send(socket: RawFd, bytes: &[u8], descriptors: &[RawFd]) -> io::Result<()> {
    if descriptors.len() > DESCRIPTORS_MAX {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let data_bytes = size_of_val(descriptors) as u32;
    let mut control = Control([0; 64]);
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: all-zero bytes are a valid msghdr.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    if !descriptors.is_empty() {
        message.msg_control = (&raw mut control).cast();
        // SAFETY: a computation without memory; three descriptors need 32 bytes.
        message.msg_controllen = unsafe { libc::CMSG_SPACE(data_bytes) } as _;
        // SAFETY: `control` is aligned and longer than the header and three descriptors.
        unsafe {
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(data_bytes) as _;
            std::ptr::copy_nonoverlapping(
                descriptors.as_ptr().cast::<u8>(),
                libc::CMSG_DATA(header),
                data_bytes as usize,
            );
        }
    }
    // SAFETY: `message` describes `bytes` and `control`, which live through the call.
    let sent = unsafe { libc::sendmsg(socket, &raw const message, libc::MSG_NOSIGNAL) };
    match usize::try_from(sent) {
        Ok(count) if count == bytes.len() => Ok(()),
        Ok(_) => Err(io::Error::from_raw_os_error(libc::EMSGSIZE)),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

/// Reads bytes and at most one descriptor, which closes on exec. 0 bytes is the end.
pub(crate) fn receive(socket: RawFd, bytes: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut control = Control([0; 64]);
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: all-zero bytes are a valid msghdr.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    // SAFETY: a computation without memory; room for one descriptor, so that the kernel closes more.
    message.msg_controllen = unsafe { libc::CMSG_SPACE(size_of::<RawFd>() as u32) } as _;
    // SAFETY: `message` describes `bytes` and `control`, which live through the call.
    let count = unsafe { libc::recvmsg(socket, &raw mut message, libc::MSG_CMSG_CLOEXEC) };
    let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: the kernel has written `control`; a header it did not write is null.
    let passed = unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        let is_rights = !header.is_null()
            && (*header).cmsg_level == libc::SOL_SOCKET
            && (*header).cmsg_type == libc::SCM_RIGHTS
            && (*header).cmsg_len as usize >= libc::CMSG_LEN(size_of::<RawFd>() as u32) as usize;
        if is_rights {
            let number = std::ptr::read_unaligned(libc::CMSG_DATA(header).cast::<RawFd>());
            Some(OwnedFd::from_raw_fd(number))
        } else {
            None
        }
    };
    Ok((count, passed))
}
