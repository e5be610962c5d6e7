//! A blocking NETLINK_NETFILTER socket: one request at a time, every answer awaited.
//! In: a `Buffer`. Out: success, answers of a dump, or the errno with the sequence it belongs to.
//! Owns the socket, which stays in the network namespace of the thread that opened it.
//! Never: shared between threads; the firewall's own thread has it (see `firewall.rs`).

use super::{Answer, Buffer, NLMSG_DONE, NLMSG_ERROR, NLMSG_MIN_TYPE, answers};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use std::os::fd::{AsRawFd, OwnedFd};

/// The kernel answers at once; another program's transaction may be in its way for a moment.
const ANSWER_TIMEOUT_S: i64 = 10;
/// Room for a batch of 60,000 elements.
const SEND_BUFFER_BYTES: usize = 16 << 20;
const RECEIVE_BUFFER_BYTES: usize = 1 << 20;

/// A refused request: the errno and the sequence number of the message it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("message {sequence}")]
pub(crate) struct Refused {
    pub(crate) sequence: u32,
    #[source]
    pub(crate) errno: Errno,
}

pub(crate) struct Socket {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// Opens a socket in the network namespace of the calling thread.
    pub(crate) fn open() -> Result<Self, Errno> {
        let protocol = SockProtocol::NetlinkNetFilter;
        let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::seconds(ANSWER_TIMEOUT_S))?;
        // Needs CAP_NET_ADMIN; without it the first change is refused anyway, with a better message.
        let _ = setsockopt(&fd, sockopt::SndBufForce, &SEND_BUFFER_BYTES);
        let _ = setsockopt(&fd, sockopt::RcvBufForce, &RECEIVE_BUFFER_BYTES);
        Ok(Self { fd, sequence: 1, buffer: vec![0; 64 << 10] })
    }

    /// The first of `count` sequence numbers that no other request of this socket has. They start
    /// again far below the end of the numbers, so that a request's numbers never wrap.
    pub(crate) fn reserve(&mut self, count: u32) -> u32 {
        let first = if self.sequence > u32::MAX / 2 { 1 } else { self.sequence };
        self.sequence = first + count;
        first
    }

    /// Sends messages numbered from `first` to `last`, of which the last asks for an
    /// acknowledgement, and waits for it. The first refusal is the result.
    pub(crate) fn transact(&mut self, request: &Buffer, first: u32, last: u32) -> Result<(), Refused> {
        self.send(request, first)?;
        let mut refused = None;
        loop {
            let length = self.receive(first)?;
            for answer in answers(&self.buffer[..length]) {
                if answer.kind != NLMSG_ERROR || !(first..=last).contains(&answer.sequence) {
                    continue;
                }
                if answer.errno() != 0 && refused.is_none() {
                    let errno = Errno::from_raw(answer.errno());
                    refused = Some(Refused { sequence: answer.sequence, errno });
                }
                // An error of the whole batch may come without any further answer.
                let whole = answer.sequence == first && answer.errno() != 0;
                if answer.sequence == last || whole {
                    return refused.map_or(Ok(()), Err);
                }
            }
        }
    }

    /// Sends one request for data and gives each answer to `each`. `dump` says whether the answers
    /// end with NLMSG_DONE or are a single one.
    pub(crate) fn query(
        &mut self,
        request: &Buffer,
        sequence: u32,
        dump: bool,
        mut each: impl FnMut(Answer<'_>),
    ) -> Result<(), Refused> {
        self.send(request, sequence)?;
        loop {
            let length = self.receive(sequence)?;
            for answer in answers(&self.buffer[..length]) {
                if answer.sequence != sequence {
                    continue;
                }
                match answer.kind {
                    NLMSG_ERROR | NLMSG_DONE if answer.errno() != 0 => {
                        return Err(Refused { sequence, errno: Errno::from_raw(answer.errno()) });
                    }
                    NLMSG_ERROR | NLMSG_DONE => return Ok(()),
                    kind if kind >= NLMSG_MIN_TYPE => each(answer),
                    _ => continue,
                }
                if !dump {
                    return Ok(());
                }
            }
        }
    }

    fn send(&mut self, request: &Buffer, sequence: u32) -> Result<(), Refused> {
        let fd = self.fd.as_raw_fd();
        // What an earlier, given-up request left behind.
        while recv(fd, &mut self.buffer, MsgFlags::MSG_DONTWAIT).is_ok() {}
        let sent = send(fd, request.as_bytes(), MsgFlags::empty());
        sent.map(drop).map_err(|errno| Refused { sequence, errno })
    }

    fn receive(&mut self, sequence: u32) -> Result<usize, Refused> {
        loop {
            match recv(self.fd.as_raw_fd(), &mut self.buffer, MsgFlags::empty()) {
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => return Err(Refused { sequence, errno: Errno::ETIMEDOUT }),
                other => return other.map_err(|errno| Refused { sequence, errno }),
            }
        }
    }
}
