//! Who is who: the CA, the administrator key, join tokens, callers and what each may do.
//! In: keys on disk, peer certificates, tokens. Out: certificates and `Caller`s.
//! Owns: the data directory's ca/ and admin.pem. Never: hands a private key to anybody but its owner.

pub mod ca;
pub mod caller;
pub mod files;
pub mod join_token;
pub mod layer;
pub mod permission;

use crate::environment::hex;

/// The DNS name in the certificate of every control plane; agents and the command line verify it.
pub const SERVER_NAME: &str = "control.lighter.internal";
/// The trust domain of all SPIFFE ids.
pub const TRUST_DOMAIN: &str = "spiffe://lighter/";

/// SHA-256 in hex.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref())
}
