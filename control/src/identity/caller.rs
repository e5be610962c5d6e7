//! Who calls: made once for each connection, from its certificate or its socket's credentials.
//! In: a verified peer certificate, or a Unix peer. Out: a `Caller`.
//! Never: believes anything a request says about its sender.
//! Source: SPIFFE-ID standard (one URI in the subject alternative names).

use super::TRUST_DOMAIN;
use lighter_model::ids::{ClusterName, ContainerInstanceId};
use std::fmt;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};

/// The sender of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    Anonymous,
    User { name: String },
    Node { cluster: ClusterName, id: ContainerInstanceId },
}

/// The user of the key made at the first start, and of local root.
pub const ADMINISTRATOR: &str = "admin";

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("an anonymous caller"),
            Self::User { name } => write!(f, "user {name}"),
            Self::Node { cluster, id } => write!(f, "container instance {cluster}/{id}"),
        }
    }
}

impl Caller {
    /// The SPIFFE id that a certificate for this caller carries; `None` for nobody.
    pub fn spiffe_id(&self) -> Option<String> {
        match self {
            Self::Anonymous => None,
            Self::User { name } => Some(format!("{TRUST_DOMAIN}user/{name}")),
            Self::Node { cluster, id } => Some(format!("{TRUST_DOMAIN}node/{cluster}/{id}")),
        }
    }

    /// Reads a SPIFFE id of ours.
    pub fn from_spiffe_id(uri: &str) -> Option<Self> {
        let parts: Vec<&str> = uri.strip_prefix(TRUST_DOMAIN)?.split('/').collect();
        match parts.as_slice() {
            ["user", name] if !name.is_empty() => Some(Self::User { name: (*name).to_owned() }),
            ["node", cluster, id] => {
                Some(Self::Node { cluster: cluster.parse().ok()?, id: id.parse().ok()? })
            }
            _ => None,
        }
    }

    /// The caller a certificate names. The TLS stack has verified its chain up to our CA and its
    /// use; a certificate without exactly one id of ours, or a CA's own, names nobody.
    pub fn from_certificate(der: &[u8]) -> Self {
        Self::certified(der).unwrap_or(Self::Anonymous)
    }

    fn certified(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        if certificate.is_ca() {
            return None;
        }
        let mut uris =
            certificate.extensions().iter().flat_map(|extension| match extension.parsed_extension() {
                ParsedExtension::SubjectAlternativeName(names) => names.general_names.as_slice(),
                _ => &[],
            });
        match (uris.next(), uris.next()) {
            (Some(GeneralName::URI(uri)), None) => Self::from_spiffe_id(uri),
            _ => None,
        }
    }

    /// The caller behind a Unix socket: root and the server's own user are the administrator.
    pub fn from_unix_peer(peer_uid: Option<u32>, own_uid: u32) -> Self {
        match peer_uid {
            Some(uid) if uid == 0 || uid == own_uid => Self::User { name: ADMINISTRATOR.to_owned() },
            _ => Self::Anonymous,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spiffe_ids_are_read_as_they_are_written_and_nothing_else_is() {
        let id = ContainerInstanceId::from_parts(1, 2);
        let node = Caller::Node { cluster: "default".parse().unwrap(), id };
        let user = Caller::User { name: "admin".to_owned() };
        for caller in [node, user] {
            assert_eq!(Caller::from_spiffe_id(&caller.spiffe_id().unwrap()), Some(caller));
        }
        for text in [
            "",
            "spiffe://other/user/admin",
            "spiffe://lighter/user/",
            "spiffe://lighter/user/a/b",
            "spiffe://lighter/node/default/xyz",
            "spiffe://lighter/node//00",
            "spiffe://lighter/",
        ] {
            assert_eq!(Caller::from_spiffe_id(text), None, "{text}");
        }
    }

    #[test]
    fn only_root_and_our_own_user_are_administrators_on_the_unix_socket() {
        let admin = Caller::User { name: "admin".to_owned() };
        assert_eq!(Caller::from_unix_peer(Some(0), 1000), admin);
        assert_eq!(Caller::from_unix_peer(Some(1000), 1000), admin);
        assert_eq!(Caller::from_unix_peer(Some(1001), 1000), Caller::Anonymous);
        assert_eq!(Caller::from_unix_peer(None, 0), Caller::Anonymous);
    }
}
