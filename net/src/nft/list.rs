//! Which chains are hooked into the kernel, ours and others', to find who drops our packets.
//! In: nothing. Out: chains with table, family, hook, policy. Owns nothing.
//! Never: changes anything. iptables-nft's chains are seen, those of iptables-legacy are not.

use super::{NftError, SUBSYSTEM};
use crate::netlink::socket::Socket;
use crate::netlink::{AF_UNSPEC, Buffer, Head, NLM_F_DUMP};

const GETCHAIN: u16 = 4;

/// The family of a table, as far as IPv4 packets meet it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    Inet,
    Ip,
    Other,
}

impl Family {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Inet => "inet",
            Self::Ip => "ip",
            Self::Other => "?",
        }
    }
}

/// A chain of any table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) family: Family,
    pub(crate) table: String,
    pub(crate) name: String,
    /// The netfilter hook of a base chain; 2 is forward.
    pub(crate) hook: Option<u32>,
    /// The policy of a base chain is drop.
    pub(crate) drops_by_policy: bool,
}

/// Every chain of every table in this network namespace.
pub(crate) fn list_chains(socket: &mut Socket) -> Result<Vec<Chain>, NftError> {
    let sequence = socket.reserve(1);
    let kind = (SUBSYSTEM << 8) | GETCHAIN;
    let mut request = Buffer::default();
    let head = Head { kind, flags: NLM_F_DUMP, sequence, family: AF_UNSPEC, resource: 0 };
    request.message(head, |_| ());
    let mut chains = Vec::new();
    let asked = socket.query(&request, sequence, true, |answer| {
        let attributes = answer.attributes();
        let family = match answer.family {
            1 => Family::Inet,
            2 => Family::Ip,
            _ => Family::Other,
        };
        let (Some(table), Some(name)) = (attributes.text(1), attributes.text(3)) else { return };
        let hook = attributes.nested(4).be32(1);
        let drops_by_policy = hook.is_some() && attributes.be32(5) == Some(0);
        chains.push(Chain { family, table, name, hook, drops_by_policy });
    });
    asked.map_err(|refused| NftError { what: "question for chains", errno: refused.errno })?;
    Ok(chains)
}
