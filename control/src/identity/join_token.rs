//! The text of a join token: `lighter1.<SHA-256 of the CA, base64url>.<token id>.<secret>`.
//! In: its parts, or a text. Out: the other. Never: stores the secret, or prints it by Debug.

use crate::error::ApiError;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};

/// What every join token begins with.
pub const PREFIX: &str = "lighter1";

/// The hash by which a node that joins knows the CA: base64url of SHA-256 of its DER form.
pub fn ca_hash(ca_der: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(digest(&SHA256, ca_der))
}

/// A secret for a new token, as text.
pub fn secret(random: &[u8; 32]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(random)
}

/// A token's text.
pub fn text(ca_hash: &str, token_id: &str, secret: &str) -> String {
    format!("{PREFIX}.{ca_hash}.{token_id}.{secret}")
}

/// The parts of a token that a node sent; a token for another CA is not ours.
pub fn parse<'a>(text: &'a str, own_ca_hash: &str) -> Result<(&'a str, &'a str), ApiError> {
    let parts: Vec<&str> = text.trim().split('.').collect();
    match parts.as_slice() {
        [PREFIX, hash, id, secret] if *hash == own_ca_hash => Ok((id, secret)),
        _ => Err(ApiError::JoinTokenInvalid),
    }
}
